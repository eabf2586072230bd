"""JSON with levels of segments, as MultiBypass140 has it: `NAME.mp4.json`.

`{"phases": [{"start": 0, "end": 1200, "label_name": "...", "label_id": 0}, ...], "steps": [...]}` with borders in
milliseconds. Within a level, segments may lie inside others (out of body, inside a phase); there the inner one counts,
except in timelines of scripts/detect_actions.py, which have an entry "timeline_version".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from m33d_hf.data.sources.phases.formats.annotation import LEVELS, Annotation, AnnotationOptions
from m33d_hf.data.sources.phases.formats.segments import Segment, annotation_of
from m33d_hf.errors import ConfigError, DataError

_PER_SECOND = 1000.0
_LONGEST = 1e10  # milliseconds: a third of a year
TIMELINE_VERSION = "timeline_version"
_NAMES = ("label_name", "label", "name")


def looks_like_levels(text: str) -> bool:
    """Whether a text may be JSON: whoever begins with a brace is not a table."""
    return text.lstrip().startswith("{")


def read_levels(path: Path, text: str, options: AnnotationOptions) -> list[Annotation]:
    """Read one level of a file.

    Raises:
        ConfigError: a file without the level, but with another one.
        DataError: other JSON, borders that are no times, segments that cross each other or are equal.
    """
    content, entries = _level(path, text, options.level)
    segments = [_segment(path, place, entry) for place, entry in enumerate(entries, 1)]
    kept = [part for part in segments if part.name not in options.ignored]
    own = TIMELINE_VERSION in content  # written by us: overlaps are mistakes, which are told with those of all layouts
    flat, inner = (kept, 0) if own else _inner_wins(path, kept)
    notes = [f"JSON with segments in milliseconds; the level {options.level} is read (--data.options.annotation_level)"]
    if inner:
        notes.append(
            "if segments lie inside others, the inner ones count; to leave out segments by name: "
            "--data.options.ignored_phases"
        )
    gone = [part for part in segments if part.name in options.ignored]  # for the account of what was left out
    return [annotation_of(path, "levels", "seconds", [*flat, *gone], options, 1e-3, None, tuple(notes), entry="entry")]


def _level(path: Path, text: str, level: str) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """The whole content of a file, and the entries of one level."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    known = [name for name in LEVELS if isinstance(content.get(name), list)] if isinstance(content, Mapping) else []
    if not known:
        raise DataError(
            f"{path}: is JSON of an unknown structure; expected a level ({' or '.join(LEVELS)}) with segments, each "
            '{"start": ms, "end": ms, "label_name": name}'
        )
    if level not in known:
        raise ConfigError(
            f"{path}: has no level {level!r}, only {', '.join(known)}; pass --data.options.annotation_level={known[0]}"
        )
    if not content[level]:
        raise DataError(f"{path}: the level {level} holds no segment")
    return content, list(content[level])


def _segment(path: Path, place: int, entry: Any) -> Segment:
    """A segment in seconds.

    Raises:
        DataError: it has no name, or its borders are no times in order.
    """
    where = f"{path}, entry {place}"
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: {str(entry)[:80]!r} is not a segment with start, end and label_name")
    name = next((entry[key] for key in _NAMES if isinstance(entry.get(key), str) and entry[key].strip()), None)
    if name is None:
        raise DataError(f"{where}: has no label_name")
    first, last = entry.get("start"), entry.get("end")
    if not _is_time(first) or not _is_time(last):
        raise DataError(
            f"{where}: start and end are {str(first)[:40]} and {str(last)[:40]}; they must be milliseconds, at least 0"
        )
    start, stop = float(first) / _PER_SECOND, float(last) / _PER_SECOND
    if stop <= start:
        raise DataError(f"{where}: the segment ends at {last}, not after its start {first} (milliseconds)")
    return Segment(start, stop, name.strip(), place)


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _inner_wins(path: Path, segments: Sequence[Segment]) -> tuple[list[Segment], int]:
    """(segments that no longer overlap, how many lay inside another one).

    Raises:
        DataError: two segments that cross, or that are equal but for their names: neither lies inside the other.
    """
    pieces: list[Segment] = []
    open_: list[Segment] = []
    inner, at = 0, 0.0

    def piece(part: Segment, stop: float) -> None:
        if at < stop:
            pieces.append(part._replace(start=at, stop=stop))

    for part in sorted(segments, key=lambda each: (each.start, -each.stop)):
        while open_ and open_[-1].stop <= part.start:
            done = open_.pop()
            piece(done, done.stop)
            at = max(at, done.stop)
        if open_:
            outer = open_[-1]
            equal = (outer.start, outer.stop) == (part.start, part.stop) and outer.name != part.name
            if part.stop > outer.stop or equal:
                raise DataError(
                    f"{path}: the segments of entries {outer.line} ({outer.name}, {outer.start:g} to {outer.stop:g} s) "
                    f"and {part.line} ({part.name}, {part.start:g} to {part.stop:g} s) overlap, and neither lies "
                    "inside the other. Correct the file, or leave out the segments of one name with "
                    f"--data.options.ignored_phases='[{part.name}]'"
                )
            inner += 1
            piece(outer, part.start)
        at = part.start
        open_.append(part)
    while open_:
        done = open_.pop()
        piece(done, done.stop)
        at = max(at, done.stop)
    return pieces, inner
