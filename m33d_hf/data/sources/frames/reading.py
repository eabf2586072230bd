"""Reads the files of a frame into samples: units, labels, orientation and sizes are settled here and not later."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.data.depth.checks import DepthCheck
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.depth.shapes import same_shape
from m33d_hf.data.files.files import load_map, load_ranged_channels, load_rgb, size_and_orientation
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.sample import HOLES, Hole, RGBDSample
from m33d_hf.data.sources.frames.orientation import as_the_picture_lies
from m33d_hf.data.sources.videos.frames import is_video_frame, read_video_frames, video_frame_size, video_of
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.depth_m33d import DepthSpec, resize_depth
from m33d_hf.modeling.preprocessing_m33d import resize_rgb

ALIGNMENTS = ("refuse", "depth_to_rgb", "rgb_to_depth")


@dataclass(frozen=True)
class Frame:
    """The files of one frame, relative to the root, and its stable name.

    `rgb` may be a frame of a video: its file, "#", and the frame's number (`video_frames`). `others` are (modality,
    file) pairs of further modalities, such as normals.
    """

    key: str
    rgb: str | None = None
    depth: str | None = None
    labels: str | None = None
    others: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Modality -> file, for those that exist: rgb, depth, labels, then the others."""
        known = {"rgb": self.rgb, "depth": self.depth, "labels": self.labels}
        return {name: file for name, file in known.items() if file is not None} | dict(self.others)


@dataclass
class DecodedFrame:
    """The maps of one frame before they are brought to one size, and why its depth cannot be read."""

    rgb: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    others: dict[str, torch.Tensor] = field(default_factory=dict)
    damage: CorruptFileError | None = None


