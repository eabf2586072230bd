"""Layouts with one moment a line: numbered frames, timestamps, and bare phases, one for every frame.

* frames: `Frame<TAB>Phase`, then a line per frame or per k-th frame; also headless and with commas (HeiChole), counted
  in seconds (AutoLaparo), or with a video column;
* timestamps: a header, then `HH:MM:SS.xx<TAB>Phase`; a phase holds until the next stamp;
* rows: one phase a line, the first line for the first frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m33d_hf.data.plural import plural
from m33d_hf.data.sources.phases.formats.annotation import Annotation, coded
from m33d_hf.data.sources.phases.formats.cells import (
    EXPECTED,
    FRAME_COLUMNS,
    PHASE_COLUMNS,
    TIME_COLUMNS,
    VIDEO_COLUMNS,
    Row,
    checked_cells,
    one_of,
    plain,
)
from m33d_hf.data.sources.phases.formats.times import TimeColumn, is_time, parse_seconds, read_times
from m33d_hf.errors import DataError

_WHOLE = re.compile(r"-?[0-9]{1,15}")


def lines_kind(rows: Sequence[Row]) -> str | None:
    """ "frames", "timestamps" or "rows" of a table by its first two lines; None where it is none of them."""
    header = [plain(cell) for cell in rows[0][1]]
    moment, titled = _moment_column(header), _is_header(rows[0][1])
    # The first line may be a header of any wording: the second one is data in any case.
    for _, cells in (rows[min(1, len(rows) - 1)], rows[0]):
        at = moment if titled and moment is not None and moment < len(cells) else 0
        cell = cells[at].strip()
        if is_time(cell):
            return "timestamps"
        timed = titled and moment is not None and header[moment] in TIME_COLUMNS
        if len(cells) > 1 and timed and re.fullmatch(r"-?[0-9]{1,15}(?:[.,][0-9]{1,15})?", cell):
            return "timestamps"
        if len(cells) > 1 and _WHOLE.fullmatch(cell):
            return "frames"
    single = all(len(cells) == 1 for _, cells in rows)
    if single and len(rows) > 1 and (_WHOLE.fullmatch(rows[1][1][0].strip()) or header[0] in PHASE_COLUMNS):
        return "rows"
    return None


def names_videos(rows: Sequence[Row]) -> bool:
    """Whether a table has a header with a column of videos, beside one of moments and one of phases."""
    header = [plain(cell) for cell in rows[0][1]]
    return None not in (one_of(header, VIDEO_COLUMNS), _moment_column(header), one_of(header, PHASE_COLUMNS))


def read_lines(path: Path, rows: Sequence[Row], kind: str, clock: str = "auto") -> list[Annotation]:
    """Read a table of frames or timestamps: one annotation, or one per video of its video column.

    Raises:
        DataError: other columns, numbers that fall, negative or malformed moments; names file and line.
    """
    header = [plain(cell) for cell in rows[0][1]]
    titled = _is_header(rows[0][1])
    moment, phase = _columns_of(path, rows[0], header, kind, titled)
    body = rows[1:] if titled else rows
    if not body:
        raise DataError(f"{path}: has a header and no line below it")
    video = one_of(header, VIDEO_COLUMNS) if titled and names_videos(rows) else None
    seconds = titled and header[moment] in TIME_COLUMNS  # only there a plain number is a time
    columns = _Columns(len(header), moment, phase, kind, clock, seconds)
    if video is None:
        return [_read_one(path, body, columns, None)]
    parts: dict[str, list[Row]] = {}
    for number, cells in checked_cells(path, body, len(header), phase):
        if not cells[video]:
            raise DataError(f"{path}, line {number}: the video column is empty")
        parts.setdefault(cells[video], []).append((number, cells))
    return [_read_one(path, part, columns, name) for name, part in parts.items()]


def read_rows(path: Path, rows: Sequence[Row]) -> list[Annotation]:
    """Read one phase per line, the first one for the first frame; a header is allowed.

    Raises:
        DataError: more than one column.
    """
    header = [plain(cell) for cell in rows[0][1]]
    body = rows[1:] if header[0] in PHASE_COLUMNS else rows
    if not body:
        raise DataError(f"{path}: has a header and no line below it")
    names = [cells[0] for _, cells in checked_cells(path, body, 1, 0)]
    known, codes = coded(names)
    lines = np.array([number for number, _ in body], dtype=np.int32)
    starts = np.arange(len(names), dtype=np.float64)
    return [Annotation(path, "rows", "frames", known, codes, starts, lines)]


def _is_header(cells: Sequence[str]) -> bool:
    return not is_time(cells[0]) and parse_seconds(cells[0].replace(",", ".", 1)) is None


def _moment_column(header: Sequence[str]) -> int | None:
    frames = one_of(header, FRAME_COLUMNS)
    return one_of(header, TIME_COLUMNS) if frames is None else frames


def _columns_of(path: Path, first: Row, header: list[str], kind: str, titled: bool) -> tuple[int, int]:
    """Positions of the moment and of the phase.

    Raises:
        DataError: they are not known.
    """
    moment = one_of(header, FRAME_COLUMNS if kind == "frames" else TIME_COLUMNS)
    if moment is None and titled:
        moment = _moment_column(header)
    phase = one_of(header, PHASE_COLUMNS)
    if (not titled or None in (moment, phase)) and len(header) == 2:
        return 0, 1
    if not titled:
        raise DataError(
            f"{path}, line {first[0]}: {plural(len(header), 'column')} without a header, so the phase column is "
            "unknown. A "
            f"header is optional only for two columns, time and phase. {EXPECTED}"
        )
    if moment is None or phase is None or len(header) < 2:
        raise DataError(
            f"{path}, line {first[0]}: the columns are {', '.join(first[1])}; a column for the "
            f"{'frame' if kind == 'frames' else 'timestamp'} and one called phase are required. {EXPECTED}"
        )
    return moment, phase


class _Columns(NamedTuple):
    """How many columns there are, which of them count, and how moments are written."""

    width: int
    moment: int
    phase: int
    kind: str
    clock: str
    seconds: bool


def _read_one(path: Path, rows: Sequence[Row], columns: _Columns, video: str | None) -> Annotation:
    kind = columns.kind
    times, names = _columns(path, rows, columns)
    known, codes = coded(names)
    lines = np.array([number for number, _ in rows], dtype=np.int32)
    annotation = Annotation(
        path,
        kind,
        "frames" if kind == "frames" else "seconds",
        known,
        codes,
        times.seconds,
        lines,
        resolution=60.0 if columns.clock == "hh:mm" and times.notes else 10.0**-times.decimals,
        video=video,
        notes=times.notes,
        hours_fit=times.hours_fit,
    )
    _refuse_falling(annotation)
    return annotation


def _columns(path: Path, rows: Sequence[Row], columns: _Columns) -> tuple[TimeColumn, list[str]]:
    """(moments, phases) of all lines; the moments of frames are their numbers."""
    width, moment, phase, kind, clock, seconds = columns
    if kind == "frames" and {len(cells) for _, cells in rows} == {width}:
        texts, names = [cells[moment] for _, cells in rows], [cells[phase] for _, cells in rows]
        # Nothing to find fault with, which is the rule: all lines at once.
        plain_numbers = all(text.isascii() and text.isdecimal() and len(text) < 16 for text in texts)
        if plain_numbers and all(name and name == name.strip() for name in set(names)):
            return TimeColumn(np.array(list(map(int, texts)), dtype=np.float64), 0), names
    checked = list(checked_cells(path, rows, width, phase))
    cells = [(number, row[moment]) for number, row in checked]
    names = [row[phase] for _, row in checked]
    if kind == "frames":
        return TimeColumn(np.array([_frame(path, *cell) for cell in cells], dtype=np.float64), 0), names
    what = "a timestamp HH:MM:SS.xx (minutes and seconds below 60)"
    return read_times(path, cells, clock, seconds, what), names


def _frame(path: Path, number: int, text: str) -> float:
    if not _WHOLE.fullmatch(text):
        raise DataError(f"{path}, line {number}: {text!r} is not a frame number (an integer)")
    if int(text) < 0:
        raise DataError(f"{path}, line {number}: {text!r} is negative; the video starts at 0")
    return float(text)


def _refuse_falling(annotation: Annotation) -> None:
    steps = np.diff(annotation.starts)
    wrong = steps < 0
    # Coarse stamps may repeat while the phase stays; frame numbers never do.
    wrong |= (steps == 0) & (True if annotation.kind == "frames" else np.diff(annotation.codes) != 0)
    if not wrong.any():
        return
    at = int(np.argmax(wrong))
    before, after = annotation.starts[at], annotation.starts[at + 1]
    shown = f"{before:g} and then {after:g}" + ("" if annotation.unit == "frames" else " seconds")
    several = " A table of several videos names them in a column 'video'." if after <= annotation.starts[0] else ""
    raise DataError(
        f"{annotation.path}, line {annotation.lines[at + 1]}: {annotation.unit} must increase from line to line, but "
        f"here they are {shown}. Sort the lines and remove duplicates.{several}"
    )
