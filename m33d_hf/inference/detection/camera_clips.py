"""Clips of the cameras of one case, encoded camera by camera: only their features are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from m33d_hf.data.progress import Say
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources.phases.base import ClipSpan
from m33d_hf.data.sources.phases.synchrony import Placed, spans_beside
from m33d_hf.errors import CorruptFileError
from m33d_hf.inference.detection.cameras import CameraVideo, SpanAssembler
from m33d_hf.inference.detection.clip_encoder import ClipEncoder, gathered
from m33d_hf.inference.detection.detections import Detection, Stretch
from m33d_hf.inference.detection.watched_video import WatchedVideo
from m33d_hf.inference.live.clips import Clip
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack, restated
from m33d_hf.training.tasks.detection.cameras import fuse, placed

Told = tuple[ClipSpan, "Tensor | None", "Tensor | None"]
"""(frames of the clip, features (D,), clip-wise logits (L,)); None where it could not be read."""


class View(Protocol):
    """What a camera shows of a case, read by one way or another.

    Attributes:
        name: of the camera.
        path: its file or folder.
        offset: seconds from the beginning of the case's clock to its first frame.
        unreadable: stretches that could not be read, once `clips` was called.
        lacks: what is missing of the recording.
        notes: sentences on what else was missing, once `clips` was called.
    """

    name: str
    path: Path
    offset: float

    @property
    def unreadable(self) -> list[Stretch]:
        """See above."""

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """See above."""

    @property
    def notes(self) -> list[str]:
        """See above."""

    @property
    def place(self) -> Placed:
        """Where it lies on the clock of the case; of a camera that leads, as long as it could be read."""

    def clips(self, spans: list[ClipSpan] | None, say: Say | None, work: str) -> list[Told]:
        """The given clips; None cuts them by the rule of the model.

        Raises:
            CorruptFileError: none of them can be read.
        """


class RecordedView:
    """A video without depth.

    Args:
        encoder: of clips.
        camera: the video, and where it lies.
        fps: frames per second, evenly; None takes the times of the file's frames.
    """

    def __init__(self, encoder: ClipEncoder, camera: CameraVideo, fps: float | None) -> None:
        self.encoder, self.fps = encoder, fps
        self.name, self.path, self.offset = camera.name, camera.path, camera.offset
        self.notes: list[str] = []
        self._video: WatchedVideo | None = None
        self._cut = False

    @property
    def unreadable(self) -> list[Stretch]:
        """See `View`."""
        return self._watched.unreadable

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """See `View`; the holes of a video that is stated to be even have no length."""
        video = self._watched
        return restated(video.lacks, video.length, self.fps) if self.fps else video.lacks

    @property
    def place(self) -> Placed:
        """See `View`."""
        length = self._watched.length if self._cut else self._watched.total
        times = FrameTimes(length, self.fps) if self.fps else self._watched.times
        return Placed(str(self.path), length, times, self.offset)

    def clips(self, spans: list[ClipSpan] | None, say: Say | None, work: str) -> list[Told]:
        """See `View`."""
        assembler = None if spans is None else SpanAssembler(self.encoder.rule, spans)
        self._cut = spans is None
        self._video = video = self.encoder.watched(self.path, None if assembler is None else assembler.takes)
        stream = self.encoder.stream(video, assembler)
        found = gathered(stream, video.path, video.total, video.unreadable, say, work)
        return [(ClipSpan(clip.start, clip.stop, IGNORE_INDEX), feature, logit) for clip, feature, logit in found]

    @property
    def _watched(self) -> WatchedVideo:
        if self._video is None:
            self._video = self.encoder.watched(self.path)
        return self._video


@dataclass
class SeenCase:
    """The S clips of a case by its C cameras.

    Attributes:
        lead: the first camera that can be read.
        place: where it lies on the clock of the case.
        spans: its clips.
        cameras: the C names, the leading one first.
        features: (C, S, D), zeros where not shown.
        logits: (C, S, L), likewise.
        shown: (C, S) bool, whether a camera showed a clip and it could be read.
        notes: sentences on what cameras lacked.
    """

    lead: View
    place: Placed
    spans: list[ClipSpan]
    cameras: list[str]
    features: Tensor
    logits: Tensor
    shown: Tensor
    notes: list[str] = field(default_factory=list)

    @property
    def times(self) -> FrameTimes | None:
        """Of the frames of the leading video; None where unknown."""
        return self.place.times

    def by(self, clip: int) -> tuple[str, ...]:
        """The cameras that showed a clip."""
        return tuple(name for name, shown in zip(self.cameras, self.shown[:, clip].tolist(), strict=True) if shown)


def see_cameras(encoder: ClipEncoder, views: Sequence[View], say: Say | None, work: str) -> SeenCase:
    """Encode the clips of a case by each of its cameras, one after the other.

    Args:
        encoder: of clips.
        views: the cameras; the first that can be read leads.
        say, work: receives lines of progress, and how they begin; None says nothing.

    Raises:
        CorruptFileError: no clip of any of them can be read.
        DataError: nothing tells how the frames of two of them lie beside each other.
    """
    seen: SeenCase | None = None
    errors: list[CorruptFileError] = []
    notes: list[str] = []
    for view in views:
        told = " ".join(filter(None, [work, f"camera {view.name}" if view.name else ""]))
        try:
            if seen is None:
                seen = _leading(encoder, view, say, told)
            else:
                _add(encoder, seen, view, say, told)
        except CorruptFileError as error:
            errors.append(error)
            notes.append(f"camera {view.name} is done without: {error}")
            continue
        notes += [f"camera {view.name}: {note}" if view.name else note for note in view.notes]
    if seen is None:
        raise errors[0]
    seen.notes = [*notes, *seen.notes]
    return seen


def detected(encoder: ClipEncoder, seen: SeenCase, several: bool, rate: float | None) -> Detection:
    """What a model finds in a case.

    Args:
        encoder: of its clips.
        seen: its clips.
        several: whether to name the cameras.
        rate: frames per second of the leading one, where its times do not tell.
    """
    names = encoder.model.config.temporal_cameras
    features, logits = fuse(seen.features, seen.logits, seen.shown, seen.cameras, names)
    shown = seen.shown.any(0)
    temporal = encoder.temporal(features[None], shown[None])
    clips = [
        encoder.prediction(
            Clip(span.start, span.stop, None),
            temporal[row],
            logits[row] if shown[row] else None,
            seen.times,
            seen.by(row) if several else (),
        )
        for row, span in enumerate(seen.spans)
    ]
    lead = seen.lead
    return Detection(
        lead.path, seen.place.length, rate if seen.times is None else seen.times.fps, encoder.names, clips,
        lead.unreadable, seen.times, lead.lacks, seen.cameras if several else [], seen.notes,
    )  # fmt: skip


def _leading(encoder: ClipEncoder, view: View, say: Say | None, work: str) -> SeenCase:
    """The case by the camera that its clips are cut by."""
    clips = view.clips(None, say, work)
    features, logits, shown = (part[None] for part in _rows(encoder, clips))
    return SeenCase(view, view.place, [span for span, _, _ in clips], [view.name], features, logits, shown)


def _add(encoder: ClipEncoder, seen: SeenCase, view: View, say: Say | None, work: str) -> None:
    """Another camera of the case."""
    found = spans_beside(seen.place, view.place, seen.spans, encoder.rule.span)
    there = torch.tensor([span is not None for span in found])
    if not bool(there.any()):
        seen.cameras.append(view.name)
        seen.notes.append(f"camera {view.name} shows no clip of the case; see its offset, {view.offset:g} s")
        _put(seen, *_rows(encoder, []), there)
        return
    rows = _rows(encoder, view.clips([span for span in found if span is not None], say, work))
    seen.cameras.append(view.name)
    _put(seen, *rows, there)
    for stretch in view.unreadable:
        where = f"frames {stretch.start} to {stretch.stop - 1}"
        seen.notes.append(f"camera {view.name}: {where} of {view.path} cannot be read: {stretch.reason}")


def _rows(encoder: ClipEncoder, clips: Sequence[Told]) -> tuple[Tensor, Tensor, Tensor]:
    """(S, D) features, (S, L) logits, and (S,) bool which there are."""
    features = torch.zeros(len(clips), encoder.feature_width)
    logits = torch.zeros(len(clips), len(encoder.names))
    for row, (_, feature, logit) in enumerate(clips):
        if feature is not None and logit is not None:
            features[row], logits[row] = feature, logit
    return features, logits, torch.tensor([feature is not None for _, feature, _ in clips], dtype=torch.bool)


def _put(seen: SeenCase, features: Tensor, logits: Tensor, shown: Tensor, there: Tensor) -> None:
    """Add a camera's rows, which are those of the clips that are `there`."""
    seen.features = torch.cat([seen.features, placed(features, there)[None]])
    seen.logits = torch.cat([seen.logits, placed(logits, there)[None]])
    seen.shown = torch.cat([seen.shown, placed(shown, there)[None]])
