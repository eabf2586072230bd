"""Writes predicted depth as 16-bit integers with one scale for all frames of a video, in one pass and constant memory.

Metric depth is millimetres: round(1000 d), 0 where invalid, 65535 (which its DepthSpec calls invalid) where d is
farther than 65.534 m; these pixels are counted.

Inverse and relative depth have no unit and no known range. Stored is floor((d - c) s) + b with a power of two s, and
0 where invalid. The centre c is 0 for inverse depth, so that ratios survive, and the middle of the first frame for
relative depth. s is the largest power of two with which every value of the video fits 16 bits. It is known only at the
end; but floor(floor(x) / 2) = floor(x / 2), so frames written with a larger s are brought to the final one exactly, and
what is stored depends on the prediction and on the video's range, never on the other pixels of its frame, the batch
size or an interruption. Every PNG carries its own scale as text, which makes that last step repeatable.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from m33d_hf.data.depth.stores import (
    PARQUET_KEY,
    PNG_TEXT_KEY,
    SCALE_FILE,
    Quantization,
    frame_name,
    read_picture_scale,
)
from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically
from m33d_hf.data.files.files import read_map
from m33d_hf.errors import ConfigError, DataError, MissingDependencyError
from m33d_hf.modeling.depth_m33d import DepthSpec

FORMATS = ("png", "parquet")
COUNTS = ("pixels", "not_finite", "not_positive", "too_far")
_PARTIAL = ".partial-"
_STATE_FILE = "state.json"
_MILLIMETRES = 1000.0
_FARTHEST = 65534
_LARGEST = 65535
_MIDDLE = 32768  # stored for a relative value at the centre
_COMPRESSION = 3  # 16-bit maps hardly shrink beyond it
_ROW_GROUP = 32  # frames of a Parquet file that are read together


def written_spec(kind: str) -> DepthSpec:
    """The DepthSpec of everything written here with that kind.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind == "metric":
        return DepthSpec(kind="metric", unit="millimetre", invalid_values=(0, _LARGEST))
    return DepthSpec(kind=kind, invalid_values=(0,))


@dataclass
class Quantizer:
    """Float depth to 16-bit integers, see the module's text. `scale` only ever shrinks while values are seen.

    Attributes:
        kind: `metric`, `inverse` or `relative`.
        scale: s; None until a finite value has been seen.
        center: c; None until then.
        counts: pixels so far: all, not finite (stored as invalid), not positive (of metric and inverse depth; stored
            as invalid) and too far (metric beyond 65.534 m).
    """

    kind: str
    scale: float | None = None
    center: float | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def __post_init__(self) -> None:
        if self.kind == "metric":
            self.scale, self.center = _MILLIMETRES, 0.0
        elif self.kind == "inverse":
            self.center = 0.0

    def quantize(self, depth: np.ndarray) -> np.ndarray:
        """(h, w) float32 to (h, w) uint16 with the scale that fits everything seen so far."""
        values = depth.astype(np.float64)
        valid = np.isfinite(values)
        self.counts["pixels"] += values.size
        self.counts["not_finite"] += int((~valid).sum())
        if self.kind != "relative":
            self.counts["not_positive"] += int((valid & (values <= 0)).sum())
            valid &= values > 0
        values = values[valid]
        stored = np.zeros(depth.shape, np.uint16)
        if not values.size:
            return stored
        if self.kind == "metric":
            stored[valid] = self._millimetres(values)
            return stored
        if self.center is None:
            self.center = float((values.min() + values.max()) / 2)
        values -= self.center
        floors = np.floor(values * self._shrunk_to_fit(float(np.abs(values).max())))
        # The smallest positive disparity is far away, not invalid; clamping at 1 commutes with halving.
        stored[valid] = np.clip(floors if self.kind == "inverse" else floors + _MIDDLE, 1, _LARGEST)
        return stored

    def _millimetres(self, metres: np.ndarray) -> np.ndarray:
        stored = np.maximum(np.rint(metres * _MILLIMETRES), 1)
        too_far = stored > _FARTHEST
        self.counts["too_far"] += int(too_far.sum())
        stored[too_far] = _LARGEST
        return stored

    def _shrunk_to_fit(self, largest: float) -> float:
        # floor(x) <= 65535, or -32767 <= floor(x) <= 32767 so that the sum with the middle is 1 .. 65535.
        limit = _LARGEST if self.kind == "inverse" else _MIDDLE - 1
        largest = max(largest, 2.0**-100)  # all values alike: any scale is exact
        fits = 2.0 ** math.floor(math.log2(limit / largest))
        self.scale = fits if self.scale is None else min(self.scale, fits)
        return self.scale

    @property
    def quantization(self) -> Quantization:
        """How stored values become depth again: to the middle of each step (exactly the millimetre for metric)."""
        scale, center = self.scale or 1.0, self.center or 0.0
        if self.kind == "metric":
            return Quantization(scale, 0.0)
        middle = 0.0 if self.kind == "inverse" else float(_MIDDLE)
        return Quantization(scale, center + (0.5 - middle) / scale)

    def rescaled(self, stored: np.ndarray, scale: float) -> np.ndarray:
        """Values stored with an earlier `scale`, as if they had been quantised with the present one."""
        halvings = round(math.log2(scale / self.quantization.scale))
        if halvings == 0:
            return stored
        middle = 0 if self.kind == "inverse" else _MIDDLE
        shifted = (stored.astype(np.int32) - middle >> halvings) + middle
        shifted = np.maximum(shifted, 1)
        return np.where(stored == 0, 0, shifted).astype(np.uint16)

    def to_dict(self) -> dict[str, Any]:
        """The whole state, JSON-ready."""
        return {"kind": self.kind, "scale": self.scale, "center": self.center, "counts": self.counts}


