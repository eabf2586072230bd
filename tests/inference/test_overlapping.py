"""inference/overlapping.py: order, bounds, skipped items, errors; and that reading and computing take place at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from m33d_hf.errors import DataError
from m33d_hf.inference.overlapping import Overlapped, written_behind


def run(count: int, **changes: Any) -> dict[str, list[Any]]:
    """A pass over numbers: reading doubles, computing adds one."""
    seen: dict[str, list[Any]] = {"batches": [], "written": [], "failed": [], "done": []}

    def compute(batch: Sequence[int]) -> list[int]:
        seen["batches"].append(list(batch))
        return [value + 1 for value in batch]

    def write(item: int, read: int, result: int) -> None:
        seen["written"].append((item, read, result))

    parts: dict[str, Any] = {"read": lambda item: 2 * item, "compute": compute, "write": write, **changes}
    read, compute, write = parts.pop("read"), parts.pop("compute"), parts.pop("write")
    settings: dict[str, Any] = {"batch_size": 4, "workers": 3, **parts}
    failed, done = (lambda item, _: seen["failed"].append(item)), seen["done"].append
    Overlapped(read, compute, write, failed=failed, done=done, **settings).run(range(count))
    return seen


def test_every_item_is_read_computed_and_written_once() -> None:
    seen = run(10)
    assert seen["batches"] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert sorted(seen["written"]) == [(n, 2 * n, 2 * n + 1) for n in range(10)]
    assert seen["done"] == list(range(10)) and not seen["failed"]
    assert run(0) == {"batches": [], "written": [], "failed": [], "done": []}


def test_in_order_writes_one_after_the_other_in_order() -> None:
    def slow(item: int, read: int, result: int) -> None:
        time.sleep(0.004 * (item % 3 == 0))
        order.append(item)

    order: list[int] = []
    run(12, write=slow, in_order=True)
    assert order == list(range(12))


def test_in_order_nothing_is_written_after_a_failure() -> None:
    """It would be written where the one that failed belongs."""
    next_one, written = threading.Event(), list[int]()

    def write(item: int, read: int, result: int) -> None:
        if item == 2:
            raise OSError("No space left on device")
        if item > 2:
            next_one.set()
        written.append(item)

    def compute(batch: Sequence[int]) -> list[int]:
        if 2 * 4 in batch:  # while the writer has 2 and 3 before it, and nobody looks at what became of them
            next_one.wait(0.5)
        return list(batch)

    with pytest.raises(OSError, match="No space"):
        run(12, write=write, compute=compute, in_order=True)
    assert written == [0, 1]


def test_one_result_is_written_while_the_next_is_made() -> None:
    """Each side waits for the other one to be under way, which never happens one after the other."""
    making, writing, written = threading.Event(), threading.Event(), list[int]()

    def write(result: int) -> None:
        writing.set()
        assert making.wait(20)
        written.append(result)

    with written_behind(write) as hand_over:
        hand_over(1)
        assert writing.wait(20)
        making.set()
        hand_over(2)
        assert written[:1] == [1], "one at a time"
    assert written == [1, 2]


@pytest.mark.parametrize("error", [DataError("the file ends"), KeyboardInterrupt()])
def test_what_was_handed_over_is_written_however_the_block_ends(error: BaseException) -> None:
    written: list[int] = []
    with pytest.raises(type(error)), written_behind(lambda value: time.sleep(0.05) or written.append(value)) as write:
        write(1)
        raise error
    assert written == [1]


@pytest.mark.parametrize("then", ["another", "an error", "nothing"])
def test_a_failed_writing_is_told_before_what_comes_after_it(then: str) -> None:
    """As if the thread that computes had written it."""
    written: list[int] = []

    def write(result: int) -> None:
        if result == 1:
            raise OSError("No space left on device")
        written.append(result)

    with pytest.raises(OSError, match="No space"), written_behind(write) as hand_over:
        hand_over(1)
        if then == "another":
            hand_over(2)
        if then == "an error":
            raise DataError("the file ends")
    assert not written


def test_what_cannot_be_read_or_written_is_left_out() -> None:
    def read(item: int) -> int:
        if item in (1, 5):
            raise DataError("broken")
        return item

    def write(item: int, read: int, result: int) -> None:
        if item == 7:
            raise DataError("does not fit")

    seen = run(9, read=read, write=write)
    assert sorted(seen["failed"]) == [1, 5, 7]
    assert seen["done"] == [0, 2, 3, 4, 6, 8]
    assert seen["batches"] == [[0, 2, 3, 4], [6, 7, 8]]


@pytest.mark.parametrize("part", ["read", "compute", "write"])
def test_other_errors_stop_the_pass(part: str) -> None:
    def full(*_: Any) -> Any:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        run(50, **{part: full})


def test_little_is_held_at_once() -> None:
    """A thousand items, but only some of them alive between being drawn and being written."""
    drawn = written = most = 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        nonlocal drawn, most
        for number in range(300):
            with lock:
                drawn += 1
                most = max(most, drawn - written)
            yield number

    def write(item: int, read: int, result: int) -> None:
        nonlocal written
        time.sleep(0.0005)
        with lock:
            written += 1

    passing = Overlapped(
        lambda item: item, list, write, batch_size=4, workers=2, failed=lambda *_: None, done=lambda _: None
    )  # fmt: skip
    passing.run(items())
    # Batch and workers ahead, a batch that is computed, a batch and the workers behind, one being drawn.
    assert written == 300 and most <= (4 + 2) + 4 + (4 + 2) + 4 + 1


def test_reading_computing_and_writing_overlap() -> None:
    """Three steps of 20 ms for each of 12 batches take little more than one of them."""
    pause = 0.02

    def waited(*_: Any) -> Any:
        time.sleep(pause)

    def compute(batch: Sequence[int]) -> list[int]:
        time.sleep(pause)
        return list(batch)

    started = time.perf_counter()
    run(12, read=lambda item: waited() or item, compute=compute, write=waited, batch_size=1, workers=2)
    took = time.perf_counter() - started
    assert took < 0.7 * 12 * 3 * pause, took
