# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""When the frames of a video are shown, and which stretches of it are missing though its file announces them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

# Headers promise a frame or two too many as a rule (a last packet without a picture): so many are no loss.
SPARE_FRAMES = 3
# A hole in the time stamps is a loss only where frames otherwise come at a steady pace; elsewhere it may be a pause.
_STEADY_SHARE = 0.95


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """The time of every frame in seconds from the first one, whatever time the file gives to that.

    Attributes:
        count: number of frames, at least 1.
        fps: frames per second on average.
        starts: (count,) float64, ascending from 0: when each frame begins; None where frames are evenly spaced.
        end: when the last frame ends; only used with `starts`.
    """

    count: int
    fps: float
    starts: np.ndarray | None = None
    end: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds from the beginning of the first frame to the end of the last one."""
        return self.count / self.fps if self.starts is None else self.end

    def at(self, frames: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Seconds at which frames begin; `count` is the end of the last one, and what is beyond goes on at `fps`."""
        numbers = np.asarray(frames, dtype=np.int64)
        if self.starts is None:
            return np.asarray(numbers / self.fps)
        borders = np.append(self.starts, self.end)
        beyond = np.maximum(numbers - self.count, 0) / self.fps
        return np.asarray(borders[np.minimum(numbers, self.count)] + beyond)

    def middles(self) -> np.ndarray:
        """(count,) seconds half-way from each frame to the next: a time before that means this frame or an earlier.

        Before a hole it is half the usual step after the frame, which shows nothing of what happened in the hole.
        """
        if self.starts is None:
            return (np.arange(self.count) + 0.5) / self.fps
        return middles_between(np.append(self.starts, self.end))

    def frames_until(self, seconds: float) -> float:
        """How many frames, with fractions, begin and end before a time; beyond the end it goes on at `fps`."""
        if self.starts is None or seconds >= self.end:
            return self.count + (seconds - self.duration) * self.fps if self.starts is not None else seconds * self.fps
        return float(np.interp(seconds, np.append(self.starts, self.end), np.arange(self.count + 1)))


def middles_between(borders: np.ndarray) -> np.ndarray:
    """(N,) half-way from each of N frames to the next, by N + 1 ascending borders; see `FrameTimes.middles`."""
    steps = np.diff(borders)
    usual = float(np.median(steps)) if len(steps) else 0.0
    return np.asarray(borders[:-1] + np.where(steps > (SPARE_FRAMES + 1) * usual, usual, steps) / 2)


def times_of(stamps: Sequence[int], tick: Fraction, fps: float | None, last: int = 0) -> FrameTimes:
    """The times of frames with the given stamps.

    Stamps that are those of `fps` but for rounding to `tick` (Matroska counts milliseconds) count as evenly spaced.

    Args:
        stamps: ascending, at least one, in units of `tick` seconds.
        tick: seconds.
        fps: what the file says; None when it says nothing.
        last: how long the last frame is shown, in ticks; 0 when unknown.
    """
    count = len(stamps)
    ticks = np.asarray(stamps, dtype=np.int64) - stamps[0]
    starts = ticks * tick.numerator / tick.denominator
    if fps and np.abs(starts - np.arange(count) / fps).max() <= min(float(tick), 0.25 / fps):
        return FrameTimes(count, fps)
    if isinstance(stamps, range) and count > 1:
        return FrameTimes(count, float(1 / (stamps.step * tick)))
    steps = np.diff(ticks)
    usual = int(np.median(steps)) if count > 1 else round(1 / (fps * float(tick))) if fps else 1
    before = int(steps[-1]) if count > 1 and steps[-1] <= (SPARE_FRAMES + 1) * usual else usual
    end = float((int(ticks[-1]) + max(last, before, 1)) * tick)
    return FrameTimes(count, count / end, starts, end)


@dataclass(frozen=True)
class Lack:
    """A stretch without frames that a video should have, or is likely to have had.

    Attributes:
        start, stop: seconds from the first frame that decodes; None where nobody knows.
        frames: about how many are missing; 0 where nobody knows.
        after: number of frames before the stretch.
        reason: what is missing, for people.
    """

    start: float | None
    stop: float | None
    frames: int
    after: int
    reason: str


def restated(lacks: Iterable[Lack], count: int, fps: float) -> tuple[Lack, ...]:
    """The same for somebody who states an even rate against the file's times; a hole between frames has no length then.

    Args:
        lacks: what is missing.
        count: frames that there are.
        fps: the stated rate.
    """
    return tuple(
        replace(
            lack,
            start=None if lack.start is None else (lack.after - (lack.frames if lack.start < 0 else 0)) / fps,
            stop=(lack.after + lack.frames) / fps if lack.stop and lack.after == count else None,
        )
        for lack in lacks
    )


def frames_lost_at_the_end(lacks: Sequence[Lack], count: int) -> float:
    """Frames that are missing behind the last of `count`; infinite where a file was cut and nothing says how much."""
    behind = [lack for lack in lacks if lack.after == count]
    return float(behind[-1].frames or "inf") if behind else 0.0


def missing_end(times: FrameTimes, announced: float | None) -> list[Lack]:
    """The stretch from the last frame to the end that the file announces (seconds from the first frame), if any."""
    if announced is None:
        return []
    frames = round((announced - times.duration) * times.fps)
    if frames <= SPARE_FRAMES:
        return []
    share = 1 - times.duration / announced
    reason = (
        f"the file announces {announced:.1f} s, but only {times.duration:.1f} s can be decoded: the last "
        f"{announced - times.duration:.1f} s ({share:.1%}) are missing"
    )
    return [Lack(times.duration, announced, frames, times.count, reason)]


def missing_start(times: FrameTimes, lost: int) -> list[Lack]:
    """The `lost` frames before the first that decodes."""
    if lost <= SPARE_FRAMES:
        return []
    seconds = lost / times.fps
    reason = f"its first {lost} frames ({seconds:.1f} s) cannot be decoded; times start at the first frame that can"
    return [Lack(-seconds, 0.0, lost, 0, reason)]


def missing_between(times: FrameTimes) -> list[Lack]:
    """Holes in the stamps of a video whose frames otherwise come at a steady pace."""
    if times.starts is None or times.count < 3:
        return []
    steps = np.diff(times.starts)
    usual = float(np.median(steps))
    if np.mean(np.abs(steps - usual) <= usual / 2) < _STEADY_SHARE:
        return []
    found = []
    for place in np.flatnonzero(np.rint(steps / usual) - 1 > SPARE_FRAMES):
        start, stop = float(times.starts[place]) + usual, float(times.starts[place + 1])
        reason = f"there are no frames from {start:.2f} to {stop:.2f} s"
        found.append(Lack(start, stop, round((stop - start) / usual), int(place) + 1, reason))
    return found
