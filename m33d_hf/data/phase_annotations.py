"""Reads files that say which phase a long video is in: per frame, per time stamp, or as segments.

Three layouts are known, each told by its content:

* frames: `Frame<TAB>Phase`, then a line per frame or per k-th frame (0, 25, 50, ...);
* timestamps: a header, then `HH:MM:SS.xx<TAB>Phase`; a phase holds until the next stamp;
* segments: CSV with a header naming a start, an end and a phase column, and perhaps a video column.

Phases stay names here: the numbers that public loaders give to the same names differ.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m33d_hf.data.text_files import read_text
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint

FORMATS = ("frames", "timestamps", "segments")
UNITS = ("frames", "seconds")
_FRAME_COLUMNS = ("frame", "frames", "frame_id", "frame_number", "frame_index", "index")
_TIME_COLUMNS = ("time", "timestamp", "time_stamp", "stamp")
_PHASE_COLUMNS = ("phase", "phase_name", "label", "activity", "action", "class", "name", "step")
_VIDEO_COLUMNS = ("video", "video_id", "video_name", "file", "filename", "file_name", "path", "sequence")
_BORDER = re.compile(r"(start|begin|onset|end|stop|offset)(?:_(\w+))?|(\w+?)_(start|begin|onset|end|stop|offset)")
_STARTS = ("start", "begin", "onset")
_UNIT_WORDS = {"frame": "frames", "frames": "frames"}
_UNIT_WORDS |= dict.fromkeys(("time", "timestamp", "seconds", "second", "secs", "sec", "s", "time_s"), "seconds")
_STAMP = re.compile(r"(-?)(\d+):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?")
_EXPECTED = (
    "Known are: 'Frame<TAB>Phase' lines with whole frame numbers, 'HH:MM:SS.xx<TAB>Phase' lines, or CSV with a header "
    "such as start_frame,end_frame,phase or start_seconds,end_seconds,phase (and perhaps video)."
)

Row = tuple[int, list[str]]
"""(line number counted from one, its cells)."""


@dataclass(frozen=True)
class Annotation:
    """What one file says about one video, in the file's own units.

    Attributes:
        path: the file.
        kind: "frames", "timestamps" or "segments".
        unit: of `starts`, `stops` and `resolution`: "frames" (numbered at the label rate) or "seconds".
        names: phases in order of first appearance.
        codes: (n,) int32 the phase of each line, an index into `names`.
        starts: (n,) float64, never falling; segments are sorted by it.
        lines: (n,) int32 line numbers counted from one.
        stops: (n,) float64 as written, for segments; None otherwise.
        resolution: the smallest step that the file's numbers can tell: 1 frame, or 1, 0.1, 0.01 ... seconds.
        video: value of the video column, None without.
    """

    path: Path
    kind: str
    unit: str
    names: tuple[str, ...]
    codes: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    lines: np.ndarray = field(repr=False)
    stops: np.ndarray | None = field(default=None, repr=False)
    resolution: float = 1.0
    video: str | None = None

    def first_line(self, name: str) -> int:
        """Line on which `name`, one of `names`, first occurs."""
        return int(self.lines[np.argmax(self.codes == self.names.index(name))])


def read_annotations(path: Path, kind: str = "auto", unit: str | None = None) -> list[Annotation]:
    """Read an annotation file: one annotation, or one per video of a segment file with a video column.

    Empty lines, a byte order mark and CRLF line ends are no matter.

    Args:
        kind: one of `FORMATS`, or "auto" to tell by the content.
        unit: "frames" or "seconds" of segments whose columns' names do not say it; None where they do.

    Raises:
        ConfigError: an unknown kind or unit, or a segment file that leaves its unit open.
        CorruptFileError: missing, or not UTF-8 text.
        DataError: an empty file, other columns, numbers that fall, negative or malformed times; names file and line.
    """
    if kind not in ("auto", *FORMATS):
        raise ConfigError(
            f"annotation_format is {kind!r}; it is auto, {', '.join(FORMATS)}.{nearest_name_hint(kind, FORMATS)}"
        )
    if unit not in (None, *UNITS):
        raise ConfigError(f"segment_unit is {unit!r}; it is {' or '.join(UNITS)}.{nearest_name_hint(str(unit), UNITS)}")
    rows = _rows(path)
    kind = _kind_of(path, rows) if kind == "auto" else kind
    if kind == "segments":
        return _read_segments(path, rows, unit)
    return [_read_lines(path, rows, kind)]


def detect_format(path: Path) -> str:
    """Kind of an annotation file, one of `FORMATS`, by its first lines.

    Raises:
        CorruptFileError: missing, or not UTF-8 text.
        DataError: empty, or none of the known layouts.
    """
    return _kind_of(path, _rows(path, limit=2))


def parse_seconds(text: str) -> tuple[float, int] | None:
    """(seconds, decimals written) of `HH:MM:SS.xx` or of a plain number; None where it is neither.

    A negative time is returned as such; minutes and seconds of 60 and more are no time.
    """
    stamp = _STAMP.fullmatch(text.strip())
    if stamp:
        sign, hours, minutes, seconds, decimals = stamp.groups()
        if int(minutes) > 59 or int(seconds) > 59:
            return None
        value = int(hours) * 3600 + int(minutes) * 60 + float(f"{seconds}.{decimals or 0}")
        return (-value if sign else value), len(decimals or "")
    plain = re.fullmatch(r"-?\d+(?:\.(\d+))?", text.strip())
    return (float(text), len(plain[1] or "")) if plain else None


def _rows(path: Path, limit: int | None = None) -> list[Row]:
    """The lines that are not empty, cut into cells at tabs, else at semicolons or commas, else at blanks.

    Blanks around cells stay: a film has a line for each of its hundred thousand frames, so that every step counts.
    """
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    if not lines:
        raise DataError(f"{path}: is empty. {_EXPECTED}")
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


def _kind_of(path: Path, rows: Sequence[Row]) -> str:
    header = [_plain(cell) for cell in rows[0][1]]
    if any(_border(cell) for cell in header):
        return "segments"
    # The first line may be a header of any wording: the second one is data in any case.
    number, shown = rows[min(1, len(rows) - 1)]
    for cells in (shown, rows[0][1]):
        if _STAMP.fullmatch(cells[0].strip()):
            return "timestamps"
        if re.fullmatch(r"-?\d+", cells[0].strip()):
            return "frames"
    raise DataError(
        f"{path}, line {number}: {' | '.join(shown)!r} is neither a frame number nor a time stamp with a phase, and "
        f"line {rows[0][0]} is no header of segments. {_EXPECTED}"
    )


def _plain(cell: str) -> str:
    """`Start (s)` -> `start_s`."""
    return re.sub(r"[^0-9a-z]+", "_", cell.strip().lower()).strip("_")


def _border(column: str) -> tuple[str, str | None] | None:
    """("start" or "stop", unit or None) of a column that holds a border of segments, None of any other."""
    match = _BORDER.fullmatch(column)
    if match is None:
        return None
    which, unit = match[1] or match[4], match[2] or match[3]
    if unit is not None and unit not in _UNIT_WORDS:
        return None
    return ("start" if which in _STARTS else "stop"), _UNIT_WORDS[unit] if unit else None


def _one_of(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first of `names` in the header."""
    return next((header.index(name) for name in names if name in header), None)


