"""Tables over all inputs, gathered from a small file per input, so that an interruption leaves no half rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import TEMPORARY, write_atomically, write_text_atomically
from m33d_hf.data.sources.frames.pairing import natural_key
from m33d_hf.inference.folder_lock import alone

_SUFFIX = ".csv"


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV, atomically."""
    return write_text_atomically(path, csv_text(header, rows))


def gather(target: Path, folder: Path, header: Sequence[str]) -> Path:
    """One CSV of the rows of all parts below a folder, in natural order of their names, at constant memory.

    Parts of earlier calls belong to it, and those of other ranks, which may gather at the same time. They write it one
    after the other, each once its own parts are complete, so that the last one leaves all of them. Ranks of other
    nodes may not wait, though a lock of this node cannot tell (NFS, Lustre): the table is written a second time, and no
    third, if a part has come, or has changed, meanwhile.

    Args:
        target: the file to write, atomically; outside of the folder, in one that exists.
        folder: of files of `write_rows` with the same header.
        header: theirs.
    """
    with alone(target.parent):
        parts = _parts(folder)
        write_atomically(target, partial(_write_gathered, parts, header))
        if (later := _parts(folder)) != parts:
            write_atomically(target, partial(_write_gathered, later, header))
    return target


def _parts(folder: Path) -> dict[Path, int]:
    """Tables below a folder -> when they were written."""
    found: dict[str, tuple[Path, int]] = {}
    for path in folder.rglob(f"*{_SUFFIX}"):
        if path.name.startswith(TEMPORARY):
            continue
        try:
            name = path.relative_to(folder).as_posix().removesuffix(_SUFFIX)
            found[name] = path, path.stat().st_mtime_ns
        except FileNotFoundError:  # replaced this very moment
            continue
    return dict(found[name] for name in sorted(found, key=natural_key))


def _write_gathered(parts: Iterable[Path], header: Sequence[str], temporary: Path) -> None:
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerow(header)
        for part in parts:
            with part.open(encoding="utf-8", newline="") as rows:
                next(rows, None)
                stream.writelines(rows)
