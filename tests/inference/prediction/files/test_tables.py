"""inference/prediction/files/tables.py: one table of all parts, whoever wrote them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from m33d_hf.inference.prediction.files import tables
from m33d_hf.inference.prediction.files.tables import gather, write_rows

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


def test_the_last_rank_leaves_the_parts_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank writes its part, and the table, while this one gathers: it does not put its older table there."""
    write_rows(tmp_path / "parts/a.csv", HEADER, [("a", 1)])
    real, overtaken = tables.write_atomically, []

    def slow(path: Path, writer: Callable[[Path], object]) -> Path:
        def write(temporary: Path) -> None:
            writer(temporary)
            if not overtaken:
                overtaken.append(True)
                write_rows(tmp_path / "parts/b.csv", HEADER, [("b", 2)])
                gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)

        return real(path, write)

    monkeypatch.setattr(tables, "write_atomically", slow)
    gather(tmp_path / "all.csv", tmp_path / "parts", HEADER)
    assert overtaken and rows_of(tmp_path / "all.csv")[1:] == [["a", "1"], ["b", "2"]]
