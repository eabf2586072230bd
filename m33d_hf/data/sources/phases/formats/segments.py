"""Segments in CSV: a header naming a start, an end and a phase column, and perhaps a video column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m33d_hf.data.sources.phases.formats.annotation import MILLISECONDS, Annotation, AnnotationOptions, coded
from m33d_hf.data.sources.phases.formats.cells import (
    EXPECTED,
    PHASE_COLUMNS,
    VIDEO_COLUMNS,
    Row,
    checked_cells,
    one_of,
    plain,
)
from m33d_hf.data.sources.phases.formats.times import TimeColumn, is_time, read_times
from m33d_hf.errors import ConfigError, DataError

_BORDER = re.compile(r"(start|begin|onset|end|stop|offset)(?:_(\w+))?|(\w+?)_(start|begin|onset|end|stop|offset)")
_STARTS = ("start", "begin", "onset")
_UNIT_WORDS = {"frame": "frames", "frames": "frames"}
_UNIT_WORDS |= dict.fromkeys(("time", "timestamp", "seconds", "second", "secs", "sec", "s", "time_s"), "seconds")
_UNIT_WORDS |= dict.fromkeys(("milliseconds", "millisecond", "millis", "msec", "msecs", "ms", "time_ms"), MILLISECONDS)
_WHOLE = re.compile(r"(-?[0-9]{1,15})(?:\.0*)?")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")


class Segment(NamedTuple):
    """One segment as written: borders in the file's unit, the phase, and where it stands."""

    start: float
    stop: float
    name: str
    line: int


def border_of(column: str) -> tuple[str, str | None] | None:
    """("start" or "stop", unit or None) of a column that holds a border of segments, None of any other."""
    match = _BORDER.fullmatch(column)
    if match is None:
        return None
    which, unit = match[1] or match[4], match[2] or match[3]
    if unit is not None and unit not in _UNIT_WORDS:
        return None
    return ("start" if which in _STARTS else "stop"), _UNIT_WORDS[unit] if unit else None


def read_segments(path: Path, rows: Sequence[Row], options: AnnotationOptions) -> list[Annotation]:
    """Read a table of segments: one annotation, or one per video of its video column.

    Raises:
        ConfigError: columns that leave their unit open.
        DataError: other columns, negative or malformed borders, segments that end before they start; names the line.
    """
    header = [plain(cell) for cell in rows[0][1]]
    columns, unit = _segment_columns(path, rows[0], header, rows[1:2], options.unit)
    lines = _readable(rows[1:], header, columns["phase"])
    if not lines:
        raise DataError(f"{path}: has a header and no line below it")
    body = list(checked_cells(path, lines, len(header), columns["phase"]))
    borders = [(number, cells[columns[name]]) for name in ("start", "stop") for number, cells in body]
    values = _borders(path, borders, unit, options.clock)
    unit = "seconds" if unit == MILLISECONDS else unit
    videos: dict[str | None, list[Segment]] = {}
    for place, (number, cells) in enumerate(body):
        start, stop = float(values.seconds[place]), float(values.seconds[place + len(body)])
        if stop < start or (stop == start and unit == "seconds"):
            raise DataError(
                f"{path}, line {number}: the segment ends at {stop:g}, not after its start {start:g} ({unit})"
            )
        video = cells[columns["video"]] if "video" in columns else None
        if video == "":
            raise DataError(f"{path}, line {number}: the video column is empty")
        videos.setdefault(video, []).append(Segment(start, stop, cells[columns["phase"]], number))
    step = 60.0 if options.clock == "hh:mm" and values.notes else 10.0**-values.decimals
    return [
        annotation_of(path, "segments", unit, found, options, step, video, values.notes, values.hours_fit)
        for video, found in videos.items()
    ]


def _readable(rows: Sequence[Row], header: Sequence[str], phase: int) -> list[Row]:
    """Without the lines in which our timelines say what could not be read: a column `readable` of 0, and no phase."""
    if "readable" not in header:
        return list(rows)
    place = header.index("readable")
    return [
        (number, cells)
        for number, cells in rows
        if len(cells) != len(header) or cells[place].strip() != "0" or cells[phase].strip()
    ]


