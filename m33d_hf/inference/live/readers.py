"""The frames of several sources, each read by a thread of its own, a bounded number ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from m33d_hf.data.loader.reading_ahead import Ahead
from m33d_hf.inference.live.arrivals import Arrival, Arrivals

# Decoded frames of a source that wait. What comes beyond that waits with the sender, or in the file.
HELD = 16


class Readers:
    """The threads, and the frames that they have read; see `reading`."""

    def __init__(self, sources: Mapping[str, Arrivals], patience: float, stop: threading.Event) -> None:
        self._changed = threading.Condition()
        self._sources = dict(sources)
        self._ahead = {
            name: Ahead[Arrival](source, HELD, patience, stop, self._changed) for name, source in sources.items()
        }
        self._looked: list[tuple[str, int, bool]] = []

    def heads(self) -> dict[str, Arrival]:
        """The next frame of each source that has one; it stays."""
        with self._changed:
            self._looked = self._state()
            return {name: ahead.made[0] for name, ahead in self._ahead.items() if ahead.made}

    def take(self, name: str) -> Arrival:
        """The next frame of a source that has one."""
        with self._changed:
            arrival = self._ahead[name].made.popleft()
            self._changed.notify_all()
            return arrival

    def over(self) -> dict[str, BaseException | None]:
        """The sources all of whose frames were taken, and what they raised."""
        with self._changed:
            return {name: ahead.error for name, ahead in self._ahead.items() if ahead.ended and not ahead.made}

    def wait(self, seconds: float) -> None:
        """Until something is different from what `heads` told, but no longer than that."""
        with self._changed:
            self._changed.wait_for(lambda: self._state() != self._looked, seconds)

    def drop(self, name: str) -> None:
        """Read no more of a source, and forget it."""
        self._sources[name].stop()
        self._ahead.pop(name).stop()

    def _state(self) -> list[tuple[str, int, bool]]:
        return [(name, len(ahead.made), ahead.ended) for name, ahead in self._ahead.items()]

    def stop(self) -> None:
        """Read no more."""
        for name in list(self._ahead):
            self._sources[name].stop()
        for ahead in self._ahead.values():
            ahead.stop()


@contextmanager
def reading(sources: Mapping[str, Arrivals], patience: float, stop: threading.Event) -> Iterator[Readers]:
    """Read sources while the block works on their frames; a thread that hangs in its source ends with the process.

    Args:
        sources: by name.
        patience: seconds that a source may hang.
        stop: set by whoever wants no more frames.
    """
    readers = Readers(sources, patience, stop)
    try:
        yield readers
    finally:
        readers.stop()
