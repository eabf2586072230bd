"""Tables over all inputs, gathered from a small file per input, so that an interruption leaves no half rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV, atomically."""
    return write_text_atomically(path, csv_text(header, rows))


def gather(target: Path, parts: Iterable[Path], header: Sequence[str]) -> Path:
    """One CSV of the rows of all parts that exist, in their order, at constant memory.

    Args:
        target: the file to write, atomically.
        parts: files of `write_rows` with the same header.
        header: theirs.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(header)
            for part in parts:
                if part.is_file():
                    with part.open(encoding="utf-8", newline="") as rows:
                        next(rows, None)
                        stream.writelines(rows)

    return write_atomically(target, write)
