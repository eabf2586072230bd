"""Reports how a data set's annotations were read, and checks what depends on the length of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sources.phases.alignment import Timing
from m33d_hf.data.sources.phases.annotations import Annotation
from m33d_hf.errors import ConfigError, nearest_name_hint

_KINDS = {
    "frames": "a line per numbered frame",
    "rows": "a line per frame, without numbers",
    "timestamps": "timestamps",
    "segments": "segments in CSV",
    "levels": "JSON with levels of segments",
    "subtitles": "subtitles",
}
_MINUTES_PER_HOUR = 60.0


def describe_reading(annotations: Sequence[Annotation], ignored: Sequence[str]) -> list[str]:
    """Sentences: formats, encodings, and what files left open or an option left out.

    Raises:
        ConfigError: an ignored name that occurs nowhere.
    """
    if not annotations:
        return []
    kinds = Counter(annotation.kind for annotation in annotations)
    formats = ", ".join(f"{_KINDS[k]} ({n})" for k, n in kinds.items())
    lines = [f"annotations of {plural(len(annotations), 'video')}: {formats}"]
    files: dict[str, list[Path]] = {}
    for annotation in annotations:
        if annotation.encoding != "UTF-8":
            files.setdefault(annotation.encoding, []).append(annotation.path)
    for encoding, paths in files.items():
        count = len(set(paths))
        told = f"{plural(count, 'annotation file')} {agree(count, 'is', 'are')}"
        lines.append(f"{told} {encoding} text, the first: {paths[0].name}")
    lines += dict.fromkeys(note for annotation in annotations for note in annotation.notes)
    return lines + _left_out(annotations, ignored)


def _left_out(annotations: Sequence[Annotation], ignored: Sequence[str]) -> list[str]:
    known = {name for annotation in annotations for name in (*annotation.names, *annotation.dropped)}
    absent = [name for name in ignored if name not in known]
    if absent:
        raise ConfigError(
            f"ignored_phases names {absent[0]!r}, but no annotation contains it.{nearest_name_hint(absent[0], known)} "
            f"Names are {', '.join(sorted(known)[:20])}."
        )
    return [f"ignored by option: {', '.join(ignored)}"] if ignored else []


def check_clock(annotations: Mapping[str, Annotation], timing_of: Callable[[str], Timing | None]) -> None:
    """Refuse times of two parts that fit all videos as minutes and seconds, and as hours and minutes too.

    Args:
        annotations: by key of their video.
        timing_of: frames and rates of a video; None where it cannot be read.

    Raises:
        ConfigError: they do.
    """
    short = {key: each for key, each in annotations.items() if each.hours_fit is not None}
    if any(not each.hours_fit for each in short.values()):
        return
    doubtful: list[tuple[str, Annotation, float]] = []
    for key, annotation in short.items():
        last = float(annotation.starts[-1] if annotation.stops is None else annotation.stops.max())
        timing = timing_of(key)
        if timing is None or timing.fps is None or not last:
            continue
        if last * _MINUTES_PER_HOUR > timing.duration + timing.lost / timing.fps:
            return  # as hours it would be longer than its video, and a data set is written in one way
        doubtful.append((key, annotation, timing.duration))
    if doubtful:
        key, annotation, duration = doubtful[0]
        raise ConfigError(
            f"{annotation.path}: its times of two parts fit {key} ({duration:g} s) both as minutes and seconds and as "
            "hours and minutes; choose with --data.options.clock=mm:ss (or hh:mm)"
        )
