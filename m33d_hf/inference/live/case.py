"""Several cameras of one case that is still running: their frames go in, the prediction for a clip comes out once every
camera that is waited for has shown it; memory is constant.

The first camera of the list leads, as where a case is recorded, unless it has not begun when it is no longer waited
for: its frames are counted, its clips are cut, and those of the others stand beside them by `span_beside`. Where it is
away, clips go on at its usual rate by what the others show. What no camera shows is a hole, as in a recording: no clips
are made of it, and nobody is behind because of it.
"""

from __future__ import annotations

import copy
import math
import time as clocks
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

import numpy as np
import torch
from torch import Tensor

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.inference.live.camera import LiveCamera
from m33d_hf.inference.live.clips import Clip, ClipPrediction
from m33d_hf.inference.live.feed import LiveModel
from m33d_hf.modeling.sequences_m33d import State
from m33d_hf.training.tasks.detection.cameras import fuse

# Seconds that a case waits for a camera before it goes on without it.
WAIT = 2.0
# Of that time, what others show after a camera jumped ahead of them: more is no pause of all.
_ASTRAY = 0.5
# Of a frame's length, what rounding may take from it.
_ROUNDING = 0.05
Row = tuple[Tensor, Tensor]
"""(features (D,), clip-wise logits (L,)) of a clip by one camera."""


@dataclass
class OpenClip:
    """A clip that has ended, and what the cameras show of it.

    Attributes:
        start, stop: its frames by the leading camera, [start, stop).
        begin, end: on the clock of the case, in seconds.
        came: `time.monotonic()` when its last frame by the leading camera arrived.
        seen: camera -> what it shows; None where it shows nothing, or what cannot be read. Others are waited for.
    """

    start: int
    stop: int
    begin: float
    end: float
    came: float
    seen: dict[str, Row | None] = field(default_factory=dict)


