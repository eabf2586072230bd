"""Reads files that say which phase a long video is in: per frame, per timestamp, or as segments.

The layout is told by the content; see the modules of `annotation_formats` for each:

* frames, timestamps, rows: `lines`, one moment a line;
* segments: CSV with a start, an end and a phase column;
* levels: JSON with segments of phases and steps in milliseconds;
* subtitles: SubRip and WebVTT, a cue per segment.

Phases are kept as names here, because public loaders assign different numbers to the same names.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from m33d_hf.data.files.text_files import decode_file
from m33d_hf.data.sources.phases.formats.annotation import FORMATS, Annotation, AnnotationOptions
from m33d_hf.data.sources.phases.formats.cells import EXPECTED, Row, cut_rows, plain
from m33d_hf.data.sources.phases.formats.levels import looks_like_levels, read_levels
from m33d_hf.data.sources.phases.formats.lines import lines_kind, names_videos, read_lines, read_rows
from m33d_hf.data.sources.phases.formats.segments import border_of, read_segments
from m33d_hf.data.sources.phases.formats.subtitles import looks_like_subtitles, read_subtitles
from m33d_hf.data.sources.phases.formats.times import parse_seconds
from m33d_hf.errors import DataError

__all__ = [
    "FORMATS",
    "Annotation",
    "AnnotationOptions",
    "detect_format",
    "names_its_videos",
    "parse_seconds",
    "read_annotations",
]


def read_annotations(path: Path, options: AnnotationOptions | None = None) -> list[Annotation]:
    """Read an annotation file: one annotation, or one per video of a table with a video column.

    Empty lines, a byte order mark and CRLF line ends are allowed.

    Raises:
        ConfigError: a file that does not state its unit, or lacks the requested level.
        CorruptFileError: missing, or no text.
        DataError: an empty file, other columns, numbers that fall, negative or malformed times; names file and line.
    """
    options = options or AnnotationOptions()
    text, encoding = decode_file(path)
    found = _read(path, text, options)
    return [dataclasses.replace(annotation, encoding=encoding) for annotation in found]


def _read(path: Path, text: str, options: AnnotationOptions) -> list[Annotation]:
    kind = options.kind
    if kind == "levels" or (kind == "auto" and looks_like_levels(text)):
        return read_levels(path, text, options)
    if kind == "subtitles" or (kind == "auto" and looks_like_subtitles(text)):
        return read_subtitles(path, text, options)
    rows = cut_rows(path, text)
    kind = _kind_of(path, rows) if kind == "auto" else kind
    if kind == "segments":
        return read_segments(path, rows, options)
    if kind == "rows":
        return read_rows(path, [(number, [line]) for number, line in _whole_lines(text)])
    return read_lines(path, rows, kind, options.clock)


def _whole_lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]


def detect_format(path: Path) -> str:
    """Kind of an annotation file, one of `FORMATS`, by its first lines.

    Raises:
        CorruptFileError: missing, or no text.
        DataError: empty, or none of the known layouts.
    """
    text = decode_file(path).text
    if looks_like_levels(text):
        return "levels"
    return "subtitles" if looks_like_subtitles(text) else _kind_of(path, cut_rows(path, text, limit=2))


def names_its_videos(path: Path) -> bool:
    """Whether a file is a table of many videos or of segments, which is read whatever its name is.

    Raises:
        CorruptFileError: missing, or no text.
        DataError: empty, or none of the known layouts.
    """
    text = decode_file(path).text
    if looks_like_levels(text) or looks_like_subtitles(text):
        return False
    rows = cut_rows(path, text, limit=2)
    return _kind_of(path, rows) == "segments" or names_videos(rows)


def _kind_of(path: Path, rows: list[Row]) -> str:
    if any(border_of(plain(cell)) for cell in rows[0][1]):
        return "segments"
    kind = lines_kind(rows[:2])
    if kind is not None:
        return kind
    number, shown = rows[min(1, len(rows) - 1)]
    raise DataError(
        f"{path}, line {number}: {' | '.join(shown)!r} is neither a frame number nor a timestamp with a phase, and "
        f"line {rows[0][0]} is not a header of segments. {EXPECTED}"
    )
