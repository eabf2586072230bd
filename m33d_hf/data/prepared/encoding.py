"""Between samples and the bytes that a prepared data set holds of them; depth and labels come back bit for bit.

Depth is stored as the 16-bit integers that it was read from, as PNG, wherever dividing these by the row's scale gives
every value back exactly; everything else is stored as float32, as TIFF. Nothing is rounded.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.files import decode_map
from m33d_hf.data.files.tiff_maps import read_tiff_map
from m33d_hf.data.options import choose
from m33d_hf.data.sample import IGNORE_INDEX, Hole, RGBDSample, VideoHandle, holes_of, read_sample
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.depth_m33d import DepthSpec, resize_depth
from m33d_hf.modeling.depth_spec_m33d import ROTATED_UNIT, UNITS_PER_METRE
from m33d_hf.modeling.picture_files_m33d import decode_picture, is_tiff

PICTURE_FORMATS = ("png", "jpeg")
_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")
_MOST_PIXELS = 16384
_LARGEST = 65535
_PNG_LEVEL = 6
TOGETHER = 8  # frames of a clip that are decoded together
# Two aspect ratios count as one if they differ by rounding only, or by a hundredth.
_SAME_RATIO = 0.01


@dataclass(frozen=True)
class Encoder:
    """How frames are stored.

    Attributes:
        size: None keeps sizes; (side, None) is the length of the shorter side, to which larger frames shrink;
            (height, width) is the size of every frame, which must have that aspect ratio.
        picture: `png` (lossless) or `jpeg`.
        quality: of JPEG, 1 to 100.
        scales: units per metre in which depth may have been stored.
        kind: of depth.
    """

    size: tuple[int, int | None] | None = None
    picture: str = "png"
    quality: int = 95
    scales: tuple[float, ...] = ()
    kind: str = "metric"

    def rows(
        self,
        handle: VideoHandle,
        sequence: str,
        indices: Sequence[int] | None = None,
        holes: HoleCount | None = None,
        damaged: list[int] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The rows of an item's frames, in order; values as Parquet takes them.

        Args:
            handle: of the item.
            sequence: what the frames belong to.
            indices: frames to take; None for all.
            holes: counts the frames of clips whose depth is missing or damaged: it is stored as a hole, or not at all.
            damaged: receives the frames of clips whose depth is there, but cannot be decoded.

        Raises:
            CorruptFileError: a frame cannot be decoded, of a clip its picture. DataError: a frame of another aspect
                ratio than `size`, or with modalities that the columns have no place for.
        """
        chosen = list(range(handle.length) if indices is None else indices)
        for start in range(0, len(chosen), TOGETHER):
            numbers = chosen[start : start + TOGETHER]
            sample, lacking = _read(handle, numbers)
            if holes is not None and (sample.depth is not None or lacking):
                holes.add(len(numbers), lacking)
            if damaged is not None:
                damaged += [numbers[hole.place] for hole in lacking if hole.damaged]
            if others := sample.meta.get("modalities"):
                raise ConfigError(
                    f"{handle.key} has {', '.join(others)}; prepared data holds rgb, depth and segmentation only. "
                    "Leave the source's option modalities out."
                )
            for place, number in enumerate(numbers):
                yield {
                    "key": handle.key if handle.length == 1 else f"{handle.key}[{number}]",
                    "sequence": sequence,
                    "frame": number,
                    "label": None if sample.label in (None, IGNORE_INDEX) else int(sample.label),
                    "fps": handle.fps,
                    **self._maps(sample, place),
                }

    def _maps(self, sample: RGBDSample, place: int) -> dict[str, Any]:
        """The maps of one frame of a sample."""
        size = self._target(sample)
        part = slice(place, place + 1)
        found: dict[str, Any] = dict.fromkeys(("rgb", "depth", "segmentation", "depth_scale"))
        if sample.rgb is not None:
            pixels = resize_rgb(sample.rgb[part], size)[0].permute(1, 2, 0)
            found["rgb"] = _stored(self._picture(pixels.contiguous().numpy()))
        if sample.depth is not None:
            metres = resize_depth(sample.depth[part], size)[0, 0].numpy()
            data, found["depth_scale"] = encode_depth(metres, self.kind, self.scales)
            found["depth"] = _stored(data)
        if sample.segmentation is not None:
            found["segmentation"] = _stored(_png(resize_labels(sample.segmentation[part], size)[0].numpy()))
        return found

    def _target(self, sample: RGBDSample) -> tuple[int, int]:
        height, width = sample.height, sample.width
        if self.size is None:
            return height, width
        first, second = self.size
        if second is None:
            short = min(height, width)
            if short <= first:
                return height, width
            return max(1, round(height * first / short)), max(1, round(width * first / short))
        apart = abs(height * second - width * first)
        if apart > max(_SAME_RATIO * height * second, height, width, first, second):
            raise DataError(
                f"{sample.key}: {height}x{width} has another aspect ratio than --size {first}x{second}, which would "
                "stretch it. Give the length of the shorter side alone, which keeps the ratio."
            )
        return first, second

    def _picture(self, pixels: np.ndarray) -> bytes:
        if self.picture == "png":
            return _png(pixels)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=self.quality)
        return stream.getvalue()


