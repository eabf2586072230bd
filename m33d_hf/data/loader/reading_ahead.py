"""An iterator that runs in a thread of its own, a bounded number of items ahead of whoever consumes it.

Decoding and resizing frames needs no Python meanwhile, so that a thread suffices to hide it behind the model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


@contextmanager
def read_ahead(items: Iterable[Item], held: int) -> Iterator[Iterator[Item]]:
    """The items, in order, made by a thread while the block works on those before.

    The thread has ended when the block is left, however that happens; what it has made by then is dropped.

    Args:
        items: what to go through, in the thread: a generator is begun, advanced and closed there.
        held: items that may wait, at least 1; the one being made is not counted.

    Raises:
        whatever `items` raises, where the block asks for the item that failed.
    """
    ahead = _Ahead(items, max(held, 1))
    try:
        # Closed with the block, so that nobody asks for more once the thread is gone.
        with closing(ahead.taken()) as taken:
            yield taken
    finally:
        ahead.stop()


class _Ahead(Generic[Item]):
    """The thread, and what it has made."""

    def __init__(self, items: Iterable[Item], held: int) -> None:
        self._items, self._held = items, held
        self._made: deque[Item] = deque()
        self._changed = threading.Condition()
        self._wanted, self._ended = True, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="m33d-read-ahead", daemon=True)
        self._thread.start()

    def taken(self) -> Generator[Item, None, None]:
        """The items, as they are made."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    break
                item = self._made.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread, after the item that it is making."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        items = iter(self._items)
        try:
            for item in items:
                if not self._keep(item):
                    break
        except BaseException as error:  # raised again where the item is asked for
            self._error = error
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _keep(self, item: Item) -> bool:
        """Hand over an item once there is room; False where nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._made) < self._held or not self._wanted)
            if self._wanted:
                self._made.append(item)
                self._changed.notify_all()
            return self._wanted