@dataclass(frozen=True)
class FrameReader:
    """Reads frames into samples: units, labels and sizes are settled here and not later.

    Attributes:
        align: what to do when RGB and depth (or labels) differ in size. `refuse` raises; `depth_to_rgb` resizes depth
            and labels to RGB; `rgb_to_depth` resizes RGB and labels to depth. Resizing does not register two cameras:
            use it only if both show the same picture. Sizes of different aspect ratios are refused.
        orientation: how depth and labels without their own orientation are stored if their picture has an EXIF
            orientation: see `orientation`. Pictures are always turned upright.
        depth_check: compares each depth file with the rest of the data set; None for no check.
        calibration: of two cameras; depth is registered into the colour picture by it, before anything is resized.
    """

    root: Path
    depth_spec: DepthSpec | None
    label_rules: LabelRules | None
    align: str = "refuse"
    orientation: str = "refuse"
    depth_check: DepthCheck | None = None
    calibration: Calibration | None = None

    def read(self, frames: Sequence[Frame], key: str, meta: dict[str, Any], holes: bool = False) -> RGBDSample:
        """Read `frames` (all with the same modalities) as one sample of T = len(frames).

        Args:
            frames: what to read.
            key: of the sample.
            meta: of the sample.
            holes: the frames are those of a clip, of which single ones may lack depth or have it damaged: it is NaN
                there, and None if no frame has it; meta tells the places (`holes_of`).

        Raises:
            CorruptFileError: a file that cannot be decoded, depth in a different unit from the rest, or a file of
                another size than its calibration; with `holes`, depth of which nothing can be decoded.
            DepthUnitError: a whole folder of depth in a different unit.
            DataError: sizes that differ within a frame (with `refuse`) or between frames, or a calibrated picture that
                EXIF says to turn; LabelError for labels.
        """
        pictures = read_video_frames(self.root, [frame.rgb for frame in frames])
        decoded = [self._decoded(frame, pictures, holes) for frame in frames]
        if holes:
            meta = meta | self._told_holes(frames, decoded)
        maps = [self._aligned(frame, each) for frame, each in zip(frames, decoded, strict=True)]
        stacked: dict[str, torch.Tensor | None] = {}
        others = dict.fromkeys(name for frame in frames for name, _ in frame.others)
        for name in ("rgb", "depth", "labels", *others):
            parts = [found for part in maps if (found := part.get(name)) is not None]
            if parts and len(parts) < len(maps):
                raise DataError(f"{key}: {len(maps) - len(parts)} of {len(maps)} frames have no {name}")
            sizes = {tuple(part.shape[-2:]) for part in parts}
            if len(sizes) > 1:
                raise DataError(f"{key}: the {name} of its frames differ in size: {sorted(sizes)}")
            stacked[name] = (parts[0][None] if len(parts) == 1 else torch.stack(parts)) if parts else None
        if others:
            meta = meta | {"modalities": {name: stacked[name] for name in others}}
        return RGBDSample(
            key=key, rgb=stacked["rgb"], depth=stacked["depth"], segmentation=stacked["labels"], meta=meta
        )

    def _told_holes(self, frames: Sequence[Frame], decoded: Sequence[DecodedFrame]) -> dict[str, Any]:
        """Fill the depth of the frames of a clip that lack it with NaN; what meta says of them.

        Raises:
            CorruptFileError: some is damaged, and none can be read.
        """
        depths = [each.depth for each in decoded if each.depth is not None]
        damaged = [each.damage for each in decoded if each.damage is not None]
        if damaged and not depths:
            raise damaged[0]
        found: list[Hole] = []
        for place, (frame, each) in enumerate(zip(frames, decoded, strict=True)):
            if each.damage is not None:
                found.append(Hole(place, each.damage.path, each.damage.reason, True))
            elif each.depth is None:
                found.append(Hole(place, str(self.root / sequence_of(frame)), f"no depth for {frame.key}", False))
            if each.depth is None and depths:
                each.depth = torch.full_like(depths[0], math.nan)
        return {HOLES: tuple(found)} if found else {}

    def narrowed(self, frames: Sequence[Frame], maps: Collection[str]) -> Sequence[Frame]:
        """The frames without the files of maps that are not named; all files if no RGB or depth would be left.

        If sizes are aligned, the map that sets the size stays.
        """
        needed = set(maps)
        if self.align != "refuse":
            needed.add("depth" if self.align == "rgb_to_depth" else "rgb")
        if self.orientation == "as_rgb":
            needed.add("rgb")  # whose EXIF says how the others lie
        kept = [
            replace(
                frame,
                rgb=frame.rgb if "rgb" in needed else None,
                depth=frame.depth if "depth" in needed and self.depth_spec is not None else None,
                labels=frame.labels if "segmentation" in needed else None,
                others=tuple(pair for pair in frame.others if pair[0] in needed),
            )
            for frame in frames
        ]
        return kept if any(frame.rgb or frame.depth for frame in kept) else frames

    def _decoded(self, frame: Frame, pictures: Mapping[str, np.ndarray], holes: bool) -> DecodedFrame:
        """The maps of a frame as they are stored, upright, depth in metres and registered."""
        found = DecodedFrame()
        lies, size = 1, (0, 0)
        if frame.rgb is not None:
            if frame.rgb in pictures:
                pixels, lies = pictures[frame.rgb], video_frame_size(self.root, frame.rgb)[2]
            else:
                pixels, lies = load_rgb(self.root / frame.rgb)
            size = (pixels.shape[0], pixels.shape[1])
            # As decoded, pixel by pixel: resizing reads that faster than planes, which would cost a copy first.
            found.rgb = torch.from_numpy(pixels).permute(2, 0, 1)
        for name, file in frame.others:
            (values, own), largest = load_ranged_channels(self.root / file)
            if own == 1:
                values = as_the_picture_lies(values, self.root / file, lies, size, self.orientation)
            found.others[name] = as_modality(values, largest)
        if frame.depth is not None and self.depth_spec is not None:
            if frame.rgb is not None and self.calibration is not None:
                refuse_turned(self.root, frame, lies)
                _require_calibrated(self.root / frame.rgb, self.calibration, "color", size)
            try:
                found.depth = self._depth(frame, frame.depth, self.depth_spec, lies, size)
            except CorruptFileError as error:
                if not holes:
                    raise
                found.damage = error
        if frame.labels is not None and self.label_rules is not None:
            path = self.root / frame.labels
            ids = self.label_rules.read(path)
            if lies != 1 and size_and_orientation(path)[2] == 1:
                ids = as_the_picture_lies(ids, path, lies, size, self.orientation)
            found.labels = torch.from_numpy(ids)
        return found

    def _depth(self, frame: Frame, file: str, spec: DepthSpec, lies: int, size: tuple[int, int]) -> torch.Tensor:
        """(1, h, w) float32 of a frame's depth, registered where there is a calibration.

        Args:
            frame: whose depth it is.
            file: of its depth.
            spec: what its values mean.
            lies: EXIF's orientation of the picture.
            size: (height, width) of the picture, (0, 0) without one.
        """
        path = self.root / file
        stored, own = load_map(path)
        if own == 1:
            stored = as_the_picture_lies(stored, path, lies, size, self.orientation)
        metres = spec.decode(stored)
        if self.depth_check is not None:
            self.depth_check.require(path, stored, metres)
        if self.calibration is not None:
            _require_calibrated(path, self.calibration, "depth", metres.shape)
            metres = register_depth(metres, self.calibration)
        return torch.from_numpy(metres)[None]

    def _aligned(self, frame: Frame, found: DecodedFrame) -> dict[str, torch.Tensor | None]:
        """The maps of a frame at one size."""
        return self.aligned(frame, found.rgb, found.depth, found.labels, found.others)

    def aligned(
        self,
        frame: Frame,
        rgb: torch.Tensor | None,
        depth: torch.Tensor | None,
        labels: torch.Tensor | None,
        others: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor | None]:
        """The maps of a frame at one size, as `align` says; those that are None stay so.

        Args:
            frame: names the maps' files, for messages.
            rgb: (3, H, W) uint8.
            depth: (1, h, w) float32.
            labels: (h, w) uint8.
            others: (C, h, w) float32 by name.

        Raises:
            DataError: neither RGB nor depth, or sizes that `align` does not bring together.
        """
        first, second = (depth, rgb) if self.align == "rgb_to_depth" else (rgb, depth)
        reference = first if first is not None else second
        if reference is None:
            raise DataError(f"{frame.key}: the frame has neither RGB nor depth")
        size = (int(reference.shape[-2]), int(reference.shape[-1]))
        files = {frame.rgb: rgb, frame.depth: depth, frame.labels: labels}
        files |= {file: others[name] for name, file in frame.others}
        refuse_sizes(self.root, {str(f): tuple(m.shape[-2:]) for f, m in files.items() if m is not None}, self.align)
        if rgb is not None and rgb.shape[-2:] != size:
            rgb = resize_rgb(rgb, size)
        if depth is not None:
            depth = resize_depth(depth, size)
        if labels is not None and labels.shape != size:
            nearest = F.interpolate(labels[None, None].float(), size=size, mode="nearest-exact")
            labels = nearest[0, 0].to(labels.dtype)
        placed = {name: resize_depth(values, size) for name, values in others.items()}
        return {"rgb": rgb, "depth": depth, "labels": labels, **placed}