def _read(handle: VideoHandle, numbers: Sequence[int]) -> tuple[RGBDSample, Sequence[Hole]]:
    """Frames of an item, without depth where that of none of them can be decoded; and what is missing."""
    try:
        sample = handle.read(numbers).align()
    except CorruptFileError as error:
        if handle.length == 1:
            raise
        sample = read_sample(handle, numbers, ("rgb", "segmentation"))
        if sample.rgb is None:
            raise
        return sample, [Hole(place, error.path, error.reason, True) for place in range(len(numbers))]
    return sample, holes_of(sample)


def read_size(text: str | None) -> tuple[int, int | None] | None:
    """`--size`: None, "256" (the shorter side) or "240x320" (height x width).

    Raises:
        ConfigError: anything else.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    sides = () if found is None else tuple(int(side) for side in found.groups() if side is not None)
    if not sides or not all(1 <= side <= _MOST_PIXELS for side in sides):
        raise ConfigError(f"--size {text!r}: write the shorter side, such as 256, or height x width, such as 240x320.")
    return sides[0], (sides[1] if len(sides) > 1 else None)


def encoder_of(source: Source, size: str | None, picture: str, quality: int) -> Encoder:
    """The encoder for a source.

    Raises:
        ConfigError: a size that cannot be read, or an unknown format of pictures.
    """
    choose("--rgb_format", picture, PICTURE_FORMATS)
    spec = source.depth_spec
    if spec is None:
        return Encoder(read_size(size), picture, quality)
    by_sequence = getattr(getattr(source, "detection", None), "by_sequence", None) or {}
    specs = [spec, *(found.spec for found in by_sequence.values())]
    scales = dict.fromkeys(_decoded_scale(each) for each in specs)
    return Encoder(read_size(size), picture, quality, tuple(scales), spec.kind)


def _decoded_scale(spec: DepthSpec) -> float:
    """Units per metre once the bits are rotated back."""
    return UNITS_PER_METRE["millimetre"] if spec.unit == ROTATED_UNIT else float(spec.scale or 1.0)


def sequence_of(group: str | None, handle: VideoHandle) -> str:
    """What an item's frames belong to: the clip itself; the group, else the folder in the name, of a single frame."""
    if handle.length != 1:
        return handle.key
    folder = PurePosixPath(handle.key).parent.as_posix() if group is None or group == handle.key else group
    return "frames" if folder == "." else folder


def resize_rgb(rgb: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(T, 3, H, W) uint8 to `size`, bilinear with antialiasing, in float32."""
    if tuple(rgb.shape[-2:]) == size:
        return rgb
    resized = F.interpolate(rgb.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def resize_labels(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(T, H, W) class ids to `size`, by the nearest pixel."""
    if tuple(labels.shape[-2:]) == size:
        return labels
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(labels.dtype)


@functools.lru_cache(maxsize=64)
def row_spec(kind: str, scale: float) -> DepthSpec:
    """The meaning of the integers of a row: only 0 is invalid."""
    return DepthSpec(kind=kind, scale=scale, invalid_values=(0,))


def encode_depth(depth: np.ndarray, kind: str, scales: Sequence[float]) -> tuple[bytes, float | None]:
    """(H, W) float32 with NaN holes as (bytes, scale): 16-bit PNG where a scale gives every value back, else TIFF.

    Returns:
        bytes and units per metre; None as the scale of float32.
    """
    valid = np.isfinite(depth)
    for scale in scales:
        wide = np.rint(np.where(valid, depth, 0).astype(np.float64) * scale)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > _LARGEST:
            continue
        stored = wide.astype(np.uint16)
        if np.array_equal(row_spec(kind, scale).decode(stored), depth, equal_nan=True):
            return _png(stored), scale
    stream = io.BytesIO()
    Image.fromarray(depth.astype(np.float32, copy=False)).save(stream, format="TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue(), None


def decode_stored_depth(where: Path, data: bytes, kind: str, scale: float | None) -> torch.Tensor:
    """(1, H, W) float32 of what `encode_depth` wrote.

    Raises:
        CorruptFileError: of `where`: it cannot be decoded, or integers have no scale.
    """
    stored = decode_stored_map(where, data)
    if scale is None or not math.isfinite(scale):
        if stored.dtype.kind != "f":
            raise CorruptFileError(where, "holds depth as integers without a scale")
        return torch.from_numpy(stored.astype(np.float32, copy=False))[None]
    return torch.from_numpy(row_spec(kind, scale).decode(stored))[None]


def decode_stored_map(where: Path, data: bytes) -> np.ndarray:
    """(H, W) values as stored, of PNG or TIFF; raises CorruptFileError of `where`."""
    values = (read_tiff_map if is_tiff(data) else decode_map)(where, data)[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise CorruptFileError(where, f"holds an array of shape {values.shape}, not one value per pixel")
    return np.require(values, values.dtype.newbyteorder("="), ["C", "W"])


def decode_stored_picture(where: Path, data: bytes) -> torch.Tensor:
    """(3, H, W) uint8 of an encoded picture, upright; raises CorruptFileError of `where`."""
    pixels, _ = decode_picture(where, data)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)


def _png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def _stored(data: bytes) -> dict[str, Any]:
    """As a column of `datasets.Image` holds it."""
    return {"bytes": data, "path": None}
