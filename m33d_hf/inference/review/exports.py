"""Timelines as subtitles (SRT, WebVTT) and JSON, which video players and editors show, and `phases` reads back.

Times are rounded to milliseconds, finer than half a frame of any usual recording, so that what is read back is the
phase of every frame as it was. Stretches that could not be read are gaps. The JSON has the layout of MultiBypass140's
annotations (milliseconds, `label_name`) with more fields; its `timeline_version` says that segments may not overlap.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.sources.phases.formats.subtitles import plain_text
from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.inference.timeline import Detection

TIMELINE_VERSION = 1
EXPORTS = ("srt", "vtt", "json")


class Part(NamedTuple):
    """A segment: milliseconds from the first frame, frames [first, stop), the phase and its mean probability."""

    begin: int
    end: int
    first: int
    stop: int
    phase: int
    probability: float


def timed_parts(detection: Detection) -> list[Part]:
    """The segments of a detection, in the order of time.

    Raises:
        ConfigError: the times of its frames are unknown.
    """
    times = detection.times
    if times is None:
        raise ConfigError(
            f"{detection.path}: subtitles and timelines in JSON need times, but the frame rate is unknown; pass --fps."
        )
    numbers = {name: number for number, name in enumerate(detection.names)}
    parts = []
    for first, stop, name, probability in detection.segments():
        # Where frames are missing behind a segment, it does not end when the next frame begins.
        gaps = [lack.start for lack in detection.lacks if lack.after == stop and lack.start is not None]
        begin, end = float(times.at(first)), gaps[0] if gaps else float(times.at(stop))
        parts.append(Part(round(1000 * begin), round(1000 * end), first, stop, numbers[name], probability))
    return parts


def export_targets(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Files that `write_exports` writes; their names are those of annotations of the video `name`."""
    return [folder / f"{name}_segments.{kind}" for kind in formats]


def check_cues(names: Sequence[str], formats: Sequence[str]) -> None:
    """Refuse, before hours go into detection, phases whose names the subtitles among `formats` cannot hold.

    Raises:
        LabelError: naming the phase.
    """
    for name in names if {"srt", "vtt"} & set(formats) else ():
        _cue(name)


def write_exports(folder: Path, name: str, detection: Detection, formats: Sequence[str]) -> list[Path]:
    """Write a timeline in some of `EXPORTS`; returns the paths.

    Raises:
        ConfigError: the times of the frames are unknown.
        LabelError: a phase whose name subtitles cannot hold.
    """
    if not formats:
        return []
    parts = timed_parts(detection)
    texts = {"srt": subtitles, "vtt": web_subtitles}
    written = export_targets(folder, name, formats)
    for kind, path in zip(formats, written, strict=True):
        text = texts[kind](parts, detection.names) if kind in texts else _json(name, detection, parts)
        write_text_atomically(path, text)
    return written


def subtitles(parts: Sequence[Part], names: Sequence[str]) -> str:
    """SubRip: one numbered cue per segment, whose text is the phase."""
    cues = []
    for number, part in enumerate(parts, 1):
        cues.append(f"{number}\n{_stamp(part.begin, ',')} --> {_stamp(part.end, ',')}\n{_cue(names[part.phase])}\n")
    return "\n".join(cues)


def web_subtitles(parts: Sequence[Part], names: Sequence[str]) -> str:
    """WebVTT, likewise; the mean probability of each phase is a comment before its cue."""
    cues = ["WEBVTT\n"]
    for part in parts:
        text = html.escape(_cue(names[part.phase]), quote=False)
        note = f"NOTE mean probability {part.probability:.3f}"
        cues.append(f"{note}\n\n{_stamp(part.begin, '.')} --> {_stamp(part.end, '.')}\n{text}\n")
    return "\n".join(cues)


def _json(name: str, detection: Detection, parts: Sequence[Part]) -> str:
    entries: list[dict[str, Any]] = [
        {
            "start": part.begin,
            "end": part.end,
            "label_name": detection.names[part.phase],
            "label_id": part.phase,
            "first_frame": part.first,
            "last_frame": part.stop - 1,
            "mean_probability": round(part.probability, 6),
        }
        for part in parts
    ]
    unreadable = [{"first_frame": start, "last_frame": stop - 1} for start, stop in detection.lost()]
    told = {
        "timeline_version": TIMELINE_VERSION,
        "video": name,
        "frames": detection.length,
        "fps": detection.fps,
        "classes": detection.names,
        "phases": entries,
        "unreadable": unreadable,
        "missing": [lack.reason for lack in detection.lacks],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _stamp(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{point}{rest:03d}"


def _cue(name: str) -> str:
    if "\n" in name or "-->" in name or plain_text(name) != name or not name:
        raise LabelError(f"the phase {name!r} cannot be the text of a subtitle; export json instead.")
    return name
