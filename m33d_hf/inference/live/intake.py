"""What frames that come one by one are checked for, and what is to be told of those that are missing."""

from __future__ import annotations

import time as clocks
from dataclasses import dataclass

import numpy as np

from m33d_hf.errors import DataError
from m33d_hf.inference.live.clips import Gap
from m33d_hf.inference.live.clock import FrameClock


@dataclass
class _LeftOut:
    """Frames that were left out for one kind of reason."""

    frames: int
    reason: str


class FrameIntake:
    """The frames of one camera so far.

    Attributes:
        length: frames taken so far.
        clock: their times.
        size: (height, width) of the pictures; None before the first.
        arrived: when the last frame was taken, in seconds of `time.time`; None before the first.
        recording: what tells a growing file from another: (bytes, digest of the first so many); None otherwise.
    """

    def __init__(self) -> None:
        self.clock = FrameClock()
        self.length = 0
        self.size: tuple[int, int] | None = None
        self.arrived: float | None = None
        self.recording: tuple[int, str] | None = None
        self._holes: list[Gap] = []
        self._left_out: dict[str, _LeftOut] = {}

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last one."""
        return self.clock.end or 0.0

    def problem(self, frame: np.ndarray | None, time: object) -> tuple[str, str]:
        """(kind, sentence) of why a frame cannot be the next one; two empty texts where it can."""
        if frame is not None:
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
                return "picture", f"a frame is {got}, expected a numpy array (H, W, 3) of uint8, RGB"
            size = (frame.shape[0], frame.shape[1])
            if 0 in size or (self.size is not None and size != self.size):
                before = "" if self.size is None else f", but the frames before are {self.size[0]} x {self.size[1]}"
                return "size", f"a frame is {size[0]} x {size[1]} pixels{before}"
        return self.clock.problem(time)

    def check(self, frame: np.ndarray | None, time: object) -> None:
        """Refuse a frame that cannot be the next one.

        Raises:
            DataError: what `problem` finds.
        """
        problem = self.problem(frame, time)[1]
        if problem:
            raise DataError(f"{problem}. Leave the frame out and push the next one, or start a new feed.")

    def note(self, frame: np.ndarray | None, time: float) -> Gap | None:
        """Take note of the next frame, with which there is no problem; returns the hole before it, if there is one."""
        if frame is not None:
            self.size = (frame.shape[0], frame.shape[1])
        hole = self.clock.add(float(time))
        if hole is not None:
            self._holes.append(hole)
        self.length, self.arrived = self.length + 1, clocks.time()
        return hole

    def leave_out(self, kind: str, reason: str, frames: int = 1) -> None:
        """Note frames that are not taken; the next clip tells how many, and why the first was not.

        Args:
            kind: frames of one kind are told together.
            reason: a sentence without its end.
            frames: how many.
        """
        entry = self._left_out.setdefault(kind, _LeftOut(0, reason))
        entry.frames += frames

    def hole(self, start: float | None, stop: float | None, reason: str) -> None:
        """Note a stretch without frames, or whatever else the next clip should tell."""
        self._holes.append(Gap(start, stop, 0, reason))

    def pending(self) -> tuple[list[Gap], dict[str, tuple[int, str]]]:
        """What the next clip will tell: holes, and by kind the frames that were left out, with the first reason."""
        return list(self._holes), {kind: (entry.frames, entry.reason) for kind, entry in self._left_out.items()}

    def expect(self, holes: list[Gap], left_out: dict[str, tuple[int, str]]) -> None:
        """Put back what `pending` gave."""
        self._holes = list(holes)
        self._left_out = {kind: _LeftOut(frames, reason) for kind, (frames, reason) in left_out.items()}

    def told(self, keep: bool = False) -> tuple[Gap, ...]:
        """What the next clip tells: holes, then frames that were left out; forgotten then, unless it is to `keep`."""
        out = [Gap(None, None, entry.frames, entry.reason) for entry in self._left_out.values()]
        told = (*self._holes, *out)
        if not keep:
            self._holes, self._left_out = [], {}
        return told
