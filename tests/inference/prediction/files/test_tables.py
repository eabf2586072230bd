"""inference/prediction/files/tables.py: one table of all parts, whoever wrote them."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from m33d_hf.inference import folder_lock
from m33d_hf.inference.prediction.files import tables
from m33d_hf.inference.prediction.files.tables import gather, write_rows
from m33d_hf.training.processes.guards import SYSTEM_HAS_LOCKS

HEADER = ("input", "value")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_parts_of_all_calls_are_gathered_in_natural_order(tmp_path: Path) -> None:
    for name in ("p10", "p9", "sub/p1", "x.png"):
        write_rows(tmp_path / f"parts/{name}.csv", HEADER, [(name, 1), (name, 'two\n"lines"')])
    (tmp_path / "parts/.tmp-0123-p1.csv").write_text("half a")
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    found = rows_of(tmp_path / "all.csv")
    assert found[0] == list(HEADER) and found[2] == ["p9", 'two\n"lines"']
    assert [row[0] for row in found[1::2]] == ["p9", "p10", "sub/p1", "x.png"]
    gather(tmp_path / "none.csv", tmp_path / "nothing", HEADER)
    assert rows_of(tmp_path / "none.csv") == [list(HEADER)]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What to do within the next writes of a table, before it takes its place; done in the order of writing."""
    real, waiting = tables.write_atomically, []

    def slow(path: Path, writer: Callable[[Path], object]) -> Path:
        def write(temporary: Path) -> None:
            writer(temporary)
            waiting.pop(0)()  # IndexError for a write too many

        return real(path, write)

    monkeypatch.setattr(tables, "write_atomically", slow)
    return waiting


@pytest.mark.skipif(not SYSTEM_HAS_LOCKS, reason="no locks on this system")
def test_the_last_rank_leaves_the_parts_of_all(tmp_path: Path, writes: list[Callable[[], object]]) -> None:
    """Another rank writes its part, and wants to gather, while this one does: it waits."""
    write_rows(tmp_path / "parts/a.csv", HEADER, [("a", 1)])
    order: list[str] = []

    def other_rank() -> None:
        gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
        order.append("other")

    other = threading.Thread(target=other_rank, daemon=True)

    def overtaken() -> None:
        write_rows(tmp_path / "parts/b.csv", HEADER, [("b", 2)])
        other.start()
        other.join(0.2)  # it waits
        order.append("this")

    # The first writes again, for b, and so does the other, for c of a third rank, which has the last word on d later.
    writes += [overtaken, lambda: None]
    writes += [lambda name=name: write_rows(tmp_path / f"parts/{name}.csv", HEADER, [(name, 3)]) for name in "cd"]
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    other.join(60)
    assert order == ["this", "other"] and not writes
    assert rows_of(tmp_path / "all.csv")[1:] == [["a", "1"], ["b", "2"], ["c", "3"]]


def test_no_rows_of_a_node_that_does_not_wait_are_lost(
    tmp_path: Path, writes: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: the lock of a folder is given to a process of each node, and tells each that it is alone."""
    monkeypatch.setattr(tables, "alone", lambda _: nullcontext(True))
    write_rows(tmp_path / "parts/a.csv", HEADER, [("a", 1)])

    def other_node() -> None:
        write_rows(tmp_path / "parts/b.csv", HEADER, [("b", 2)])
        gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)

    writes += [other_node, lambda: None, lambda: None]  # of this node, of the other, and of this one again
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    assert not writes and rows_of(tmp_path / "all.csv")[1:] == [["a", "1"], ["b", "2"]]


def test_without_locks_a_table_is_written_twice_at_most(
    tmp_path: Path, writes: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "lock_alone", lambda *_, **__: True)
    write_rows(tmp_path / "parts/a.csv", HEADER, [("a", 1)])
    for name in "bc":
        writes.append(lambda name=name: write_rows(tmp_path / f"parts/{name}.csv", HEADER, [(name, 0)]))
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    assert not writes and rows_of(tmp_path / "all.csv")[1:] == [["a", "1"], ["b", "0"]]
    writes.append(lambda: None)
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    assert rows_of(tmp_path / "all.csv")[1:] == [["a", "1"], ["b", "0"], ["c", "0"]]
