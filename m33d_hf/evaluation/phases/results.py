"""Phase metrics of a detection's evaluation: headline figures, tables of every convention, and frames one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.classification_metrics import CONFUSION, write_confusion
from m33d_hf.evaluation.detection_results import DIGITS, MODELS, VideoResult
from m33d_hf.evaluation.phases.averages import ORDERS, UNDEFINED, averages, phase_averages, settled_values
from m33d_hf.evaluation.phases.boundaries import known_boundaries
from m33d_hf.evaluation.phases.calibration import Calibration
from m33d_hf.evaluation.phases.counts import METRICS, PhaseCounts, PhaseVideo, confusion, count_phases

CONVENTION = ("exclude_absent", "videos_then_phases")
"""Of the headline figures: those of the Cholec80 challenge's script, with exact boundaries."""
HEADLINES = ("video_accuracy", *(f"phase_{name}" for name in METRICS), "ece")
PREFIXES = dict(zip(MODELS, ("", "clipwise/")))
FRAMES = "frames"
COLUMNS = {
    "phase_metrics": (
        *("model", "boundary", "undefined", "order", "metric", "mean"),
        *("deviation_over_videos", "deviation_over_phases"),
    ),
    "phases": ("model", "boundary", "phase", "videos", *(c for m in METRICS for c in (m, f"{m}_deviation"))),
    "video_phases": (
        *("model", "boundary", "video", "phase", "annotated_frames", "predicted_frames", "union_frames"),
        *("right_frames", *METRICS),
    ),
    "calibration": ("model", "above", "up_to", "frames", "mean_probability", "share_right"),
}


def phase_videos(results: Sequence[VideoResult], model: str) -> list[PhaseVideo]:
    """What "temporal" or "clipwise" predicts for the frames of every video."""
    return [PhaseVideo(result.key, result.frames(model), result.phases, result.fps) for result in results]


def headline_metrics(results: Sequence[VideoResult], names: Sequence[str]) -> dict[str, float]:
    """`HEADLINES` of the temporal model and, with "clipwise/" before them, of the clip classifier; shares in [0, 1].

    "video_accuracy" is the mean over videos of the share of right frames; "phase_precision", "phase_recall",
    "phase_jaccard" and "phase_f1" are means over the videos and then over the phases by `CONVENTION`; "ece" is the
    calibration error of all annotated frames, see `Calibration`. NaN where nothing is annotated.
    """
    found: dict[str, float] = {}
    for model, prefix in PREFIXES.items():
        means = averages(count_phases(phase_videos(results, model), names), *CONVENTION)
        values = [means["accuracy"].mean, *(means[name].mean for name in METRICS), _calibration(results, model).error()]
        found |= {f"{prefix}{name}": value for name, value in zip(HEADLINES, values, strict=True)}
    return found


def video_columns(results: Sequence[VideoResult], names: Sequence[str]) -> list[dict[str, float]]:
    """For `videos.csv`: macro precision, recall, Jaccard and F1 of each video over the phases it is annotated with."""
    rows: list[dict[str, float]] = [{} for _ in results]
    for model, prefix in PREFIXES.items():
        values = settled_values(count_phases(phase_videos(results, model), names), CONVENTION[0])
        for name in METRICS:
            for row, numbers in zip(rows, values[name], strict=True):
                kept = numbers[np.isfinite(numbers)]
                row[f"{prefix}phase_{name}"] = float(kept.mean()) if len(kept) else math.nan
    return rows


