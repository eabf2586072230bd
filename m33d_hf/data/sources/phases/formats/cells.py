"""Lines of a table cut into cells, and columns found by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from m33d_hf.data.plural import plural
from m33d_hf.errors import DataError

EXPECTED = (
    "Known layouts are: 'Frame<TAB>Phase' lines with integer frame numbers, 'HH:MM:SS.xx<TAB>Phase' lines, one phase "
    "per line for every frame, CSV with a header such as start_frame,end_frame,phase or "
    "start_seconds,end_seconds,phase, tables of all videos with a video column, JSON with levels of segments in "
    "milliseconds, and subtitles (SRT, VTT)."
)
FRAME_COLUMNS = ("frame", "frames", "frame_id", "frame_number", "frame_index", "frame_nr", "index")
TIME_COLUMNS = ("time", "timestamp", "time_stamp", "stamp", "seconds", "time_s", "time_seconds", "second", "sec")
PHASE_COLUMNS = ("phase", "phase_name", "phase_id", "label", "activity", "action", "class", "name", "step")
VIDEO_COLUMNS = (
    *("video", "video_id", "videoid", "video_name", "video_file", "file", "filename", "file_name", "path"),
    *("sequence", "sequence_id", "recording", "recording_id", "case", "case_id"),
)

Row = tuple[int, list[str]]
"""(line number counted from one, its cells)."""


def cut_rows(path: Path, text: str, limit: int | None = None) -> list[Row]:
    """The lines that are not empty, cut into cells at tabs, else at semicolons or commas, else at blanks.

    Blanks around cells stay: a film has a line for each of its hundred thousand frames, so that every step counts.

    Raises:
        DataError: an empty file, or quotation marks that do not match.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    if not lines:
        raise DataError(f"{path}: is empty. {EXPECTED}")
    lines = lines[:limit]
    delimiter = next((mark for mark in "\t;," if all(mark in line for _, line in lines[:2])), None)
    if delimiter is None:
        return [(number, line.split()) for number, line in lines]
    if any('"' in line for _, line in lines):
        return [(number, _unquoted(path, number, line, delimiter)) for number, line in lines]
    return [(number, line.split(delimiter)) for number, line in lines]


def _unquoted(path: Path, number: int, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: quotation marks that do not match ({error}): {line!r}") from error


def plain(cell: str) -> str:
    """`Start (s)` -> `start_s`."""
    return re.sub(r"[^0-9a-z]+", "_", cell.strip().lower()).strip("_")


def one_of(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first of `names` in the header."""
    return next((header.index(name) for name in names if name in header), None)


def checked_cells(path: Path, rows: Sequence[Row], columns: int, phase: int) -> Iterator[Row]:
    """Rows with the right number of cells and a phase, blanks around cells removed.

    Raises:
        DataError: a row of another length, or without a phase.
    """
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) != columns:
            text = " | ".join(cells)
            raise DataError(f"{path}, line {number}: {plural(len(cells), 'column')}, expected {columns}: {text!r}")
        if not cells[phase]:
            raise DataError(f"{path}, line {number}: the phase is missing; leave the line out if no phase is annotated")
        yield number, cells
