"""A page per video to review its phases: the player, the timeline below, uncertain stretches first.

One HTML file that needs nothing but the video, which it names by a relative path; it works from a disk and from any
server. In the page a segment can be given another phase or border and saved as subtitles, which `phases` reads back.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.evaluation.detection_metrics import segments
from m33d_hf.inference.timeline import Detection
from m33d_hf.visualization.timeline import hatched, phase_colors

# Of two hours one step is a second, shorter than the clips of any recipe.
MOST_STEPS = 7200
_NO_PLAYER = "The video is a folder of frames, which a browser cannot play; the timeline works without it."


def review_target(folder: Path, name: str) -> Path:
    """The page of a video."""
    return folder / f"{name}_review.html"


def write_review(folder: Path, name: str, detection: Detection, truth: np.ndarray | None = None) -> Path:
    """Write the page of one video and return its path.

    Args:
        folder: of the page; the video is looked for from there.
        name: of the video, for file names.
        detection: its phases.
        truth: (length,) phase ids, 255 where nothing is annotated; None where nothing is known.
    """
    path = review_target(folder, name)
    write_text_atomically(path, review_page(detection, name, _source(detection.path, folder), truth))
    return path


def review_page(detection: Detection, name: str, source: str | None, truth: np.ndarray | None = None) -> str:
    """The page as text; `source` is the address of the video relative to the page, None if it cannot be played."""
    template = resources.files("m33d_hf.inference.review").joinpath("page.html").read_text(encoding="utf-8")
    told = json.dumps(_page_data(detection, name, source, truth), ensure_ascii=False, separators=(",", ":"))
    # A name must not be able to end the script element that holds it.
    return template.replace("__DATA__", told.replace("<", "\\u003c"))


def _page_data(detection: Detection, name: str, source: str | None, truth: np.ndarray | None) -> dict[str, Any]:
    times = detection.times
    rows: list[dict[str, Any]] = [
        {"name": "whole video", "main": True, "segments": _spans(detection, detection.frame_phases())},
        {"name": "clip by clip", "segments": _spans(detection, detection.frame_phases(clipwise=True))},
    ]
    for part, (_, _, _, probability) in zip(rows[0]["segments"], detection.segments(), strict=True):
        part.append(round(probability, 4))
    if truth is not None:
        rows.insert(0, {"name": "truth", "truth": True, "segments": _spans(detection, truth)})
    duration = float(detection.length) if times is None else times.duration
    gaps = hatched(detection.lost(), times, detection.lacks)
    colors = [
        "#{:02x}{:02x}{:02x}".format(*(round(255 * float(part)) for part in color))
        for color in phase_colors(len(detection.names))
    ]
    return {
        "title": f"Phases of {name}",
        "file": name,
        "source": source,
        "without": _NO_PLAYER,
        "timed": times is not None,
        "duration": max([duration, *(stop for _, stop in gaps)]),
        "names": detection.names,
        "colors": colors,
        "rows": rows,
        "unreadable": gaps,
        "missing": [f"{lack.reason}." for lack in detection.lacks],
        "probabilities": _steps(detection, max([duration, *(stop for _, stop in gaps)])),
    }


def _spans(detection: Detection, ids: np.ndarray) -> list[list[Any]]:
    """[begin, end, phase] of every run, in seconds (frames where the times are unknown)."""
    times, found = detection.times, []
    for start, stop, phase in segments(ids):
        gaps = [lack.start for lack in detection.lacks if lack.after == stop and lack.start is not None]
        begin, end = (start, stop) if times is None else (float(times.at(start)), float(times.at(stop)))
        found.append([round(begin, 4), round(gaps[0] if gaps else end, 4), phase])
    return found


def _steps(detection: Detection, duration: float) -> list[list[int] | None]:
    """Probabilities in per cent at even steps of time; None where nothing could be read."""
    count = min(detection.length, MOST_STEPS)
    moments = (np.arange(count) + 0.5) * duration / count
    if detection.times is None:
        frames = moments.astype(np.int64)
    else:
        begins = detection.times.at(np.arange(detection.length))
        frames = np.searchsorted(begins, moments, side="right") - 1
    frames = frames.clip(0, detection.length - 1)
    unread = np.zeros(detection.length, bool)
    for start, stop in detection.lost():
        unread[start:stop] = True
    shares = detection.frame_probabilities()[frames]
    shown = np.rint(100 * np.nan_to_num(shares)).astype(np.int64).tolist()
    known = ~unread[frames] & ~np.isnan(shares).any(axis=1)
    return [row if there else None for row, there in zip(shown, known.tolist(), strict=True)]


def _source(video: Path, folder: Path) -> str | None:
    if not video.is_file():
        return None
    try:
        relative = os.path.relpath(video.resolve(), folder.resolve())
    except ValueError:  # another drive
        return video.resolve().as_uri()
    return quote(Path(relative).as_posix())
