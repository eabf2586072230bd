"""The videos of the last evaluation of phase detection as a table of the report, the worst first."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from m33d_hf.evaluation.detection_results import VIDEOS
from m33d_hf.training.showing.story import number_text
from m33d_hf.training.tasks.detection.task import EVALUATION, HEADLINE
from m33d_hf.visualization.document import Table

MOST_VIDEOS = 60
_COUNTS = ("frames", "clips", "unreadable_clips")
# Of the headline figures those that a single video has.
_FIGURES = tuple(name for name in HEADLINE if name != "map")
_COMPARED = "clipwise/frame_accuracy"


def videos_table(folder: Path) -> Table | None:
    """A row per video from `evaluation/videos.csv` of a run's output folder; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    path = folder / EVALUATION / VIDEOS
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        videos = list(csv.DictReader(file))
    videos.sort(key=lambda row: _value(row, HEADLINE[0], math.inf))
    header = ["video", *_COUNTS, *_FIGURES, _COMPARED]
    rows = [
        [row["video"], *(row[name] for name in _COUNTS),
         *(number_text(_value(row, name, math.nan)) for name in (*_FIGURES, _COMPARED))]
        for row in videos[:MOST_VIDEOS]
    ]  # fmt: skip
    cut = f"The {MOST_VIDEOS} of {len(videos)} with the lowest frame accuracy" if len(videos) > MOST_VIDEOS else ""
    note = f"{cut or 'Lowest frame accuracy first'}; all figures are in {EVALUATION}/{VIDEOS}."
    return Table(header, rows, note=note)


def _value(row: dict[str, str], name: str, missing: float) -> float:
    return float(row[name]) if row.get(name) else missing