def sequence_of(frame: Frame) -> str:
    """The folder of a frame's picture, or the recording that holds it."""
    file = frame.rgb or frame.depth or ""
    return video_of(file) if is_video_frame(file) else PurePosixPath(file).parent.as_posix()


def as_modality(values: np.ndarray, largest: int | None) -> torch.Tensor:
    """(C, H, W) float32 of a stored map of any modality: integers are divided by the maximum of their type, `largest`,
    which is 1 of single bits; floats (None) are kept.

    NaN and infinity are invalid; the model gets them in `mask_name`.
    """
    if values.ndim == 2:
        values = values[..., None]
    scale = np.float32(1 if largest is None else largest)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32) / scale)


def _require_calibrated(path: Path, calibration: Calibration, camera: str, size: tuple[int, ...]) -> None:
    """Raise a CorruptFileError of a file of another size: the first of each sequence is checked before a run, and a
    later one is one file that cannot be used, not a wrong calibration."""
    objection = calibration.objection(camera, size)
    if objection is not None:
        raise CorruptFileError(path, objection)


def refuse_turned(root: Path, frame: Frame, lies: int) -> None:
    """Raise a DataError for a calibrated picture that EXIF says to turn; nobody knows how it lay when calibrated."""
    if lies != 1:
        raise DataError(
            f"{root / str(frame.rgb)} is to be turned by its EXIF orientation ({lies}), but a calibration refers to "
            "pictures as they are stored. Save the pictures upright, with the calibration of the upright pictures."
        )


def refuse_sizes(root: Path, sizes: Mapping[str, tuple[int, ...]], align: str = "refuse") -> None:
    """Raise a DataError naming a frame's files when they differ in (height, width), or, aligned, in aspect ratio."""
    if len(set(sizes.values())) <= 1:
        return
    listing = ", ".join(f"{root / file} is {height}x{width}" for file, (height, width) in sizes.items())
    if align == "refuse":
        raise DataError(
            f"the files of one frame differ in size (height x width): {listing}. If all show the same picture, pass "
            "align=depth_to_rgb or align=rgb_to_depth (--data.options.align); if two cameras took them, give their "
            "calibration (--data.options.calibration of the sources folder and phases) or register depth to RGB first."
        )
    first, *others = sizes.values()
    if not all(same_shape(first, other) for other in others):
        raise DataError(
            f"the files of one frame differ in aspect ratio (height x width): {listing}. align={align} would stretch "
            "one field of view over another and misplace every pixel. Before training, crop both to the same part of "
            "the scene, or register depth to RGB with the cameras' calibration (--data.options.calibration of the "
            "source folder)."
        )
