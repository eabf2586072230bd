"""Results for each video of a detection data set: scores, tables and frame predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.detection_metrics import frame_accuracy, frame_scores, mean_average_precision
from m33d_hf.evaluation.frame_votes import frame_phases, frame_probabilities
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack

MODELS = ("temporal", "clipwise")
VIDEOS = "videos.csv"
DIGITS = 6
"""Decimals of the shares in the tables of an evaluation."""


@dataclass
class VideoResult:
    """Predictions for one video and its annotation.

    Attributes:
        row: its number in the data set.
        key, fps: of the video; the rate is an average.
        temporal, clipwise: (S, L) float32 probabilities per clip, of the temporal model and of the clip classifier.
        labels: (S,) ids of the clips, 255 = not annotated.
        valid: (S,) bool, False for clips that could not be read.
        starts, stops: (S,) frames [start, stop) of each clip.
        phases: (T,) uint8 ids of the frames, 255 = not annotated.
        times: presentation time of each frame, None if unknown.
        lacks: what is missing from the recording.
    """

    row: int
    key: str
    fps: float | None
    temporal: np.ndarray
    clipwise: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    phases: np.ndarray
    times: FrameTimes | None = None
    lacks: tuple[Lack, ...] = ()

    def unread(self) -> list[tuple[int, int]]:
        """Runs [start, stop) of frames that no readable clip covers."""
        covered = np.zeros(len(self.phases) + 2, bool)
        for start, stop in zip(self.starts[self.valid], self.stops[self.valid]):
            covered[start + 1 : stop + 1] = True
        covered[[0, -1]] = True
        borders = np.flatnonzero(np.diff(covered.astype(np.int8)))
        return [(int(start), int(stop)) for start, stop in borders.reshape(-1, 2)]

    def frames(self, model: str) -> np.ndarray:
        """(T,) uint8 ids that "temporal" or "clipwise" predicts for the frames."""
        return frame_phases(getattr(self, model), self.starts, self.stops, self.valid, len(self.phases))

    def probabilities(self, model: str) -> np.ndarray:
        """(T, L) float64 probabilities of the frames, see `frame_votes`; NaN where no clip could be read."""
        return frame_probabilities(getattr(self, model), self.starts, self.stops, self.valid, len(self.phases))


def detection_metrics(results: Sequence[VideoResult], names: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Scores of the temporal model, and of the clip classifier under "clipwise/...", all shares in [0, 1].

    Average precision is given twice, each the macro mean over classes, all videos pooled: "clip_map" ranks the
    readable, annotated clips by their softmax, "frame_map" the annotated frames by the mean over the clips that cover
    them (see `frame_votes`). "map", by which the best model is chosen, and "ap/<class>" are those over clips. Clip
    accuracy is over the same clips; frame accuracy, edit and F1 judge the frames.

    Args:
        results: of all videos.
        names: classes in id order.

    Returns:
        ({"map", "clip_map", "frame_map", "clip_accuracy", "frame_accuracy", "edit", "f1_10", "f1_25", "f1_50",
        "ap/<class>", "clipwise/..."}, names of the classes that no clip is annotated with, which have no "ap/..."
        and leave the mean).
    """
    labels = np.concatenate([result.labels[result.valid] for result in results])
    absent = [name for number, name in enumerate(names) if not (labels == number).any()]
    metrics: dict[str, float] = {}
    for model, prefix in zip(MODELS, ("", "clipwise/")):
        scores = np.concatenate([getattr(result, model)[result.valid] for result in results])
        mean, per_class = mean_average_precision(scores, labels)
        found = {
            "map": mean,
            "clip_map": mean,
            "frame_map": _frame_precision(results, model),
            "clip_accuracy": frame_accuracy(scores.argmax(axis=1), labels),
            **frame_scores([(result.frames(model), result.phases) for result in results]),
        }
        found |= {f"ap/{name}": value for name, value in zip(names, per_class, strict=True) if name not in absent}
        metrics.update({f"{prefix}{name}": value for name, value in found.items()})
    return metrics, absent


def _frame_precision(results: Sequence[VideoResult], model: str) -> float:
    """Mean average precision over frames; videos without a readable clip have no scores and are left out."""
    read = [result for result in results if result.valid.any()]
    if not read:
        return math.nan
    scores = np.concatenate([result.probabilities(model) for result in read])
    return mean_average_precision(scores, np.concatenate([result.phases for result in read]))[0]


def video_rows(results: Sequence[VideoResult]) -> list[dict[str, Any]]:
    """One row per video: sizes, what is missing, and the scores of both models; scores are empty if nothing is
    annotated."""
    rows = []
    for result in results:
        annotated = result.valid & (result.labels != IGNORE_INDEX)
        row: dict[str, Any] = {
            "video": result.key,
            "clips": len(result.valid),
            "unreadable_clips": int((~result.valid).sum()),
            "frames": len(result.phases),
            "annotated_frames": int((result.phases != IGNORE_INDEX).sum()),
            "missing": "; ".join(lack.reason for lack in result.lacks),
        }
        for model, prefix in zip(MODELS, ("", "clipwise/")):
            right = getattr(result, model)[annotated].argmax(axis=1) == result.labels[annotated]
            row[f"{prefix}clip_accuracy"] = float(right.mean()) if len(right) else math.nan
            found = frame_scores([(result.frames(model), result.phases)])
            row.update({f"{prefix}{name}": value for name, value in found.items()})
        rows.append(row)
    return rows


def write_results(
    folder: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], metrics: dict[str, float], absent: list[str]
) -> None:
    """Write `videos.csv` (a line per row, see `video_rows`) and `scores.json` into `folder`, replacing older ones."""
    table = csv_text(list(rows[0]), ([row[name] for name in rows[0]] for row in rows), DIGITS)
    write_text_atomically(folder / VIDEOS, table)
    summary = {"classes": list(names), "absent_classes": absent, "metrics": metrics, "videos": len(rows)}
    write_text_atomically(folder / "scores.json", json.dumps(summary, indent=2) + "\n")
