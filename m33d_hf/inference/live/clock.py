"""The times of the frames of a feed: what runs backwards or is no number is refused, holes are told."""

from __future__ import annotations

import math
from collections import deque
from numbers import Real
from statistics import median
from typing import Any, TypeGuard

from m33d_hf.inference.live.clips import Gap
from m33d_hf.modeling.video_times_m33d import SPARE_FRAMES

# Steps from frame to frame that are remembered: what is usual is their median.
_STEPS = 32
# Before so many are known, a long one is called a hole only beside the longest of them, and where some are known.
_ENOUGH, _SOME = 8, 2


def is_number(time: object) -> TypeGuard[float]:
    """Whether a time is a finite number."""
    return isinstance(time, Real) and not isinstance(time, bool) and math.isfinite(float(time))


class FrameClock:
    """Turns the times that a feed gives to its frames into seconds from the first one; memory is constant.

    Attributes:
        origin: what the feed calls the time of the first frame, in seconds; None before that.
        given: what it calls the time of the last one.
    """

    def __init__(self) -> None:
        self.origin: float | None = None
        self.given: float | None = None
        self._steps: deque[float] = deque(maxlen=_STEPS)

    def problem(self, time: object) -> tuple[str, str]:
        """(kind, sentence) of what is wrong with the time of the next frame; two empty texts where nothing is."""
        if not is_number(time):
            return "time", f"a frame has the time {time!r}, which is no number of seconds"
        if self.given is not None and not time > self.given:
            return "order", f"a frame has the time {time:.3f} s, but that of the one before is {self.given:.3f} s"
        return "", ""

    def add(self, time: float) -> Gap | None:
        """Take the time of the next frame, in which `problem` finds none; returns the hole before it, if there is one.

        A hole is told as in recordings: more frames are missing than headers promise too many as a rule.
        """
        if self.origin is None or self.last is None:
            self.origin = self.given = time
            return None
        now, before, usual = time - self.origin, self.last, self.usual
        self.given = time
        step = now - before
        hole = None
        known = len(self._steps)
        base = usual if known >= _ENOUGH else max(self._steps) if known >= _SOME else None
        if usual is not None and base is not None and round(step / base) - 1 > SPARE_FRAMES:
            start = before + usual
            hole = Gap(start, now, 0, f"there are no frames from {start:.2f} to {now:.2f} s")
        if hole is None or known < _ENOUGH:  # the first steps may have been the odd ones
            self._steps.append(step)
        return hole

    @property
    def last(self) -> float | None:
        """Seconds from the first frame to the last one; None before any."""
        return None if self.origin is None or self.given is None else self.given - self.origin

    @property
    def usual(self) -> float | None:
        """Seconds from one frame to the next, as a rule; None before the second frame."""
        return median(self._steps) if self._steps else None

    @property
    def end(self) -> float | None:
        """When the last frame ends, if it is shown as long as is usual; None where nobody knows yet."""
        return None if self.last is None or self.usual is None else self.last + self.usual

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"origin": self.origin, "given": self.given, "steps": list(self._steps)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.origin, self.given = state["origin"], state["given"]
        self._steps = deque(state["steps"], maxlen=_STEPS)