def write_phase_tables(folder: Path, results: Sequence[VideoResult], names: Sequence[str]) -> np.ndarray:
    """Write tables of every convention into `folder`, replacing older ones.

    * `phase_metrics.csv`: model, boundary, undefined, order, metric -> mean and deviations, see `averages`;
    * `phases.csv`: model, boundary, phase -> means and deviations over videos (exclude_absent), and how many counted;
    * `video_phases.csv`: model, boundary, video, phase -> frames and values; empty where undefined;
    * `calibration.csv`: bins of the calibration error; `confusion.csv`: annotated frames of all videos.

    Returns:
        (L, L) confusion matrix of the temporal model: rows the truth.
    """
    tables: dict[str, list[Sequence[Any]]] = {name: [] for name in COLUMNS}
    predicted = {model: phase_videos(results, model) for model in MODELS}
    for model, videos in predicted.items():
        for boundary in known_boundaries(names):
            _add_boundary(tables, model, videos, count_phases(videos, names, boundary), names)
        tables["calibration"] += [(model, *row) for row in _calibration(results, model).rows()]
    for name, header in COLUMNS.items():
        write_text_atomically(folder / f"{name}.csv", csv_text(header, tables[name], DIGITS))
    matrix = confusion(predicted[MODELS[0]], len(names))
    write_confusion(matrix, names, folder / CONFUSION)
    return matrix


def _add_boundary(
    tables: dict[str, list[Sequence[Any]]],
    model: str,
    videos: Sequence[PhaseVideo],
    counts: PhaseCounts,
    names: Sequence[str],
) -> None:
    for undefined in UNDEFINED:
        for order in ORDERS:
            for metric, each in averages(counts, undefined, order).items():
                key = (model, counts.boundary, undefined, order, metric)
                tables["phase_metrics"].append((*key, each.mean, each.over_videos, each.over_phases))
    told, values = phase_averages(counts, CONVENTION[0]), counts.values()
    for number, phase in enumerate(names):
        means = [part[number] for name in METRICS for part in told[name][:2]]
        tables["phases"].append((model, counts.boundary, phase, int(told["recall"][2][number]), *means))
        for place, video in enumerate(videos):
            frames = (counts.annotated, counts.predicted, counts.union, counts.right)
            numbers = [*(part[place, number] for part in frames), *(values[name][place, number] for name in METRICS)]
            tables["video_phases"].append((model, counts.boundary, video.key, phase, *numbers))


def write_frames(folder: Path, results: Sequence[VideoResult], names: Sequence[str]) -> list[Path]:
    """Write a CSV per video into `folder`/frames, with a line per frame; those of an earlier evaluation go.

    Its columns: frame, time (seconds from the first frame; empty where unknown), truth and prediction and clipwise (of
    the clip classifier) by name (empty where there is none), and a probability per phase of the temporal model.
    """
    for former in (folder / FRAMES).glob("[0-9][0-9][0-9][0-9]*_*.csv"):
        former.unlink(missing_ok=True)
    written = []
    for number, result in enumerate(results):
        path = folder / FRAMES / f"{number:04d}_{safe_name(result.key)}.csv"
        header = ["frame", "time", "truth", "prediction", "clipwise", *names]
        write_text_atomically(path, csv_text(header, _frame_rows(result, names)))
        written.append(path)
    return written


def safe_name(key: str) -> str:
    """A key as the end of a file's name."""
    return re.sub(r"[^\w.-]+", "_", key)[-60:]


def _frame_rows(result: VideoResult, names: Sequence[str]) -> Iterator[Sequence[Any]]:
    length = len(result.phases)
    told = np.full(IGNORE_INDEX + 1, "", dtype=object)
    told[: len(names)] = names
    moments: list[str] = [""] * length
    if result.times is not None:
        moments = [f"{moment:.3f}" for moment in np.atleast_1d(result.times.at(np.arange(length)))]
    elif result.fps:
        moments = [f"{frame / result.fps:.3f}" for frame in range(length)]
    ids = [told[column] for column in (result.phases, result.frames("temporal"), result.frames("clipwise"))]
    for frame, row in enumerate(result.probabilities("temporal").tolist()):
        shares = ["" if math.isnan(value) else f"{value:.6f}" for value in row]
        yield (frame, moments[frame], *(column[frame] for column in ids), *shares)


def _calibration(results: Sequence[VideoResult], model: str) -> Calibration:
    found = Calibration.empty()
    for result in results:
        found.add(result.probabilities(model), result.phases)
    return found
