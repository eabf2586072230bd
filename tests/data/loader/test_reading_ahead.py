"""Reading ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from m33d_hf.data.loader.reading_ahead import read_ahead


def test_the_items_in_order() -> None:
    with read_ahead(range(1000), 3) as items:
        assert list(items) == list(range(1000))


def test_at_most_so_many_wait() -> None:
    made: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with read_ahead(counted(), 2) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [0, 1, 2, 3]  # one taken, two waiting, one that finds no room


def test_reading_and_working_overlap() -> None:
    """Each side waits for the other one to be under way, which never happens one after the other."""
    reading, working = threading.Event(), threading.Event()

    def made() -> Iterator[int]:
        yield 0
        reading.set()
        assert working.wait(20)
        yield 1

    with read_ahead(made(), 1) as items:
        assert next(items) == 0
        working.set()
        assert reading.wait(20)
        assert list(items) == [1]


def test_an_error_comes_where_its_item_would() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with read_ahead(broken(), 4) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="gone"):
            next(items)


class Unruly:
    """Two numbers; raises where it is told to."""

    def __init__(self, where: str) -> None:
        self.where, self.numbers = where, iter((1, 2))

    def __iter__(self) -> Unruly:
        if self.where == "beginning":
            raise OSError("gone")
        return self

    def __next__(self) -> int:
        return next(self.numbers)

    def close(self) -> None:
        if self.where == "closing":
            raise OSError("gone")


@pytest.mark.parametrize(("where", "before"), [("beginning", []), ("closing", [1, 2])])
def test_an_error_of_beginning_or_closing_is_told_too(where: str, before: list[int]) -> None:
    """Patience, so that a thread that ends without a word fails this test instead of halting it."""
    found: list[int] = []
    with read_ahead(Unruly(where), 4, patience=20) as items, pytest.raises(OSError, match="gone"):
        found.extend(items)
    assert found == before


@pytest.mark.parametrize("leaves", ["break", "error"])
def test_leaving_ends_the_thread_and_closes_the_generator(leaves: str) -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with suppress(ValueError), read_ahead(endless(), 2) as items:
        next(items)
        if leaves == "error":
            raise ValueError
    assert closed == ["m33d-read-ahead"]  # where it ran
    assert not [thread for thread in threading.enumerate() if thread.name == "m33d-read-ahead"]


def test_who_waits_too_long_is_told_and_who_wants_to_stop_can() -> None:
    release, stop = threading.Event(), threading.Event()

    def hanging() -> Iterator[int]:
        yield 1
        release.wait(20)

    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no item for 0\.3 s"), read_ahead(hanging(), 1, patience=0.3) as items:
        assert next(items) == 1
        next(items)
    assert 0.3 <= time.monotonic() - begun < 15
    with read_ahead(hanging(), 1, patience=20, stop=stop) as items:
        assert next(items) == 1
        threading.Timer(0.2, stop.set).start()
        assert list(items) == []
    assert time.monotonic() - begun < 18
    release.set()