class DepthVideoWriter:
    """Writes the depth of one video; `next_frame` tells where an earlier, interrupted call stopped.

    Frames and a record of their number gather in a hidden folder beside the target, which only becomes the target (or
    is packed into it) when `finish` is called. One process at a time may write one video.

    Args:
        root: sidecar root.
        rel: path of the video below it, without suffix.
        kind: `metric`, `inverse` or `relative`.
        format: `png` (folder REL with a file per frame and scale.json) or `parquet` (REL.parquet).

    Raises:
        ConfigError: an unknown format, or a folder of that name that was not written here.
    """

    def __init__(self, root: str | Path, rel: str, kind: str, format: str = "png") -> None:
        self.target = depth_target(root, rel, format)
        if format == "png" and self.target.exists() and not depth_is_written(root, rel, format):
            raise ConfigError(
                f"{self.target} exists, but was not written by depth extraction (it has no {SCALE_FILE}). Choose "
                "another --output, or move the folder."
            )
        self.format = format
        self.partial = _partial(self.target)
        self.next_frame = 0
        self.size: tuple[int, int] | None = None
        self.quantizer = Quantizer(kind)
        self._pick_up()

    def _pick_up(self) -> None:
        """Continue the work of an interrupted process, if its record is readable; otherwise start anew."""
        try:
            state = json.loads((self.partial / _STATE_FILE).read_text(encoding="utf-8"))
            quantizer = Quantizer(**state["quantizer"])
            frames, size = int(state["frames"]), tuple(state["size"])
        except (OSError, ValueError, KeyError, TypeError):
            self.discard()
            return
        if quantizer.kind == self.quantizer.kind:
            self.quantizer, self.next_frame, self.size = quantizer, frames, size

    def append(self, depth: np.ndarray) -> None:
        """Write the next frames, (n, h, w) float32 with NaN or infinity where there is no depth.

        Raises:
            DataError: a size that differs from that of earlier frames.
        """
        if self.size not in (None, depth.shape[1:]):
            raise DataError(
                f"{self.target}: frame {self.next_frame} has size {depth.shape[1:]}, but earlier frames have "
                f"{self.size}."
            )
        self.partial.mkdir(parents=True, exist_ok=True)
        self.size = depth.shape[1:]
        for number, frame in enumerate(depth, start=self.next_frame):
            data = encode_png(self.quantizer.quantize(frame), self.quantizer.quantization)
            (self.partial / frame_name(number)).write_bytes(data)
        self.next_frame += len(depth)
        state = {"frames": self.next_frame, "size": self.size, "quantizer": self.quantizer.to_dict()}
        write_text_atomically(self.partial / _STATE_FILE, json.dumps(state))

    def finish(self) -> dict[str, Any]:
        """Bring all frames to one scale and put the result in its place.

        Returns:
            The content of scale.json (or of the Parquet metadata): scale, offset, num_frames, height, width, counts.

        Raises:
            DataError: not one frame was written. MissingDependencyError: Parquet without pyarrow.
        """
        if self.size is None or not self.next_frame:
            raise DataError(f"{self.target}: no frames were written.")
        record = self.record()
        if self.format == "parquet":
            write_atomically(self.target, lambda path: self._pack(path, record))
            self.discard()
            return record
        final = self.quantizer.quantization
        for number in range(self.next_frame):
            path = self.partial / frame_name(number)
            if read_picture_scale(path) != final:
                new = path.with_suffix(".new")
                new.write_bytes(self._final_png(path))
                os.replace(new, path)
        for path in self.partial.iterdir():  # frames past the end: written, but never recorded
            if path.name != _STATE_FILE and path.name not in self._names():
                path.unlink()
        write_text_atomically(self.partial / SCALE_FILE, json.dumps(record, indent=1))
        (self.partial / _STATE_FILE).unlink()
        if self.target.is_dir():
            shutil.rmtree(self.target)
        os.replace(self.partial, self.target)
        return record

    def record(self) -> dict[str, Any]:
        """The scale and what is known about the frames so far."""
        height, width = self.size or (0, 0)
        shape = {"num_frames": self.next_frame, "height": height, "width": width}
        return {**self.quantizer.quantization.to_dict(), **shape, "counts": dict(self.quantizer.counts)}

    def discard(self) -> None:
        """Remove what was written so far."""
        if self.partial.is_dir():
            shutil.rmtree(self.partial)

    def _names(self) -> set[str]:
        return {frame_name(number) for number in range(self.next_frame)}

    def _final_png(self, path: Path) -> bytes:
        """The frame's PNG at the final scale."""
        final = self.quantizer.quantization
        scale = read_picture_scale(path)
        if scale == final:
            return path.read_bytes()
        # Frames before the first valid pixel of a video hold nothing but zeros, whatever their scale.
        stored = read_map(path).astype(np.uint16)
        if scale is not None and stored.any():
            stored = self.quantizer.rescaled(stored, scale.scale)
        return encode_png(stored, final)

    def _pack(self, path: Path, record: dict[str, Any]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingDependencyError(
                "--format parquet requires pyarrow, which comes with `pip install datasets`."
            ) from error
        fields = [pyarrow.field("frame", pyarrow.int32()), pyarrow.field("png", pyarrow.binary())]
        schema = pyarrow.schema(fields, metadata={PARQUET_KEY: json.dumps(record)})
        # PNG is compressed already. Nothing but a checksum tells a damaged frame number.
        with parquet.ParquetWriter(path, schema, compression="none", write_page_checksum=True) as writer:
            for numbers in _chunks(self.next_frame, _ROW_GROUP):
                data = [self._final_png(self.partial / frame_name(number)) for number in numbers]
                writer.write_table(pyarrow.table([numbers, data], schema=schema))


def write_depth_image(root: str | Path, rel: str, kind: str, depth: np.ndarray) -> dict[str, Any]:
    """Write one image's depth, (h, w) float32, as REL.png with its own scale; returns a record as `finish` does."""
    quantizer = Quantizer(kind)
    stored = quantizer.quantize(depth)
    data = encode_png(stored, quantizer.quantization)
    write_atomically(depth_target(root, rel, "image"), lambda path: path.write_bytes(data))
    shape = {"num_frames": 1, "height": depth.shape[0], "width": depth.shape[1]}
    return {**quantizer.quantization.to_dict(), **shape, "counts": quantizer.counts}


def lost_pixels(counts: Mapping[str, int]) -> list[str]:
    """Sentences about predicted pixels that are stored as invalid, by the counts of a `Quantizer`."""
    pixels = max(1, counts.get("pixels", 0))
    lines = []
    for name, words in {
        "not_finite": "were not finite and are stored as invalid",
        "not_positive": "were not above 0 and are stored as invalid",
        "too_far": "were beyond 65.534 m, which 16-bit millimetres cannot hold, and are stored as invalid",
    }.items():
        if count := counts.get(name, 0):
            lines.append(f"{count / pixels:.2%} of the predicted pixels ({count}) {words}.")
    return lines


def depth_target(root: str | Path, rel: str, format: str) -> Path:
    """Where the depth of `rel` goes: a folder for `png`, a file for `parquet` and `image`."""
    endings = {"png": "", "parquet": ".parquet", "image": ".png"}
    if format not in endings:
        raise ConfigError(f"depth format {format!r}; it must be one of {', '.join(FORMATS)}.")
    return Path(root) / f"{rel}{endings[format]}"


def depth_is_written(root: str | Path, rel: str, format: str) -> bool:
    """Whether the depth of `rel` is complete; if so, removes what a killed process left behind."""
    target = depth_target(root, rel, format)
    written = (target / SCALE_FILE).is_file() if format == "png" else target.is_file()
    if written and _partial(target).is_dir():
        shutil.rmtree(_partial(target))
    return written


def _partial(target: Path) -> Path:
    return target.with_name(f"{_PARTIAL}{target.name}")


def encode_png(stored: np.ndarray, quantization: Quantization) -> bytes:
    """(h, w) uint16 as a 16-bit PNG whose text says the scale."""
    text = PngInfo()
    text.add_text(PNG_TEXT_KEY, json.dumps(quantization.to_dict()))
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, format="PNG", compress_level=_COMPRESSION, pnginfo=text)
    return stream.getvalue()


def _chunks(length: int, size: int) -> Iterator[list[int]]:
    for start in range(0, length, size):
        yield list(range(start, min(start + size, length)))
