"""Reading, computing and writing at the same time: threads read ahead and write behind the one that computes.

Decoding, PNG compression and disks need no Python meanwhile, so threads suffice. What is held at once is bounded,
however long the list is. Order is that of the items throughout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from m33d_hf.errors import DataError

Item = TypeVar("Item")
Read = TypeVar("Read")
Result = TypeVar("Result")


class Overlapped(Generic[Item, Read, Result]):
    """One pass: read each item, compute batches of them, write each result.

    Args:
        read: called in reading threads.
        compute: a batch of what was read to as many results; called in the thread of `run`.
        write: called in writing threads, with the item, what was read and the result.
        batch_size: items that are computed together.
        workers: reading threads, and writing threads.
        failed: called, in the thread of `run`, with an item whose reading or writing raised a DataError; the
            others go on.
        done: called there with an item whose result is written.
        in_order: results are written one after the other, in the order of the items; none after one whose writing
            raised anything but a DataError.
    """

    def __init__(
        self,
        read: Callable[[Item], Read],
        compute: Callable[[Sequence[Read]], Sequence[Result]],
        write: Callable[[Item, Read, Result], object],
        *,
        batch_size: int,
        workers: int,
        failed: Callable[[Item, DataError], object],
        done: Callable[[Item], object],
        in_order: bool = False,
    ) -> None:
        self.read, self.compute, self.write, self.failed, self.done = read, compute, write, failed, done
        self.batch_size, self.workers, self.writers = batch_size, workers, 1 if in_order else workers
        self._in_order, self._broken = in_order, False
        self._writing: deque[tuple[Item, Future[object]]] = deque()

    def run(self, items: Iterable[Item]) -> None:
        """All items.

        Raises:
            whatever reading (but for a DataError), computing, writing, or the iterable itself raises; what is under way
                in other threads is finished first, and nothing new begun.
        """
        with _threads(self.workers) as readers, _threads(self.writers) as writers:
            batch: list[tuple[Item, Read]] = []
            for item, read in self._ahead(items, readers):
                batch.append((item, read))
                if len(batch) == self.batch_size:
                    self._batch(batch, writers)
                    batch.clear()
            if batch:
                self._batch(batch, writers)
            while self._writing:
                self._written()

    def _ahead(self, items: Iterable[Item], readers: ThreadPoolExecutor) -> Iterator[tuple[Item, Read]]:
        """(item, what was read), with the next ones under way."""
        waiting: deque[tuple[Item, Future[Read]]] = deque()
        remaining = iter(items)
        more = True
        while more or waiting:
            while more and len(waiting) < self.batch_size + self.workers:
                try:
                    item = next(remaining)
                except StopIteration:
                    more = False
                    break
                waiting.append((item, readers.submit(self.read, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                read = future.result()
            except DataError as error:
                self.failed(item, error)
                continue
            yield item, read

    def _batch(self, batch: Sequence[tuple[Item, Read]], writers: ThreadPoolExecutor) -> None:
        results = self.compute([read for _, read in batch])
        for (item, read), result in zip(batch, results, strict=True):
            self._writing.append((item, writers.submit(self._write, item, read, result)))
        while self._writing and (self._writing[0][1].done() or len(self._writing) > self.batch_size + self.writers):
            self._written()

    def _write(self, item: Item, read: Read, result: Result) -> None:
        if self._in_order and self._broken:
            return  # nobody will look at this one: `run` comes to the one that failed first, and raises
        try:
            self.write(item, read, result)
        except DataError:
            raise
        except BaseException:
            self._broken = True
            raise

    def _written(self) -> None:
        item, future = self._writing.popleft()
        try:
            future.result()
        except DataError as error:
            self.failed(item, error)
            return
        self.done(item)


@contextmanager
def written_behind(write: Callable[[Result], object]) -> Iterator[Callable[[Result], None]]:
    """A function that hands a result to a thread, which writes it while the block makes the next one.

    It waits for the one before and raises what its writing raised, so that nothing is written after a failure, and that
    no more than one waits. When the block is left, the last one is written, be it by an error or by ^C.
    """
    under_way: deque[Future[object]] = deque()

    def settle() -> None:
        while under_way:
            under_way.popleft().result()

    def hand_over(result: Result) -> None:
        settle()
        under_way.append(writer.submit(write, result))

    with ThreadPoolExecutor(1) as writer:  # which writes what it was given, however the block ends
        try:
            yield hand_over
        except Exception:
            settle()  # an error of what came before comes first
            raise
        settle()


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing new once the block has raised."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