def _coded(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(codes, dtype=np.int32)


def _checked_cells(path: Path, rows: Sequence[Row], columns: int, phase: int) -> Iterator[Row]:
    """Rows with the right number of cells and a phase, blanks around cells removed."""
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) != columns:
            text = " | ".join(cells)
            raise DataError(f"{path}, line {number}: {len(cells)} columns where {columns} are expected: {text!r}")
        if not cells[phase]:
            raise DataError(f"{path}, line {number}: no phase is named; leave the line out if none is annotated")
        yield number, cells


def _read_lines(path: Path, rows: Sequence[Row], kind: str) -> Annotation:
    """The layouts with one moment a line."""
    header = [_plain(cell) for cell in rows[0][1]]
    moment = _one_of(header, _FRAME_COLUMNS if kind == "frames" else _TIME_COLUMNS)
    phase = _one_of(header, _PHASE_COLUMNS)
    titled = parse_seconds(rows[0][1][0]) is None
    if not titled or (len(header) == 2 and None in (moment, phase)):
        moment, phase = 0, 1
    if moment is None or phase is None or len(header) < 2:
        raise DataError(
            f"{path}, line {rows[0][0]}: the columns are {', '.join(rows[0][1])}; a column for the "
            f"{'frame' if kind == 'frames' else 'time stamp'} and one called phase are needed. {_EXPECTED}"
        )
    body = rows[1:] if titled else rows
    if not body:
        raise DataError(f"{path}: has a header and no line below it")
    starts, names, decimals = _columns(path, body, len(header), moment, phase, kind)
    known, codes = _coded(names)
    lines = np.array([number for number, _ in body], dtype=np.int32)
    unit = "frames" if kind == "frames" else "seconds"
    annotation = Annotation(path, kind, unit, known, codes, starts, lines, resolution=10.0**-decimals)
    _refuse_falling(annotation)
    return annotation


def _columns(
    path: Path, rows: Sequence[Row], columns: int, moment: int, phase: int, kind: str
) -> tuple[np.ndarray, list[str], int]:
    """(moments, phases, decimals of the moments) of all lines."""
    if kind == "frames" and {len(cells) for _, cells in rows} == {columns}:
        texts, names = [cells[moment] for _, cells in rows], [cells[phase] for _, cells in rows]
        # Nothing to find fault with, which is the rule: all lines at once.
        if all(map(str.isdecimal, texts)) and all(name and name == name.strip() for name in set(names)):
            return np.array(list(map(int, texts)), dtype=np.float64), names, 0
    starts, names, decimals = [], [], 0
    for number, cells in _checked_cells(path, rows, columns, phase):
        value, digits = _moment(path, number, cells[moment], kind)
        decimals = max(decimals, digits)
        starts.append(value)
        names.append(cells[phase])
    return np.array(starts, dtype=np.float64), names, decimals