class LiveCase:
    """The clips of a case so far; only those that have not ended keep frames, and others features.

    Args:
        model: a causal detector.
        cameras: their names; the first one leads, of those that have begun when the others are no longer waited for.
        joined: names of the cameras whose features stand side by side in the model; None takes their mean.
        offsets: camera -> seconds from the beginning of the case's clock to its first frame, 0 for those not named;
            None where the times of all cameras are of one clock (or, `by_arrival`, where their first frames tell).
        wait: a camera is not waited for where another one has shown so many seconds more, holes not counted.
        by_arrival: without offsets, a camera lies where its first frame arrived beside those of the others.

    Attributes:
        cameras: by name.
        lead: name of the one that leads; None before that is known.
        state: of the temporal model.
        next_start: first frame of the next clip that has not ended.
        open: clips that have ended and wait for a camera.
        zero: time, or arrival, from which cameras without offsets are placed; None before the first frame.
    """

    def __init__(
        self,
        model: LiveModel,
        cameras: Sequence[str],
        joined: Sequence[str] | None = None,
        offsets: Mapping[str, float] | None = None,
        wait: float = WAIT,
        by_arrival: bool = False,
    ) -> None:
        self.model, self.joined, self.wait, self.by_arrival = model, joined, wait, by_arrival
        self.offsets = offsets
        stated = None if offsets is None else {name: float(offsets.get(name, 0.0)) for name in cameras}
        self.cameras = {name: LiveCamera(name, None if stated is None else stated[name]) for name in cameras}
        self.lead: str | None = None
        self.state: State | None = None
        self.next_start = 0
        self.open: deque[OpenClip] = deque()
        self.zero: float | None = None

    @property
    def length(self) -> int:
        """Frames of the leading camera so far, with those that were missing while the case went on without it."""
        return 0 if self.lead is None else self.cameras[self.lead].length

    @property
    def seconds(self) -> float:
        """From the first frame of the leading camera to the end of its last one."""
        return 0.0 if self.lead is None else self.cameras[self.lead].seconds

    @property
    def first_open(self) -> int:
        """The first frame of the next clip to be told."""
        return self.open[0].start if self.open else self.next_start

    @property
    def completed(self) -> int:
        """Clips that have been told so far."""
        return self.first_open // self.model.rule.clip_stride

    def push(self, camera: str, frame: np.ndarray | None, time: float) -> list[ClipPrediction]:
        """Take the next frame of a camera.

        Args:
            camera: its name.
            frame: (H, W, 3) uint8 RGB; None for one that could not be read.
            time: when it was taken, in seconds; of one clock for all cameras, unless their offsets are stated.

        Returns:
            the predictions for the clips that need nothing more, in order; mostly none or one.

        Raises:
            ConfigError: no such camera.
            DataError: see `LiveFeed.push`; the case is as it was.
        """
        self.camera(camera).check(frame, time)
        self.take(camera, frame, time)
        return self.advance()

    def camera(self, name: str) -> LiveCamera:
        """A camera by its name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.cameras:
            known = list(self.cameras)
            raise ConfigError(
                f"there is no camera {name!r}; the case was begun with {', '.join(map(repr, known))}."
                f"{nearest_name_hint(name, known)}"
            )
        return self.cameras[name]

    def takes(self, name: str) -> bool:
        """Whether the picture of the next frame of a camera may be needed; of others the time is enough."""
        return name != self.lead or self.model.rule.takes(self.cameras[name].length)

    def take(self, name: str, frame: np.ndarray | None, time: float, arrived: float | None = None) -> None:
        """Keep the next frame of a camera, with which there is no problem; `advance` tells the clips that it ends."""
        camera = self.cameras[name]
        place = self.placed(name, time, arrived)
        if camera.place is None:
            camera.place = place
            self.zero = (time if not self.by_arrival else _now(arrived)) if self.zero is None else self.zero
        picture = self.model.prepared(frame) if frame is not None and self.takes(name) else None
        camera.came = _now(arrived)
        shown = camera.take(frame, picture, time, self.wait)
        for other in self.cameras.values():
            other.ahead += shown if other.kept and other.resumed > camera.last else 0.0
        if camera.away and not self._behind(camera):
            camera.rejoin()

    def placed(self, name: str, time: float, arrived: float | None = None) -> float:
        """Where a frame of a camera lies on the clock of the case."""
        camera = self.cameras[name]
        if camera.place is not None:
            return camera.place + time - (camera.clock.origin or 0.0)
        if camera.offset is not None:
            return camera.offset
        given = _now(arrived) if self.by_arrival else time
        return given - (given if self.zero is None else self.zero)

    def advance(self) -> list[ClipPrediction]:
        """The predictions for the clips that need nothing more, in order."""
        self._watch()
        if not self._led():
            return []
        self._cut()
        self._go_on_without_lead()
        self._see()
        return self._released()

    def finish(self) -> list[ClipPrediction]:
        """The clips that the end of the case cuts short, and those that still waited for a camera, all marked as cut,
        in the order of time.

        Where the leading camera is away the last one goes to the end of the others. Nothing changes: when the case is
        taken up again, they are completed.
        """
        other = self.twin()
        if other._led() and other._leading.away:
            other._go_on_to_the_end()
        for camera in other.cameras.values():
            if not camera.away:
                camera.away, camera.told_away = "the case ends", True
        if not other._led():
            return []
        other._cut()
        other._cut_short()
        other._see()
        return other._released(cut=True)

    def twin(self) -> LiveCase:
        """A case that goes on from here on its own."""
        return copy.deepcopy(self, {id(self.model): self.model})

    def await_all(self, wait: float) -> None:
        """Wait for every camera again when the case is taken up; `wait` is that of the class."""
        self.wait = wait
        for camera in self.cameras.values():
            camera.away, camera.told_away = "", False

    @property
    def _leading(self) -> LiveCamera:
        if self.lead is None:
            raise RuntimeError("no camera of the case leads yet")
        return self.cameras[self.lead]

    def _watch(self) -> None:
        """Leave the cameras that lie too far behind."""
        for camera in self.cameras.values():
            if not camera.away and self._behind(camera):
                what = "its frames lie more than" if camera.kept else "it has not begun for"
                camera.leave(f"{what} {self.wait:g} s{' behind' if camera.kept else ''}")

    def _behind(self, camera: LiveCamera) -> bool:
        """Whether the frames of a camera lie too far behind those of another one to be waited for."""
        begun = [each for each in self.cameras.values() if each.kept]
        if not begun:
            return False
        first = min(each.place or 0.0 for each in begun)
        end = camera.end if camera.end > -math.inf else first
        return any(each.shown_since(end) > self.wait for each in begun if not self._astray(each))

    def _astray(self, camera: LiveCamera) -> bool:
        """Whether a camera jumped ahead while others went on before that: its clock is no longer that of the case,
        until the leading one comes there."""
        return camera.ahead > _ASTRAY * self.wait and (self.lead is None or camera.resumed > self._leading.last)

    def _led(self) -> bool:
        """Whether a camera leads; the first that sends does, unless one before it may still begin."""
        for name, camera in self.cameras.items() if self.lead is None else ():
            if camera.kept:
                self.lead = name
            if camera.kept or not camera.away:
                break
        return self.lead is not None

    def _cut(self) -> None:
        """Open the clips that have ended by the leading camera."""
        lead, rule = self._leading, self.model.rule
        while lead.length >= self.next_start + rule.span:
            # A camera that leads late has kept more than a clip: where it ends the next frame begins.
            stop = self.next_start + rule.span
            self._open(stop, lead.end if stop == lead.length else lead.begins(stop))
            self.next_start += rule.clip_stride
            lead.drop(number=self.next_start)

    def _cut_short(self) -> None:
        """Open the clips that the end of the leading camera cuts short, but for those that a clip before covers."""
        lead, rule = self._leading, self.model.rule
        while self.next_start < lead.length:
            if self.next_start == 0 or self.next_start - rule.clip_stride + rule.span < lead.length:
                self._open(lead.length, lead.end)
            self.next_start += rule.clip_stride

    def _open(self, stop: int, end: float) -> None:
        lead, start = self._leading, self.next_start
        there = stop if lead.lost is None else min(stop, lead.lost)  # what it breaks off counts as cut short
        row = self._row(lead.clip(start, there, self.model.rule)) if there > start else None
        self.open.append(OpenClip(start, stop, lead.begins(start), end, lead.came, {lead.name: row}))

    def _go_on_without_lead(self) -> None:
        """End clips at the usual rate of the leading camera while it is away and others show more."""
        lead, rule = self._leading, self.model.rule
        others = [each for each in self._others() if not each.away and not self._astray(each)]
        step = self._step(others)
        while lead.away and step is not None:
            missing = self.next_start + rule.span - lead.length
            ahead = list(islice(self._shown_by(others, step), missing))
            if len(ahead) < missing:
                break
            for step in ahead:
                lead.lose(step)
            self._cut()

    def _go_on_to_the_end(self) -> None:
        """Count what is less than a whole clip: frames up to the end of the others, none behind a pause of all."""
        lead, others = self._leading, self._others()
        step = self._step(others)
        for ahead in () if step is None else takewhile(lambda each: each == step, self._shown_by(others, step)):
            lead.lose(ahead)

    def _others(self) -> list[LiveCamera]:
        """Those that have begun, but for the leading one."""
        return [camera for camera in self.cameras.values() if camera.name != self.lead and camera.kept]

    def _step(self, others: Sequence[LiveCamera]) -> float | None:
        """Seconds from frame to frame of the leading camera as is usual, or else of another one."""
        steps = (camera.clock.usual for camera in (self._leading, *others) if others)
        return next((step for step in steps if step is not None), None)

    def _shown_by(self, others: Sequence[LiveCamera], step: float) -> Iterator[float]:
        """From frame to frame the seconds to those that the leading camera lacks and others show to their ends.

        Args:
            others: cameras that have begun.
            step: seconds from frame to frame, as is usual. What none of them shows is left out.
        """
        stretches = sorted(stretch for camera in others for stretch in camera.stretches(self.wait))
        last, slack = self._leading.last, _ROUNDING * step
        while True:
            moment = last + step
            if any(begin - slack <= moment and moment + step - slack <= end for begin, end in stretches):
                yield step
                last = moment
                continue
            later = [begin for begin, end in stretches if begin - slack > moment and begin + step - slack <= end]
            if not later or min(camera.end for camera in others) < later[0]:
                return  # one of them may still show what lies between
            yield later[0] - last
            last = later[0]

    def _see(self) -> None:
        """Encode what the other cameras show of the open clips, and forget frames that none needs any more."""
        for camera in self.cameras.values():
            if camera.name == self.lead:
                continue
            for clip in self.open:
                if camera.name in clip.seen:
                    continue
                known, place = camera.beside(clip.begin, clip.end, self.model.rule.span)
                if known:
                    clip.seen[camera.name] = None if place is None else self._row(camera.clip(*place, self.model.rule))
            needed = min([self._next_begin(), *(clip.begin for clip in self.open if camera.name not in clip.seen)])
            if self._astray(camera) and (not camera.pauses or camera.pauses[-1][0] <= needed):
                needed = max(needed, camera.last - self.wait)  # it may stay ahead for ever
            camera.drop(needed)

    def _next_begin(self) -> float:
        """No clip that is not open yet begins before this."""
        lead = self._leading
        return lead.begins(self.next_start) if lead.length > self.next_start else lead.last

    def _row(self, clip: Clip) -> Row | None:
        ((_, features, logits),) = self.model.encoded([clip])
        return None if features is None or logits is None else (features, logits)

    def _released(self, cut: bool = False) -> list[ClipPrediction]:
        found = []
        while self.open and len(self.open[0].seen) == len(self.cameras):
            clip = self.open.popleft()
            for name, row in clip.seen.items():
                if row is None:
                    self.cameras[name].missed()
            found.append(self._predicted(clip, cut))
        return found

    def _predicted(self, clip: OpenClip, cut: bool) -> ClipPrediction:
        rows = [clip.seen[name] for name in self.cameras]
        width = self.model.feature_width
        features = torch.stack([torch.zeros(width) if row is None else row[0] for row in rows])[:, None]
        logits = torch.stack([torch.zeros(len(self.model.names)) if row is None else row[1] for row in rows])[:, None]
        shown = torch.tensor([row is not None for row in rows])[:, None]
        fused, clipwise = fuse(features, logits, shown, list(self.cameras), self.joined)
        probabilities, self.state = self.model.step(fused[0], self.state)
        even = np.full(len(self.model.names), 1.0 / len(self.model.names), np.float32)
        readable = bool(shown.any())
        by = tuple(name for name, row in zip(self.cameras, rows, strict=True) if row is not None)
        zero = self._leading.place or 0.0
        gaps = tuple(gap for camera in self.cameras.values() for gap in camera.told())
        return ClipPrediction(
            clip.start, clip.stop, readable, probabilities, clipwise[0].softmax(-1).numpy() if readable else even,
            clip.begin - zero, clip.end - zero, None if cut else clocks.monotonic() - clip.came, gaps, cut, by,
        )  # fmt: skip


def _now(arrived: float | None) -> float:
    return clocks.monotonic() if arrived is None else arrived
