"""Following a source: its frames go into a feed until it ends, stalls, breaks or is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field

from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.errors import ConfigError, UnreachableError
from m33d_hf.inference.live.arrivals import Arrival, Arrivals
from m33d_hf.inference.live.case import LiveCase
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.live.clock import is_number
from m33d_hf.inference.live.feed import LiveFeed
from m33d_hf.inference.live.junction import Junction
from m33d_hf.inference.live.readers import HELD

_SPARE = 5.0


@dataclass(frozen=True)
class Ended:
    """How a feed ended.

    Attributes:
        kind: "finished" (no more frames), "closed" (by the sender, and nothing tells whether all was sent), "stalled"
            (none came for a while), "broken" or "stopped" (by the caller).
        reason: for people.
        frames: taken altogether.
        seconds: from the first frame to the end of the last one.
        cameras: of several cameras of a case, camera -> (kind, reason); `frames` and `seconds` are then those of the
            leading one.
    """

    kind: str
    reason: str
    frames: int
    seconds: float
    cameras: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Following(Iterator[ClipPrediction]):
    """The clips of a source, each when it ends; then those that its end cuts short, marked so.

    Args:
        clips: makes them; an event that is set ends them.
        feed: that the frames go to, or the case; None for a recording.

    Attributes:
        ended: how it ended; None before that.
    """

    def __init__(
        self,
        clips: Callable[[threading.Event], Generator[ClipPrediction, None, Ended]],
        feed: LiveFeed | LiveCase | None = None,
    ) -> None:
        self._stop = threading.Event()
        self._clips, self._feed = clips(self._stop), feed
        self.ended: Ended | None = None

    def __next__(self) -> ClipPrediction:
        try:
            return next(self._clips)
        except StopIteration as end:
            self.ended = end.value or self.ended
            raise StopIteration from None

    def stop(self) -> None:
        """Take no more frames: what was seen is told, then the clips end. May be called by a signal or a thread."""
        self._stop.set()

    def close(self) -> None:
        """End at once, without the clips that are cut short."""
        self._clips.close()
        if self.ended is None:
            frames, seconds = (0, 0.0) if self._feed is None else (self._feed.length, self._feed.seconds)
            self.ended = Ended("stopped", "closed by the caller", frames, seconds)


def check_patience(seconds: float, name: str = "timeout") -> None:
    """Refuse a time to wait that is none.

    Raises:
        ConfigError: it is not above 0.
    """
    if not is_number(seconds) or seconds <= 0:
        raise ConfigError(f"{name} is {seconds!r}; it must be above 0 seconds without a frame")


def patience_with(source: Arrivals, seconds: float) -> float:
    """Seconds that a source may be silent: a file is waited for, then for its first picture, then for more."""
    return 3 * seconds + _SPARE if source.notices_itself else seconds


def follow(
    feed: LiveFeed, source: Arrivals, patience: float, stop: threading.Event
) -> Generator[ClipPrediction, None, Ended]:
    """Push the frames of a source into a feed.

    A frame that the feed cannot take (see `LiveFeed.problem`) is left out, and told with the next clip. Where that goes
    on for `patience` seconds the source counts as broken.

    Args:
        feed: a new one, or one that is taken up again.
        source: begun by this.
        patience: seconds without a frame after which it counts as stalled.
        stop: ends it when set.

    Raises:
        UnreachableError: no frame ever came.
        whatever the source raises before its first frame.
    """
    joined = _Joined(feed, source)
    patience = patience_with(source, patience)
    try:
        kind, reason = yield from _taken(joined, source, patience, stop)
    except TimeoutError:
        kind, reason = "stalled", f"no frame came for {patience:g} s"
    if not joined.feed.length and kind != "stopped":
        raise UnreachableError(f"{source.name}: there is no frame to follow; {reason}")
    yield from joined.feed.finish()
    return Ended(kind, reason, joined.feed.length, joined.feed.seconds)


def _taken(
    joined: _Joined, source: Arrivals, patience: float, stop: threading.Event
) -> Generator[ClipPrediction, None, tuple[str, str]]:
    """The clips that end; returns kind and reason of the end, unless that is a TimeoutError."""
    good = time.monotonic()
    with read_ahead(source, HELD, patience, stop) as arrivals:
        try:
            for arrival in arrivals:
                clip, problem = joined.take(arrival)
                if clip is not None:
                    yield clip
                now = time.monotonic()
                good = good if problem else now
                if problem and now - good >= patience:
                    return "broken", f"for {patience:g} s no frame could be used: {problem}"
                if stop.is_set():
                    break
        finally:
            source.stop()
    return ("stopped", "stopped by the caller") if stop.is_set() else source.ended


class _Joined:
    """A feed and the source that goes on with it.

    Attributes:
        feed: what the frames go to: towards the end of a growing file a twin, because its last frames may be torn, and
            come again when the file is read further.
    """

    def __init__(self, feed: LiveFeed, source: Arrivals) -> None:
        self.feed, self._parted = feed, False
        self._junction = Junction(feed, source)

    def take(self, arrival: Arrival) -> tuple[ClipPrediction | None, str]:
        """(the clip that the frame ends, why it was left out instead)."""
        self._junction.begin()
        if arrival.last and not self._parted:
            self.feed, self._parted = self.feed.twin(), True
            self._junction.feed = self.feed
        found = self._junction.usable(arrival, self.feed.wants_picture)
        if isinstance(found, str):
            return None, found
        return self.feed.push(*found, arrival.arrived), ""
