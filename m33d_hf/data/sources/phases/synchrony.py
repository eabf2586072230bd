"""Frames of several cameras at one moment: by the times of their frames and the offsets of the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX, frame_times
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource, PhaseVideo
from m33d_hf.errors import DataError
from m33d_hf.modeling.video_times_m33d import FrameTimes, middles_between, missing_between

# A clip of which another camera shows less than this share is one that it does not show: half, but for what the
# rounding of time stamps takes from it.
_LEAST_SHARE = 0.49
# Two frames are equally near a moment when no more than this lies between: Matroska counts milliseconds. Of frames that
# are closer together than that, a part of what is between them.
_TICK = 1e-3
_PART = 0.05


@dataclass(frozen=True)
class Placed:
    """A video on the clock of its case.

    Attributes:
        key: for messages.
        length: its frames.
        times: when each is shown; None where nothing tells.
        offset: seconds from the beginning of the case's clock to its first frame.
    """

    key: str
    length: int
    times: FrameTimes | None
    offset: float = 0.0

    @classmethod
    def of(cls, video: PhaseVideo) -> Placed:
        """Where a video of a source lies."""
        return cls(video.key, video.handle.length, frame_times(video.handle), video.offset)

    @property
    def borders(self) -> np.ndarray | None:
        """(length + 1,) seconds on the case's clock at which the frames begin, and at which the last one ends; None
        where nothing tells the times of the video."""
        if self.times is None:
            return None
        return np.asarray(self.times.at(np.arange(self.length + 1)), dtype=np.float64) + self.offset


@dataclass(frozen=True)
class FrameRun:
    """Frames of a camera that follow each other without a hole.

    Attributes:
        start: number of the first one.
        begins: (n,) float64, when each begins, on the clock of the case, ascending; n at least 1.
        end: when the last one ends.
    """

    start: int
    begins: np.ndarray
    end: float

    @property
    def stop(self) -> int:
        """Number behind the last one."""
        return self.start + len(self.begins)

    def shown(self, begin: float, end: float) -> float:
        """Seconds of a stretch that it shows; below 0 where it lies beside it."""
        return min(end, self.end) - max(begin, float(self.begins[0]))

    def nearest(self, moment: float) -> int:
        """Number of the frame whose beginning is the nearest; of two equally near ones the earlier."""
        after = int(np.searchsorted(self.begins, moment))
        if after in (0, len(self.begins)):
            return self.start + min(after, len(self.begins) - 1)
        before, behind = self.begins[after - 1 : after + 1]
        slack = min(_TICK, _PART * float(behind - before))
        return self.start + after - int(moment - before <= behind - moment + slack)


def shows(run: FrameRun, begin: float, end: float) -> bool:
    """Whether a clip of a camera stands beside one that lasts from `begin` to `end`."""
    return run.shown(begin, end) >= _LEAST_SHARE * (end - begin)


def span_beside(begin: float, end: float, runs: Sequence[FrameRun], span: int) -> tuple[int, int] | None:
    """Frames [start, stop) of a camera that stand beside a clip; None where it shows less than half of it.

    Args:
        begin, end: of the clip, on the clock of the case.
        runs: the frames of the camera, at least one run. Of several the one that shows most of the clip counts: a hole
            is as an end and a new beginning.
        span: frames of a clip.
    """
    run = max(runs, key=lambda run: run.shown(begin, end))
    if not shows(run, begin, end):
        return None
    start = run.nearest(begin)
    return start, min(start + span, run.stop)


def simultaneous(first: PhaseVideo, other: PhaseVideo) -> tuple[np.ndarray, np.ndarray]:
    """As `on_one_clock`, of videos of a source."""
    return on_one_clock(Placed.of(first), Placed.of(other))


def on_one_clock(first: Placed, other: Placed) -> tuple[np.ndarray, np.ndarray]:
    """(frame borders of `first`, of `other`) on one clock, each (length + 1,): in seconds, or in frames where neither
    has times, both have as many frames and there is no offset.

    Raises:
        DataError: nothing tells how the two lie beside each other.
    """
    one, two = first.borders, other.borders
    if one is not None and two is not None:
        return one, two
    lengths = (first.length, other.length)
    if one is None and two is None and lengths[0] == lengths[1] and first.offset == other.offset:
        return np.arange(lengths[0] + 1.0), np.arange(lengths[1] + 1.0)
    raise DataError(
        f"{other.key} and {first.key} show one case, but nothing tells the times of their {lengths[1]} and "
        f"{lengths[0]} frames: state the rate with --data.options.fps (--fps of detect_actions.py)"
    )


def phases_of(first: PhaseVideo, other: PhaseVideo) -> np.ndarray:
    """(length,) uint8 phases of the frames of `other`: those that `first` has at their middle; 255 outside of it."""
    borders, theirs = simultaneous(first, other)
    frames = np.searchsorted(borders, middles_between(theirs), side="right") - 1
    inside = (frames >= 0) & (frames < len(first.phases))
    return np.where(inside, first.phases[np.clip(frames, 0, len(first.phases) - 1)], IGNORE_INDEX).astype(np.uint8)


def same_moments(source: PhaseSource, rows: Sequence[int]) -> dict[int, int]:
    """Which clips of further cameras show what a clip of the first camera of their case shows.

    Args:
        source: clips are its items.
        rows: the items in use.

    Returns:
        place in `rows` -> place in `rows` of the clip of the first camera in which its middle lies (of several, the one
        whose middle is the nearest). What lies outside of the first camera's clips is not among them.
    """
    places: dict[int, list[tuple[int, ClipSpan]]] = {}
    for place, row in enumerate(rows):
        number, span = source.items[row]
        places.setdefault(number, []).append((place, span))
    found: dict[int, int] = {}
    for first, *others in source.cases:
        for other in others if first in places else ():
            borders, theirs = simultaneous(source.videos[first], source.videos[other])
            begins = borders[[clip.start for _, clip in places[first]]]
            ends = borders[[clip.stop for _, clip in places[first]]]
            for place, span in places.get(other, ()):
                middle = (theirs[span.start] + theirs[span.stop]) / 2
                away = np.where((begins <= middle) & (middle < ends), np.abs(begins + ends - 2 * middle), np.inf)
                if np.isfinite(away.min()):
                    found[place] = places[first][int(away.argmin())][0]
    return found


def beside(first: PhaseVideo, other: PhaseVideo, spans: list[ClipSpan], span: int) -> list[ClipSpan | None]:
    """For each clip of `first` the clip of `other` that begins with it; None where `other` shows less than half of it.

    Args:
        first: the camera whose clips are given.
        other: another one of the same case.
        spans: clips of `first`.
        span: frames of a clip, also at another rate: it covers another time then, from the same beginning.
    """
    return spans_beside(Placed.of(first), Placed.of(other), spans, span)


def spans_beside(first: Placed, other: Placed, spans: Sequence[ClipSpan], span: int) -> list[ClipSpan | None]:
    """As `beside`, of videos that are in no source."""
    borders, theirs = on_one_clock(first, other)
    runs, ends = _runs(other, theirs), _ends(first, borders)
    found: list[ClipSpan | None] = []
    for clip in spans:
        place = span_beside(float(borders[clip.start]), ends.get(clip.stop, float(borders[clip.stop])), runs, span)
        found.append(None if place is None else ClipSpan(*place, clip.label))
    return found


def _runs(video: Placed, borders: np.ndarray) -> list[FrameRun]:
    """The frames of a video, parted by its holes."""
    ends = _ends(video, borders)
    starts = [0, *sorted(ends)[:-1]]
    return [FrameRun(start, borders[start:stop], ends[stop]) for start, stop in zip(starts, sorted(ends), strict=True)]


def _ends(video: Placed, borders: np.ndarray) -> dict[int, float]:
    """Number of the first frame behind a hole, or behind all -> when the frame before it ends."""
    holes = [] if video.times is None else missing_between(video.times)
    return {lack.after: video.offset + float(lack.start or 0.0) for lack in holes} | {video.length: float(borders[-1])}
