"""Following several cameras of a case: frames go in by the order of their times, until every camera has ended.

A camera that is behind the others is waited for, while theirs wait in bounded queues. One that sends nothing for a
while is left, and the others go on; it takes part again when it sends again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence

from m33d_hf.errors import CorruptFileError, M33DError, UnreachableError, type_and_text
from m33d_hf.inference.live.arrivals import Arrival, Arrivals
from m33d_hf.inference.live.camera import LATE
from m33d_hf.inference.live.case import LiveCase
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.live.clock import is_number
from m33d_hf.inference.live.following import Ended, patience_with
from m33d_hf.inference.live.junction import Junction
from m33d_hf.inference.live.readers import Readers, reading

# How often somebody who waits looks whether to stop, and who is silent (seconds).
_GLANCE = 0.1
# From the best end to the worst: the case has that of its worst camera.
_KINDS = ("finished", "closed", "stopped", "stalled", "broken")


def follow_case(
    case: LiveCase, sources: Mapping[str, Arrivals], patience: float, stop: threading.Event
) -> Generator[ClipPrediction, None, Ended]:
    """Push the frames of several sources into a case.

    Args:
        case: a new one, or one that is taken up again.
        sources: of its cameras, begun by this.
        patience: seconds without a frame of any of them after which the case counts as stalled, and that each may take
            to begin.
        stop: ends it when set.

    Raises:
        UnreachableError: no frame ever came.
        CorruptFileError: likewise, of a file.
        whatever else a source raised before its first frame, where no other one sends.
        M33DError: what a source gives is not what is followed, such as other things than (frame, seconds).
    """
    following = _Following(case, sources, patience, stop)
    yield from following.clips()
    ends = {name: following.ends[name] for name in sources}
    begun = [name for name, camera in case.cameras.items() if camera.length]
    if not begun and not following.held and not stop.is_set():
        for name in sources:
            if name in following.errors:
                raise following.errors[name]
        told = "; ".join(f"{name}: {reason}" for name, (_, reason) in ends.items())
        raise UnreachableError(f"none of the cameras {', '.join(sources)} has a frame to follow; {told}")
    last = yield from following.rest()
    kind = max((kind for kind, _ in ends.values()), key=_KINDS.index)
    reason = "; ".join(f"{name} {kind}: {reason}" for name, (kind, reason) in ends.items())
    return Ended(kind, reason, last.length, last.seconds, ends)


class _Following:
    """The state of following a case.

    Attributes:
        ends: camera -> (kind, reason), of those that have ended.
        errors: camera -> what its source raised before its first frame.
        held: frames that decoders give up at the end of growing files: they may be torn, and come again when the file
            is read further, so that the case does not take them; `rest` does.
    """

    def __init__(self, case: LiveCase, sources: Mapping[str, Arrivals], patience: float, stop: threading.Event) -> None:
        self.case, self.sources, self.patience, self.stop = case, sources, patience, stop
        self.ends: dict[str, tuple[str, str]] = {}
        self.errors: dict[str, Exception] = {}
        self.held: list[tuple[str, Arrival]] = []
        self._junctions = {name: Junction(case.cameras[name], source) for name, source in sources.items()}
        now = time.monotonic()
        self._heard = dict.fromkeys(sources, now)
        self._good = dict.fromkeys(sources, now)
        self._begun: set[str] = set()

    def clips(self) -> Iterator[ClipPrediction]:
        """The clips that need nothing more, until all sources have ended, all are silent, or the caller stops."""
        with reading(self.sources, self.patience, self.stop) as readers:
            while len(self.ends) < len(self.sources):
                if self.stop.is_set():
                    self._end_others("stopped", "stopped by the caller")
                    return
                heads = {name: head for name, head in readers.heads().items() if name not in self.ends}
                now = time.monotonic()
                self._heard.update(dict.fromkeys(heads, now))
                self._begun.update(heads)
                for name in [name for name, head in heads.items() if head.last]:
                    self.held.append((name, readers.take(name)))
                    del heads[name]
                self._note_ends(readers)
                if self._all_silent(heads, now):
                    return
                yield from self._step(readers, heads, now)

    def rest(self) -> Generator[ClipPrediction, None, LiveCase]:
        """The clips that the end cuts short; returns the case as it is then, which the one to go on with is not."""
        case = self.case.twin() if self.held else self.case
        for name, arrival in sorted(self.held, key=lambda each: self._place(*each)):
            case.cameras[name].rejoin()
            self._junctions[name].feed = case.cameras[name]
            self._push(case, name, arrival)
            yield from case.advance()
        yield from case.finish()
        return case

    def _step(self, readers: Readers, heads: dict[str, Arrival], now: float) -> Iterator[ClipPrediction]:
        """Take the earliest frame, unless a camera that is behind it may still send."""
        missing = [name for name in self.sources if name not in heads]
        for name in missing:
            if now - self._heard[name] > (limit := self._limit(name)):
                what = "no frame came" if name in self._begun else "it has not begun"
                self.case.cameras[name].leave(": ".join(self.ends.get(name, (f"{what} for {limit:.3g} s",))))
        self._leave_ahead(heads)
        first = min(heads, key=lambda name: self._place(name, heads[name]), default=None)
        place = math.inf if first is None else self._place(first, heads[first])
        behind = any(self._due(name) < place for name in missing if not self.case.cameras[name].away)
        if first is None or behind or self._too_early(first, place, missing, now):
            yield from self.case.advance()
            readers.wait(_GLANCE)
            return
        arrival = readers.take(first)
        problem = self._push(self.case, first, arrival)
        if not problem or problem == LATE:  # one that is late may catch up
            self._good[first] = now
        if now - self._good[first] >= self.patience:
            self.ends[first] = "broken", f"for {self.patience:g} s no frame could be used: {problem}"
            self.case.cameras[first].leave(": ".join(self.ends[first]))
            readers.drop(first)
        yield from self.case.advance()

    def _leave_ahead(self, heads: dict[str, Arrival]) -> None:
        """Do not wait for cameras whose next frame lies far ahead of another's: they have a hole, or their clock was
        set."""
        places = {name: self._place(name, head) for name, head in heads.items()}
        for name, place in places.items():
            camera = self.case.cameras[name]
            others = [each for each in self.case.cameras.values() if each is not camera and not each.away]
            first = min((places.get(each.name, each.end) for each in others), default=math.inf)
            if camera.kept and place - max(camera.end, first) > self.case.wait:
                camera.leave(f"its next frame lies {place - camera.end:.1f} s ahead")

    def _too_early(self, first: str, place: float, missing: Sequence[str], now: float) -> bool:
        """Whether the next frame of a camera lies so far ahead that others, silent for less, may well send before that:
        what they send after the case went there without its leading camera would be left out."""
        ahead = place - max(camera.end for camera in self.case.cameras.values())
        if first == self.case.lead or ahead <= self.case.wait:
            return False
        silent = [self._heard[name] for name in missing if name in self._begun and name not in self.ends]
        return any(now - heard < min(ahead, self.patience) for heard in silent)

    def _push(self, case: LiveCase, name: str, arrival: Arrival) -> str:
        """Take a frame; why it was left out instead."""
        found = self._junctions[name].usable(arrival, case.takes(name))
        if isinstance(found, str):
            return found
        case.take(name, *found, arrival.arrived)
        return ""

    def _place(self, name: str, arrival: Arrival) -> float:
        """Where a frame lies on the clock of the case; one without a time comes first, to be left out."""
        moment = self._junctions[name].moment(arrival)
        return self.case.placed(name, moment, arrival.arrived) if is_number(moment) else -math.inf

    def _due(self, name: str) -> float:
        """When the next frame of a silent camera is expected."""
        camera = self.case.cameras[name]
        return camera.end if camera.kept else camera.last

    def _limit(self, name: str) -> float:
        """Seconds that a camera may be silent before it is left."""
        if name not in self._begun:
            return patience_with(self.sources[name], self.patience)
        return self.case.wait + (self.case.cameras[name].clock.usual or 0.0)

    def _note_ends(self, readers: Readers) -> None:
        """Of a camera that ended without saying so the case may still be taken up where it was, if the others end too:
        it is waited for like one that is silent."""
        for name, error in readers.over().items():
            if name in self.ends:
                continue
            if error is None:
                self.ends[name] = self.sources[name].ended
            elif isinstance(error, Exception) and not _misuse(error):
                self.errors[name] = error
                ours = isinstance(error, M33DError)
                self.ends[name] = "broken", str(error) if ours else f"its source failed ({type_and_text(error)})"
            else:
                raise error
            if self.ends[name][0] == "finished" or name not in self._begun:
                self.case.cameras[name].leave(": ".join(self.ends[name]))

    def _all_silent(self, heads: dict[str, Arrival], now: float) -> bool:
        """Whether nobody has sent for too long; all end then."""
        left = {name: source for name, source in self.sources.items() if name not in self.ends}
        silent = [now - self._heard[name] >= patience_with(source, self.patience) for name, source in left.items()]
        if heads or not all(silent):
            return False
        for name in left:
            self.ends[name] = "stalled", f"no frame came for {now - self._heard[name]:.0f} s"
        return True

    def _end_others(self, kind: str, reason: str) -> None:
        for name in self.sources:
            self.ends.setdefault(name, (kind, reason))


def _misuse(error: Exception) -> bool:
    """Whether the caller is to change what is followed; whatever else a source raises ends that camera alone."""
    return isinstance(error, M33DError) and not isinstance(error, (UnreachableError, CorruptFileError))
