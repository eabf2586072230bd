"""Shared code of sources of long, phase-annotated videos: whole videos, and clips with one phase each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample, VideoHandle, read_sample
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint

if TYPE_CHECKING:
    from m33d_hf.modeling.depth_m33d import DepthSpec

MAX_PHASES = IGNORE_INDEX  # ids 0 to 254; 255 says that nothing is annotated


@dataclass(frozen=True)
class PhaseVideo:
    """A whole video and the phase of each of its frames.

    Attributes:
        handle: reads the frames.
        phases: (handle.length,) uint8 phase ids in the order of the source's `action_names`, 255 = not annotated.
        case: what several cameras show, this one among them; None where every video stands for itself.
        camera: name of the camera; empty without.
        offset: seconds from the beginning of the case's clock to its first frame.
    """

    handle: VideoHandle
    phases: np.ndarray = field(repr=False)
    case: str | None = None
    camera: str = ""
    offset: float = 0.0

    @property
    def key(self) -> str:
        """Stable name of the video."""
        return self.handle.key

    @property
    def group(self) -> str:
        """The case, or the video itself: what splits and shares of labels keep together."""
        return self.key if self.case is None else self.case

    @property
    def may_have_depth(self) -> bool:
        """False where the reader knows that no frame has depth; other readers find out frame by frame."""
        return getattr(self.handle, "has_depth", None) is not False


@dataclass(frozen=True)
class ClipSpan:
    """Frames [start, stop) of a video and their phase (255 = none of them is annotated)."""

    start: int
    stop: int
    label: int


@dataclass(frozen=True)
class PhaseClip:
    """A `VideoHandle` over a stretch of a longer video."""

    video: VideoHandle
    span: ClipSpan

    @property
    def key(self) -> str:
        """Key of the video, then the frames: "video01@640-704"."""
        return f"{self.video.key}@{self.span.start}-{self.span.stop}"

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.span.stop - self.span.start

    @property
    def fps(self) -> float | None:
        """Frames per second of the video."""
        return self.video.fps

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read frames of the stretch, counted from its start, with its phase as label (None where not annotated).

        Raises:
            CorruptFileError: a frame cannot be decoded.
        """
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, with the named maps only where the video can leave others out; maybe not yet aligned."""
        sample = read_sample(self.video, [self.span.start + int(index) for index in indices], maps, align=False)
        sample.key = self.key
        sample.label = None if self.span.label == IGNORE_INDEX else self.span.label
        return sample


def cut_clips(phases: np.ndarray, span: int, stride: int) -> list[ClipSpan]:
    """Cut a video into stretches of `span` frames, one every `stride` frames, the last one possibly shorter.

    The phase of a stretch is the most common one of its annotated frames, the earlier one in a tie. No frame is left
    out if stride <= span; a tail that the previous stretch already covers does not become a stretch.

    Args:
        phases: (T,) ids, 255 = not annotated.
        span: frames of a stretch, at least 1.
        stride: frames from one start to the next, at least 1.

    Raises:
        ConfigError: a span or stride below 1.
    """
    if span < 1 or stride < 1:
        raise ConfigError(f"clip_span is {span} and clip_stride {stride}; both must be at least 1")
    length = len(phases)
    starts = range(0, max(length - span + stride, 1), stride)
    return [_labelled(phases, start, min(start + span, length)) for start in starts if start < length]


def _labelled(phases: np.ndarray, start: int, stop: int) -> ClipSpan:
    inside = phases[start:stop]
    inside = inside[inside != IGNORE_INDEX]
    if not len(inside):
        return ClipSpan(start, stop, IGNORE_INDEX)
    values, first, counts = np.unique(inside, return_index=True, return_counts=True)
    best = np.lexsort((first, -counts))[0]
    return ClipSpan(start, stop, int(values[best]))


class PhaseSource(Source):
    """Base of sources of annotated long videos; items are clips, whole videos are in `videos`.

    `class_table` holds the phases with the numbers that annotations write for them, where those are known. `cases` are
    the numbers of the videos that show one case, its first camera, whose frames are annotated, in front; one each where
    every video stands for itself.

    Args:
        videos: the videos of the split.
        action_names: phases in id order; None where nothing is annotated (pre-training).
        unit: "clips" (each stretch an item) or "videos" (each whole video an item, without a label: pre-training with
            random starts).
        clip_span: source frames of a clip: frames times frame stride of the model.
        clip_stride: source frames from one clip to the next; None takes `clip_span`.
        drop_unlabelled: leave out clips without any annotated frame.
        depth_spec: meaning of the depth, None without.

    Raises:
        ConfigError: an invalid option.
        DataError: no videos, two phases of one name, or no clip left.
    """

    name = "phase_base"
    videos: list[PhaseVideo]
    clip_span: int

    def __init__(
        self,
        videos: Sequence[PhaseVideo],
        action_names: Sequence[str] | None,
        *,
        unit: str = "clips",
        clip_span: int = 64,
        clip_stride: int | None = None,
        drop_unlabelled: bool = False,
        depth_spec: DepthSpec | None = None,
    ) -> None:
        if unit not in ("clips", "videos"):
            raise ConfigError(
                f"unit is {unit!r}; it must be clips or videos.{nearest_name_hint(unit, ('clips', 'videos'))}"
            )
        if action_names is not None:
            check_phase_names(action_names)
        if not videos:
            raise DataError(f"source {self.name!r} holds no videos")
        for video in videos:
            if len(video.phases) != video.handle.length:
                raise DataError(f"{video.key}: {len(video.phases)} phase labels for {video.handle.length} frames")
        self.class_names: list[str] | None = None
        self.action_names: list[str] | None = None if action_names is None else list(action_names)
        self.class_table = None if action_names is None else ClassTable(tuple(action_names))
        self.depth_spec = depth_spec
        self.videos = list(videos)
        together: dict[str, list[int]] = {}
        for number, video in enumerate(self.videos):
            together.setdefault(video.group, []).append(number)
        self.cases = list(together.values())
        self.unit = unit
        self.items_have_labels = unit != "videos"
        self.clip_span = clip_span
        self.clip_stride = clip_span if clip_stride is None else clip_stride
        self._items = [
            (number, span)
            for number in range(len(self.videos))
            for span in self.clips(number)
            if not (drop_unlabelled and span.label == IGNORE_INDEX)
        ]
        if not self._items:
            raise DataError(f"source {self.name!r}: no clip has an annotated frame")

    @property
    def items(self) -> Sequence[tuple[int, ClipSpan]]:
        """Number of the video and frames of every clip, in the order of the items of `unit` "clips"."""
        return self._items

    def clips(self, video: int) -> list[ClipSpan]:
        """All clips of video number `video`, in order, unlabelled ones included."""
        return cut_clips(self.videos[video].phases, self.clip_span, self.clip_stride)

    def files(self, video: int) -> Iterable[tuple[str, Path]]:
        """(name that does not depend on where the data lies, path) of every file that video number `video` is read
        from; none where there are no files."""
        return ()

    def __len__(self) -> int:
        return len(self.videos) if self.unit == "videos" else len(self._items)

    def __getitem__(self, index: int) -> VideoHandle:
        """Handle of a clip, or of a whole video.

        Raises:
            IndexError: `index` is not in [0, len).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} {self.unit}, so there is no number {index}")
        if self.unit == "videos":
            return self.videos[index].handle
        video, span = self._items[index]
        return PhaseClip(self.videos[video].handle, span)

    def labels(self) -> list[int] | None:
        """Phase id of every item, 255 for none; None for whole videos and where nothing is annotated."""
        return None if self.unit == "videos" or self.action_names is None else [span.label for _, span in self._items]

    def groups(self) -> list[str]:
        """Case (or key of the video) behind every item: low-label protocols draw these, not clips."""
        if self.unit == "videos":
            return [video.group for video in self.videos]
        return [self.videos[number].group for number, _ in self._items]

    def digest(self) -> str:
        """Digest of keys, lengths, phases and clip rules. Sources whose frames may change add their files."""
        return self._digest_of_videos(labels=True)

    def _digest_of_videos(self, labels: bool) -> str:
        """`digest` or, without labels, that of the same videos as if nothing were annotated."""
        state = hashlib.sha256(f"{self.name} {self.unit} {self.clip_span} {self.clip_stride}".encode())
        state.update("\n".join((self.action_names if labels else None) or []).encode())
        for video in self.videos:
            state.update(f"\n{video.key} {video.handle.length} ".encode("utf-8", "surrogatepass"))
            phases = video.phases if labels else np.full_like(video.phases, IGNORE_INDEX)
            state.update(np.ascontiguousarray(phases, dtype=np.uint8).tobytes())
            if video.case is not None:
                told = f"\n{video.case} {video.camera} {video.offset}"
                state.update(told.encode("utf-8", "surrogatepass"))
        if not labels and len(self._items) < sum(len(self.clips(number)) for number in range(len(self.videos))):
            state.update(str([(number, span.start) for number, span in self._items]).encode())  # without the unlabelled
        return state.hexdigest()


def check_phase_names(names: Sequence[str]) -> None:
    """Refuse names that are too similar.

    Raises:
        DataError: no name, too many, or two that are equal (also up to case and blanks around them).
    """
    if not names:
        raise DataError("no phase names were found or given")
    if len(names) > MAX_PHASES:
        raise DataError(f"{len(names)} phases; at most {MAX_PHASES} are possible")
    seen: dict[str, str] = {}
    for name in names:
        folded = name.strip().casefold()
        if folded in seen:
            raise DataError(f"two phases are called {seen[folded]!r} and {name!r}; give every phase its own name")
        seen[folded] = name
