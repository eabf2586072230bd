"""One of several cameras of a case that is still running: its frames on the clock of the case, as long as clips need
them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.sources.phases.synchrony import FrameRun, shows, span_beside
from m33d_hf.inference.live.clips import Clip, Gap
from m33d_hf.inference.live.clock import is_number
from m33d_hf.inference.live.intake import FrameIntake
from m33d_hf.training.tasks.detection.features import ClipRule

# Of the leading camera, when it is back and behind.
LATE = "a frame came after the case had gone on without it"
# Pauses that are remembered; what lies before them counts as shown.
_PAUSES = 64
# A step of so many usual ones is a jump.
_MANY = 5


class Kept(NamedTuple):
    """A frame: when it begins on the clock of the case, and (3, H, W) uint8 at the model's size; None where it could
    not be read or no clip takes it."""

    begin: float
    picture: Tensor | None


class LiveCamera(FrameIntake):
    """The frames of a camera that clips may still take.

    Args:
        name: of the camera.
        offset: seconds from the beginning of the case's clock to its first frame, where that is stated.

    Attributes:
        place: the same, once it is known; None before.
        came: `time.monotonic()` when its last frame arrived.
        away: why it is not waited for; empty where it is.
        told_away: whether that was told, with the first clip that lacks it.
        gone_on: `clock.given` up to which the case went on without this camera, which leads it; None where it did not.
        lost: number of the first frame that did not come while it is away and the case goes on; None otherwise.
        first: number of the first frame that is kept.
        kept: frames from there on.
        breaks: (number of the first frame behind a hole, when the frame before it ended).
        pauses: (end of a frame, beginning of the next one) where it showed nothing in between: holes, and whatever is
            longer than the case waits.
        ahead: seconds that others have shown of the time before `resumed` since it resumed.
    """

    def __init__(self, name: str, offset: float | None = None) -> None:
        super().__init__()
        self.name, self.offset = name, offset
        self.place: float | None = None
        self.came = 0.0
        self.away = ""
        self.told_away = False
        self.gone_on: float | None = None
        self.lost: int | None = None
        self.first = 0
        self.kept: deque[Kept] = deque()
        self.breaks: list[tuple[int, float]] = []
        self.pauses: deque[tuple[float, float]] = deque(maxlen=_PAUSES)
        self.ahead = 0.0

    @property
    def last(self) -> float:
        """When its last frame begins on the clock of the case; before any, where the first one is stated to be."""
        if self.place is None or self.clock.last is None:
            return -math.inf if self.offset is None else self.offset
        return self.place + self.clock.last

    @property
    def end(self) -> float:
        """When its last frame ends, as far as is known."""
        return self.last + (self.clock.usual or 0.0)

    def problem(self, frame: np.ndarray | None, time: object) -> tuple[str, str]:
        """See the base class."""
        kind, sentence = super().problem(frame, time)
        # The frame that was counted last is rarely at this very time.
        until = -math.inf if self.gone_on is None else self.gone_on + (self.clock.usual or 0.0) / 2
        if kind in ("", "order") and is_number(time) and time < until:
            return "late", LATE
        return kind, sentence

    @property
    def resumed(self) -> float:
        """When the stretch that it shows without a pause began."""
        return self.pauses[-1][1] if self.pauses else self.place or 0.0

    def shown_since(self, moment: float) -> float:
        """Seconds that it shows behind a moment, up to its last frame; below 0 where that lies before it."""
        begin = max(moment, self.place or 0.0)
        return self.last - begin - sum(max(0.0, begins - max(ended, begin)) for ended, begins in self.pauses)

    def stretches(self, longest: float) -> list[tuple[float, float]]:
        """(begin, end) of what the frames that are kept show without a pause; the last one no longer than `longest`."""
        parts = [(ended, begins) for ended, begins in self.pauses if begins > self.kept[0].begin]
        begins = [self.kept[0].begin, *(begin for _, begin in parts)]
        return list(zip(begins, [*(ended for ended, _ in parts), min(self.end, self.last + longest)], strict=True))

    def take(self, frame: np.ndarray | None, picture: Tensor | None, time: float, longest: float = math.inf) -> float:
        """Keep the next frame, with which there is no problem; `place` is known.

        Args:
            frame: the picture as it came; None where it could not be read.
            picture: the same at the model's size; None where no clip takes it.
            time: by the clock of the camera.
            longest: seconds from frame to frame above which nothing was shown in between.

        Returns:
            the seconds that the frame before it was shown; 0 where a pause lies between.
        """
        begun, last, whole, usual = bool(self.kept), self.last, self.end, self.clock.usual
        hole = self.note(frame, time)
        self.kept.append(Kept(self.last, picture))
        self.lost, step = None, self.last - last
        # The clock calls nothing a hole before it knows the rate.
        jumped = hole is not None or (begun and step > longest and (usual is None or step > _MANY * usual))
        if jumped:
            self.breaks.append((self.length - 1, whole))
        if begun and (jumped or step > longest):
            self.pauses.append((min(whole, last + longest), self.last))
            self.ahead = 0.0
            return 0.0
        return step if begun else 0.0

    def lose(self, step: float) -> None:
        """Count a frame that did not come, so many seconds behind the last one; more than is usual is a hole."""
        self.lost = self.length if self.lost is None else self.lost
        self.gone_on, ended = (self.clock.given or 0.0) + step, self.end
        hole = self.clock.add(self.gone_on)
        if hole is not None:
            self._holes.append(hole)
            self.pauses.append((ended, self.last))
        self.length += 1
        self.arrived = None if self.arrived is None else self.arrived + step  # its clock goes on from there
        self.kept.append(Kept(self.last, None))

    def leave(self, reason: str) -> None:
        """Do not wait for it until it sends again.

        Args:
            reason: a sentence without its end.
        """
        self.away = self.away or reason

    def rejoin(self) -> None:
        """Wait for it again."""
        if self.told_away:
            self.hole(None, None, "it takes part again")
        self.away, self.told_away = "", False

    def missed(self) -> None:
        """Tell once, with a clip that lacks it, that it is away."""
        if self.away and not self.told_away:
            self.hole(None, None, f"{self.away}; it is missing until it takes part again")
            self.told_away = True

    def told(self, keep: bool = False) -> tuple[Gap, ...]:
        """See the base class."""
        return tuple(replace(gap, reason=f"camera {self.name}: {gap.reason}") for gap in super().told(keep))

    def begins(self, number: int) -> float:
        """When a frame that is kept begins."""
        return self.kept[number - self.first].begin

    def beside(self, begin: float, end: float, span: int) -> tuple[bool, tuple[int, int] | None]:
        """(whether it is known, frames [start, stop) that stand beside a clip), as `span_beside` tells of recordings.

        Args:
            begin, end: of the clip, on the clock of the case.
            span: frames of a clip.
        """
        if not self.kept:
            ahead = None if self.offset is None else FrameRun(0, np.array([self.offset]), math.inf)
            return bool(self.away) or (ahead is not None and not shows(ahead, begin, end)), None
        runs = self._runs()
        best, last = max(runs, key=lambda run: run.shown(begin, end)), runs[-1]
        if not self.away:
            whole = self.end >= end or (best is last and shows(best, begin, end))
            may_come = shows(best, begin, end) or shows(replace(last, end=math.inf), begin, end)
            if may_come and not (whole and self.last >= begin):
                return False, None
        found = span_beside(begin, end, runs, span)
        cut = found is not None and found[1] - found[0] < span and found[1] == self.length
        return (bool(self.away) or not cut), found

    def clip(self, start: int, stop: int, rule: ClipRule) -> Clip:
        """The clip of frames that are kept."""
        rows = [self.kept[start + offset - self.first].picture for offset in rule.frames(stop - start)]
        frames = [row for row in rows if row is not None]
        return Clip(start, stop, torch.stack(frames) if len(frames) == len(rows) else None)

    def drop(self, moment: float = math.inf, number: int | None = None) -> None:
        """Forget the frames that end before a moment, or those before a number; the last one stays."""
        while len(self.kept) > 1:
            if (self.first >= number) if number is not None else (self.kept[1].begin > moment):
                break
            self.kept.popleft()
            self.first += 1
        self.breaks = [each for each in self.breaks if each[0] > self.first]

    def _runs(self) -> list[FrameRun]:
        begins = np.array([each.begin for each in self.kept])
        borders = [self.first, *(number for number, _ in self.breaks), self.length]
        ends = [*(end for _, end in self.breaks), self.end]
        return [
            FrameRun(start, begins[start - self.first : stop - self.first], end)
            for (start, stop), end in zip(pairwise(borders), ends, strict=True)
        ]
