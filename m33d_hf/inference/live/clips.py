"""Clips, cut out of frames that come one by one, and what is predicted of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from m33d_hf.training.tasks.detection.features import ClipRule


@dataclass(frozen=True)
class Clip:
    """Frames [start, stop) of a video and the frames taken from them.

    Attributes:
        frames: (T, 3, H, W) uint8 at the model's size; None where one of them could not be read.
    """

    start: int
    stop: int
    frames: Tensor | None = field(repr=False)


@dataclass(frozen=True)
class Gap:
    """What a feed lacked.

    Attributes:
        start, stop: seconds from the first frame; both None where frames came whose times say nothing.
        frames: frames that came and were left out; 0 where none came.
        reason: for people.
    """

    start: float | None
    stop: float | None
    frames: int
    reason: str


@dataclass(frozen=True)
class ClipPrediction:
    """The prediction for a clip.

    Attributes:
        start, stop: its frames, [start, stop).
        readable: False where a frame of it could not be read; the probabilities then come from its neighbours alone.
        probabilities: (L,) of the temporal model.
        clipwise: (L,) of the clip classifier, which sees this clip alone; even where it is not readable.
        start_time, stop_time: seconds from the first frame at which its first frame begins and its last one ends; None
            where the times of the video are unknown.
        latency: seconds from the arrival of its last frame to this answer; None for recordings, and for clips that
            the end of a feed cuts short.
        gaps: what the feed lacked since the clip before.
        cut: whether the end of a feed cut it short; it comes again, whole, when the feed is taken up again.
        cameras: of several cameras of a case, those that showed it.
    """

    start: int
    stop: int
    readable: bool
    probabilities: np.ndarray
    clipwise: np.ndarray
    start_time: float | None = None
    stop_time: float | None = None
    latency: float | None = None
    gaps: tuple[Gap, ...] = ()
    cut: bool = False
    cameras: tuple[str, ...] = ()


class ClipAssembler:
    """Builds clips out of frames that come one by one, as `cut_clips` would cut the whole video.

    Args:
        rule: how videos are cut.
    """

    def __init__(self, rule: ClipRule) -> None:
        self.rule = rule
        self._offsets = set(rule.frames(rule.span))
        self._open: dict[int, list[Tensor | None]] = {}
        self._next_start = 0

    @property
    def completed(self) -> int:
        """Clips that have ended so far."""
        return self.first_open() // self.rule.clip_stride

    def takes(self, number: int) -> bool:
        """Whether a clip takes frame `number`."""
        return self.rule.takes(number)

    def push(self, number: int, frame: Tensor | None) -> list[Clip]:
        """Take frame `number`, the next one, (3, H, W) uint8, None where unreadable; returns the clips it completes."""
        if number == self._next_start:
            self._open[number] = []
            self._next_start += self.rule.clip_stride
        for start, frames in self._open.items():
            if number - start in self._offsets:
                frames.append(frame)
        done = [start for start in self._open if number - start == self.rule.span - 1]
        clips = [self._closed(start, start + self.rule.span) for start in done]
        for start in done:
            del self._open[start]
        return clips

    def finish(self, length: int) -> list[Clip]:
        """The clips that the end of the video cuts short, but for those that a clip before covers already.

        They stay open: a feed that is taken up again completes them.
        """
        rule = self.rule
        kept = [start for start in self._open if start == 0 or start - rule.clip_stride + rule.span < length]
        return [self._closed(start, length) for start in kept]

    def first_open(self) -> int:
        """The first frame of the next clip to be completed."""
        return min(self._open, default=self._next_start)

    def state(self) -> tuple[int, dict[int, list[Tensor | None]]]:
        """(first frame of the next clip that is not begun, frames of those that are begun, by first frame)."""
        return self._next_start, {start: list(frames) for start, frames in self._open.items()}

    def restore(self, next_start: int, begun: dict[int, list[Tensor | None]]) -> None:
        """Go on from what `state` gave."""
        self._next_start, self._open = next_start, {start: list(frames) for start, frames in begun.items()}

    def _closed(self, start: int, stop: int) -> Clip:
        found = self._open[start]
        taken = [found[offset // self.rule.frame_stride] for offset in self.rule.frames(stop - start)]
        frames = [frame for frame in taken if frame is not None]
        return Clip(start, stop, torch.stack(frames) if len(frames) == len(taken) else None)
