"""The one shape that every source yields and every transform takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # `--help` describes sources and must not wait for torch
    import torch

    from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack

IGNORE_INDEX = 255
HOLES = "holes"  # in the meta of a sample, where there are any


class Hole(NamedTuple):
    """One frame of a clip without depth.

    Attributes:
        place: of the frame in the sample.
        path: the damaged file; of a missing one the folder, file or sequence that it is missing from.
        reason: what is wrong.
        damaged: there is depth, but it cannot be decoded.
    """

    place: int
    path: str
    reason: str
    damaged: bool


class Changes(Protocol):
    """Changes of a sample's RGB, drawn and not carried out yet (m33d_hf.data.augmentation.rgb_changes)."""

    def apply(self, frames: torch.Tensor) -> torch.Tensor:
        """The changed (T, 3, H, W) uint8."""


@dataclass
class RGBDSample:
    """An image (T = 1) or a clip with its optional depth and labels; all maps share one height and width.

    Depth alone may differ until it is aligned, because a transform that places it anyway spares that step.

    Attributes:
        key: stable name of the file and frames; every random draw about this sample is a function of it.
        rgb: (T, 3, H, W) uint8, or None for a depth-only sample.
        depth: (T, 1, H, W) float32 in metres (unitless when the source's DepthSpec says relative or inverse),
            NaN where invalid; None for an RGB-only sample.
        segmentation: (T, H, W) uint8 class ids, 255 = ignore.
        label: class id of the whole sample.
        meta: anything else that a source provides (paths, intrinsics, fps, frames without depth: `holes_of`); never
            read by the model.
        aligned: False if the depth covers the same picture as `rgb` at another resolution (T, 1, h, w); see `align`.
        changes: what still has to be done to `rgb` before it is mirrored (RandAugment, colour); see `complete`.
        mirrored: True if `rgb`, but not the other maps, still has to be mirrored left to right. Only samples on the way
            from a training data set to a collator that knows about both are in this state (`SampleDataset.deferring`).
    """

    key: str
    rgb: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    segmentation: torch.Tensor | None = None
    label: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    aligned: bool = True
    changes: Changes | None = None
    mirrored: bool = False

    def align(self) -> RGBDSample:
        """The sample with its depth at the resolution of its RGB, by the nearest pixel."""
        if self.aligned:
            return self
        from m33d_hf.modeling.depth_m33d import resize_depth

        depth = None if self.depth is None else resize_depth(self.depth, (self.height, self.width))
        return replace(self, depth=depth, aligned=True)

    def complete(self) -> RGBDSample:
        """The sample with its RGB changed and mirrored if that was deferred."""
        if self.rgb is None or not (self.mirrored or self.changes is not None):
            return self
        rgb = self.rgb if self.changes is None else self.changes.apply(self.rgb)
        return replace(self, rgb=rgb.flip(-1) if self.mirrored else rgb, changes=None, mirrored=False)

    def _any_map(self) -> torch.Tensor:
        for map_ in (self.rgb, self.depth, self.segmentation):
            if map_ is not None:
                return map_
        raise ValueError(f"sample {self.key!r} has neither RGB nor depth nor a segmentation")

    def only(self, maps: Collection[str]) -> RGBDSample:
        """The sample without the maps that are not named ("rgb", "depth", "segmentation", other modalities).

        A sample with none of the named maps stays whole, so that an error can say what it has.
        """
        others = self.meta.get("modalities", {})
        held = {"rgb": self.rgb, "depth": self.depth, "segmentation": self.segmentation}
        if all(name in maps for name, map_ in {**held, **others}.items() if map_ is not None):
            return self
        kept = {name: map_ if name in maps else None for name, map_ in held.items()}
        if all(map_ is None for map_ in kept.values()):
            return self
        if not self.aligned and kept["rgb"] is None:
            return self.align().only(maps)  # which takes the picture's size from what goes
        meta = self.meta
        if others:
            meta = meta | {"modalities": {name: map_ for name, map_ in others.items() if name in maps}}
        return replace(self, rgb=kept["rgb"], depth=kept["depth"], segmentation=kept["segmentation"], meta=meta)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self._any_map().shape[-2])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self._any_map().shape[-1])

    @property
    def num_frames(self) -> int:
        """Number of frames T; 1 for an image."""
        return int(self._any_map().shape[0])


def holes_of(sample: RGBDSample) -> Sequence[Hole]:
    """The frames of a clip that lack depth; none where it is not read."""
    found: Sequence[Hole] = sample.meta.get(HOLES, ())
    return found


def why_no_depth(sample: RGBDSample) -> tuple[str, str]:
    """(path, reason) of a clip that was read without any depth."""
    holes = holes_of(sample)
    return (holes[0].path, holes[0].reason) if holes else (sample.key, "the recording has no depth")


def taken_holes(holes: Sequence[Hole], positions: Sequence[int]) -> tuple[Hole, ...]:
    """Those of the frames at the given positions, at their new ones."""
    by_place = {hole.place: hole for hole in holes}
    return tuple(by_place[old]._replace(place=new) for new, old in enumerate(positions) if old in by_place)


@runtime_checkable
class VideoHandle(Protocol):
    """A lazily read video; an image is a video of one frame."""

    @property
    def key(self) -> str:
        """Stable name of the video."""

    @property
    def length(self) -> int:
        """Number of frames."""

    @property
    def fps(self) -> float | None:
        """Frames per second, None when unknown or not a video."""

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames (may repeat, any order) as one sample of T = len(indices).

        Raises:
            CorruptFileError: a frame cannot be decoded.
        """


def frame_times(handle: VideoHandle) -> FrameTimes | None:
    """Presentation time of each frame of a video: its `times` if it has them, otherwise even steps by its rate, if
    known."""
    from m33d_hf.modeling.video_times_m33d import FrameTimes

    times: FrameTimes | None = getattr(handle, "times", None)
    if times is None and handle.fps and handle.length:
        times = FrameTimes(handle.length, handle.fps)
    return times


def known_lacks(handle: VideoHandle) -> tuple[Lack, ...]:
    """Stretches that are missing from a video, in order of time; empty if unknown."""
    return tuple(getattr(handle, "lacks", ()))


@runtime_checkable
class SelectiveHandle(VideoHandle, Protocol):
    """A handle that can leave out maps that are not needed, without decoding them."""

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, with at least those of the named maps that there are, None for all; maybe not yet aligned."""


@runtime_checkable
class ForwardHandle(VideoHandle, Protocol):
    """A handle that keeps its video open between reads, for one thread that reads it from front to back."""

    def close(self) -> None:
        """Close the video; reading opens it again."""


def read_sample(
    handle: VideoHandle, indices: Sequence[int], maps: Collection[str] | None = None, align: bool = True
) -> RGBDSample:
    """Read frames with no more maps than named (see `RGBDSample.only`), None for all; raises as `handle.read`.

    Without `align` the depth may be at its own resolution.
    """
    if maps is None:
        return handle.read(indices)
    # What isinstance(handle, SelectiveHandle) asks takes as long as resizing a small picture.
    selective = getattr(handle, "read_maps", None)
    if selective is not None:
        sample = selective(indices, maps).only(maps)
        return sample.align() if align else sample
    return handle.read(indices).only(maps)