def _moment(path: Path, number: int, text: str, kind: str) -> tuple[float, int]:
    """(value, decimals) of a frame number or time stamp."""
    if kind == "frames":
        parsed = (float(text), 0) if re.fullmatch(r"-?\d+", text) else None
        what = "a frame number (a whole number)"
    else:
        parsed = parse_seconds(text) if _STAMP.fullmatch(text) else None
        what = "a time stamp HH:MM:SS.xx (minutes and seconds below 60)"
    if parsed is None:
        raise DataError(f"{path}, line {number}: {text!r} is not {what}")
    if parsed[0] < 0:
        raise DataError(f"{path}, line {number}: {text!r} is negative; the video starts at 0")
    return parsed


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
    raise DataError(
        f"{annotation.path}, line {annotation.lines[at + 1]}: {annotation.unit} must increase from line to line, here "
        f"they are {shown}. Sort the lines, and remove what is there twice."
    )


def _read_segments(path: Path, rows: Sequence[Row], unit: str | None) -> list[Annotation]:
    header = [_plain(cell) for cell in rows[0][1]]
    columns, unit = _segment_columns(path, rows[0], header, rows[1:2], unit)
    if len(rows) < 2:
        raise DataError(f"{path}: has a header and no line below it")
    videos: dict[str | None, list[tuple[float, float, str, int]]] = {}
    decimals = 0
    for number, cells in _checked_cells(path, rows[1:], len(header), columns["phase"]):
        start, digits = _border_value(path, number, cells[columns["start"]], unit)
        stop, more = _border_value(path, number, cells[columns["stop"]], unit)
        if stop < start or (stop == start and unit == "seconds"):
            raise DataError(
                f"{path}, line {number}: the segment ends at {stop:g}, not after its start {start:g} ({unit})"
            )
        decimals = max(decimals, digits, more)
        video = cells[columns["video"]] if "video" in columns else None
        if video == "":
            raise DataError(f"{path}, line {number}: the video column is empty")
        videos.setdefault(video, []).append((start, stop, cells[columns["phase"]], number))
    result = []
    for video, found in videos.items():
        found.sort(key=lambda segment: segment[:2])
        names, codes = _coded([segment[2] for segment in found])
        starts, stops = (np.array([segment[i] for segment in found], dtype=np.float64) for i in (0, 1))
        lines = np.array([segment[3] for segment in found], dtype=np.int32)
        result.append(Annotation(path, "segments", unit, names, codes, starts, lines, stops, 10.0**-decimals, video))
    return result


def _segment_columns(
    path: Path, first: Row, header: list[str], sample: Sequence[Row], unit: str | None
) -> tuple[dict[str, int], str]:
    """Positions of start, stop, phase and perhaps video, and the unit of the borders."""
    columns: dict[str, int] = {}
    units: dict[str, str | None] = {}
    for position, name in enumerate(header):
        border = _border(name)
        if border is None:
            continue
        # Both a frame and a time column: the stated unit chooses, frames where nothing is stated.
        if border[0] in columns and border[1] != (unit or "frames"):
            continue
        columns[border[0]], units[border[0]] = position, border[1]
    for name, known in (("phase", _PHASE_COLUMNS), ("video", _VIDEO_COLUMNS)):
        position_of = _one_of(header, known)
        if position_of is not None:
            columns[name] = position_of
    missing = [name for name in ("start", "stop", "phase") if name not in columns]
    if missing:
        names = {"start": "start", "stop": "end or stop", "phase": "phase, label or activity"}
        raise DataError(
            f"{path}, line {first[0]}: no column is called {' / '.join(names[name] for name in missing)}; the columns "
            f"are {', '.join(first[1])}. {_EXPECTED}"
        )
    if units["start"] != units["stop"]:
        raise DataError(f"{path}, line {first[0]}: the start and end columns name two units: {', '.join(first[1])}")
    if units["start"] and unit and units["start"] != unit:
        raise ConfigError(f"{path}: the columns say {units['start']}, segment_unit says {unit}; leave the option out")
    clock = any(":" in cells[columns["start"]] for _, cells in sample if len(cells) > columns["start"])
    settled = units["start"] or unit or ("seconds" if clock else None)
    if settled is None:
        raise ConfigError(
            f"{path}: nothing says whether {', '.join(first[1])} count frames or seconds. Call the columns start_frame "
            "and end_frame or start_seconds and end_seconds, or pass --data.options.segment_unit=frames (or seconds)"
        )
    return columns, settled


def _border_value(path: Path, number: int, text: str, unit: str) -> tuple[float, int]:
    parsed = parse_seconds(text)
    whole = parsed is not None and math.isclose(parsed[0] % 1.0, 0.0, abs_tol=1e-9) and ":" not in text
    if parsed is None or (unit == "frames" and not whole):
        what = "a frame number (a whole number)" if unit == "frames" else "seconds or HH:MM:SS.xx"
        raise DataError(f"{path}, line {number}: {text!r} is not {what}")
    if parsed[0] < 0:
        raise DataError(f"{path}, line {number}: {text!r} is negative; the video starts at 0")
    return (parsed[0], 0) if unit == "frames" else parsed
