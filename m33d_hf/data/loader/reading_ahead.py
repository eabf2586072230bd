"""An iterator that runs in a thread of its own, a bounded number of items ahead of whoever consumes it.

Decoding and resizing frames needs no Python meanwhile, so that a thread suffices to hide it behind the model.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


# How often somebody who waits looks whether to stop, and how long the thread of a source that may hang is waited for
# (seconds).
_GLANCE = 0.1
_GOODBYE = 0.5


@contextmanager
def read_ahead(
    items: Iterable[Item], held: int, patience: float | None = None, stop: threading.Event | None = None
) -> Iterator[Iterator[Item]]:
    """The items, in order, made by a thread while the block works on those before.

    The thread has ended when the block is left, however that happens; what it has made by then is dropped. Only where
    `patience` is given it may still hang in the source: it then ends by itself when that answers, or with the process.

    Args:
        items: what to go through, in the thread: a generator is begun, advanced and closed there.
        held: items that may wait, at least 1; the one being made is not counted.
        patience: seconds to wait for an item; None waits for ever.
        stop: ends the items within a moment when set; only looked at with `patience`.

    Raises:
        TimeoutError: no item came for `patience` seconds.
        whatever `items` raises, its beginning and its closing included, where the block asks for the item that failed.
    """
    ahead = Ahead(items, max(held, 1), patience, stop or threading.Event())
    try:
        # Closed with the block, so that nobody asks for more once the thread is gone.
        with closing(ahead.taken()) as taken:
            yield taken
    finally:
        ahead.stop()


class Ahead(Generic[Item]):
    """The thread, and what it has made; see `read_ahead`.

    Args:
        items, held, patience, stop: see there.
        changed: is told of every item, and held by whoever looks at these; several threads may share one.

    Attributes:
        made: the items that wait.
        ended: there are no more than these.
        error: what `items` raised; None otherwise.
    """

    def __init__(
        self,
        items: Iterable[Item],
        held: int,
        patience: float | None,
        stop: threading.Event,
        changed: threading.Condition | None = None,
    ) -> None:
        self._items, self._held, self._patience, self._stop = items, held, patience, stop
        self.made: deque[Item] = deque()
        self._changed = threading.Condition() if changed is None else changed
        self._wanted, self.ended = True, False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="m33d-read-ahead", daemon=True)
        self._thread.start()

    def taken(self) -> Generator[Item, None, None]:
        """The items, as they are made."""
        while True:
            with self._changed:
                self._await()
                if not self.made or (self._patience is not None and self._stop.is_set()):
                    break
                item = self.made.popleft()
                self._changed.notify_all()
            yield item
        if self.error is not None:
            raise self.error

    def _await(self) -> None:
        """Wait for an item, the end or the wish to stop; with the lock held, which waiting lets go."""
        if self._patience is None:
            self._changed.wait_for(lambda: self.made or self.ended)
            return
        last = time.monotonic() + self._patience
        while not self._changed.wait_for(lambda: self.made or self.ended, _GLANCE):
            if self._stop.is_set():
                return
            if time.monotonic() >= last:
                raise TimeoutError(f"no item for {self._patience:g} s")

    def stop(self) -> None:
        """End the thread, after the item that it is making."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
        self._thread.join(None if self._patience is None else _GOODBYE)

    def _run(self) -> None:
        try:
            items = iter(self._items)
            try:
                for item in items:
                    if not self._keep(item):
                        break
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # raised again where the item is asked for
            self.error = error
        finally:  # whatever raised above: who waits for an item would wait for ever
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _keep(self, item: Item) -> bool:
        """Hand over an item once there is room; False where nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.made) < self._held or not self._wanted)
            if self._wanted:
                self.made.append(item)
                self._changed.notify_all()
            return self._wanted