def annotation_of(
    path: Path,
    kind: str,
    unit: str,
    segments: Sequence[Segment],
    options: AnnotationOptions,
    resolution: float,
    video: str | None = None,
    notes: tuple[str, ...] = (),
    hours_fit: bool | None = None,
    entry: str = "line",
) -> Annotation:
    """Segments in order of time, without those whose names are ignored."""
    kept = sorted((part for part in segments if part.name not in options.ignored), key=lambda part: part[:2])
    dropped = {part.name for part in segments} - {part.name for part in kept}
    names, codes = coded([part.name for part in kept])
    return Annotation(
        path,
        kind,
        unit,
        names,
        codes,
        np.array([part.start for part in kept], dtype=np.float64),
        np.array([part.line for part in kept], dtype=np.int32),
        np.array([part.stop for part in kept], dtype=np.float64),
        resolution,
        video,
        dropped=tuple(sorted(dropped)),
        notes=notes,
        hours_fit=hours_fit,
        entry=entry,
    )


def _segment_columns(
    path: Path, first: Row, header: list[str], sample: Sequence[Row], unit: str | None
) -> tuple[dict[str, int], str]:
    """Positions of start, stop, phase and perhaps video, and the unit of the borders."""
    columns: dict[str, int] = {}
    units: dict[str, str | None] = {}
    for position, name in enumerate(header):
        border = border_of(name)
        if border is None:
            continue
        # Both a frame and a time column: the stated unit chooses, frames where nothing is stated.
        if border[0] in columns and border[1] != (unit or "frames"):
            continue
        columns[border[0]], units[border[0]] = position, border[1]
    for name, known in (("phase", PHASE_COLUMNS), ("video", VIDEO_COLUMNS)):
        position_of = one_of(header, known)
        if position_of is not None:
            columns[name] = position_of
    missing = [name for name in ("start", "stop", "phase") if name not in columns]
    if missing:
        names = {"start": "start", "stop": "end or stop", "phase": "phase, label or activity"}
        raise DataError(
            f"{path}, line {first[0]}: there is no column called {' / '.join(names[name] for name in missing)}; the "
            f"columns are {', '.join(first[1])}. {EXPECTED}"
        )
    if units["start"] != units["stop"]:
        raise DataError(
            f"{path}, line {first[0]}: the start and end columns have different units: {', '.join(first[1])}"
        )
    if units["start"] and unit and units["start"] != unit:
        raise ConfigError(
            f"{path}: the columns say {units['start']}, but segment_unit says {unit}; leave the option out"
        )
    return columns, _settled_unit(path, first, units["start"] or unit, sample, columns["start"])


def _settled_unit(path: Path, first: Row, stated: str | None, sample: Sequence[Row], start: int) -> str:
    """The stated unit, or seconds where the first border has colons."""
    shown = sample[0][1][start].strip() if sample and len(sample[0][1]) > start else ""
    if stated is not None:
        return stated
    if is_time(shown) or ":" in shown:
        return "seconds"
    raise ConfigError(
        f"{path}: it is unknown whether {', '.join(first[1])} are frames, seconds or milliseconds (the first is "
        f"{shown!r}). Name the columns start_frame and end_frame, start_seconds and end_seconds, or start_ms and "
        "end_ms, or pass --data.options.segment_unit=frames (or seconds, or milliseconds)"
    )


def _borders(path: Path, cells: Sequence[tuple[int, str]], unit: str, clock: str) -> TimeColumn:
    """Frame numbers, or seconds of whatever unit the file has."""
    if unit == "frames":
        return _frames(path, cells)
    if unit == MILLISECONDS:
        return _milliseconds(path, cells)
    return read_times(path, cells, clock, what="seconds or HH:MM:SS.xx")


def _milliseconds(path: Path, cells: Sequence[tuple[int, str]]) -> TimeColumn:
    for number, text in cells:
        if _NUMBER.fullmatch(text) is None:
            raise DataError(f"{path}, line {number}: {text!r} is not a number of milliseconds")
        if text.startswith("-"):
            raise DataError(f"{path}, line {number}: {text!r} is negative; the video starts at 0")
    return TimeColumn(np.array([float(text) for _, text in cells], dtype=np.float64) / 1000, 3)


def _frames(path: Path, cells: Sequence[tuple[int, str]]) -> TimeColumn:
    values = []
    for number, text in cells:
        match = _WHOLE.fullmatch(text)
        if match is None:
            raise DataError(f"{path}, line {number}: {text!r} is not a frame number (an integer)")
        if int(match[1]) < 0:
            raise DataError(f"{path}, line {number}: {text!r} is negative; the video starts at 0")
        values.append(float(match[1]))
    return TimeColumn(np.array(values, dtype=np.float64), 0)
