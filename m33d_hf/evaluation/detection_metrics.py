"""Metrics of phase detection in long videos: average precision, frame accuracy, segmental edit score and F1.

Every metric is a share in [0, 1]; one with nothing to measure is NaN, never an exception and never a silent zero.
Frames whose label is 255 are not annotated: they are removed, together with what was predicted for them, before
anything is counted or cut into segments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, LabelError

OVERLAPS = (0.1, 0.25, 0.5)

Segment = tuple[int, int, int]
"""(start, stop, id): frames start .. stop - 1."""


def average_precision(scores: ArrayLike, positives: ArrayLike) -> float:
    """Area under the precision-recall steps: sum over thresholds of (recall gained) x precision, no interpolation.

    Scores that are equal are one threshold, so the order of the input never matters.

    Args:
        scores: (N,) confidences; higher means more certain.
        positives: (N,) bool.

    Returns:
        A share in [0, 1]; NaN without a positive or with a score that is NaN.

    Raises:
        LabelError: the shapes do not agree.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positives, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise LabelError(f"scores {values.shape} and positives {truth.shape} must both be (N,)")
    total = int(truth.sum())
    if not total or np.isnan(values).any():
        return math.nan
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(truth[order])
    last = np.append(values[1:] != values[:-1], True)  # last row of each threshold
    hits, taken = hits[last], np.flatnonzero(last) + 1
    gained = np.diff(hits, prepend=0)
    return float((gained / total * (hits / taken)).sum())


def mean_average_precision(scores: ArrayLike, labels: ArrayLike) -> tuple[float, list[float]]:
    """Macro mean over classes of `average_precision`, one class against all others, over whatever the rows stand for.

    A detection is judged over the clips of all videos pooled, and again over their frames: see
    `detection_results.detection_metrics`.

    Args:
        scores: (N, L), as a rule probabilities: logits of different rows are not on one scale.
        labels: (N,) ids in [0, L) or 255.

    Returns:
        (mean, per class): classes that no row is annotated with are NaN and leave the mean.

    Raises:
        LabelError: shapes that do not agree, or a label outside the classes.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise LabelError(f"scores must be (N, L) and labels (N,), they are {values.shape} and {truth.shape}")
    number = values.shape[1]
    annotated = truth != IGNORE_INDEX
    values, truth = values[annotated], truth[annotated]
    outside = np.unique(truth[(truth < 0) | (truth >= number)])
    if len(outside):
        raise LabelError(f"labels {outside.tolist()} lie outside the {number} classes and are not {IGNORE_INDEX}")
    per_class = [average_precision(values[:, c], truth == c) for c in range(number)]
    present = [per_class[c] for c in range(number) if (truth == c).any()]
    # A NaN score of a class that is there stays visible; only classes that are not there leave the mean.
    return (float(np.mean(present)) if present else math.nan), per_class


def frame_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of annotated frames whose predicted id is right; (T,) ids each, NaN without an annotated frame.

    Raises:
        LabelError: the shapes do not agree.
    """
    predicted, truth = _annotated(predictions, labels)
    return float((predicted == truth).mean()) if len(truth) else math.nan


def segments(ids: ArrayLike) -> list[Segment]:
    """Runs of one id in (T,) ids, in order; runs of 255 are left out."""
    values = np.asarray(ids).astype(np.int64).ravel()
    borders = np.flatnonzero(np.diff(values)) + 1
    edges = [0, *borders.tolist(), len(values)]
    runs = [(start, stop, int(values[start])) for start, stop in pairwise(edges) if stop > start]
    return [run for run in runs if run[2] != IGNORE_INDEX]


def edit_score(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Score of the order of the segments, whatever their length: 1 - Levenshtein distance / segments of the longer
    sequence.

    The published score (Lea et al. 2016) is this times 100.

    Args:
        predictions, labels: (T,) ids of one video.

    Returns:
        A share in [0, 1]; NaN without an annotated frame.

    Raises:
        LabelError: the shapes do not agree.
    """
    predicted, truth = ([run[2] for run in segments(ids)] for ids in _annotated(predictions, labels))
    if not truth:
        return math.nan
    return 1.0 - _levenshtein(predicted, truth) / max(len(predicted), len(truth))


def segmental_f1(
    videos: Sequence[tuple[ArrayLike, ArrayLike]], overlaps: Sequence[float] = OVERLAPS
) -> dict[str, float]:
    """F1 of segments at several overlaps (Lea et al. 2017), counts pooled over videos.

    In order of time, each predicted segment takes the segment of its class with the largest intersection over union
    (the earlier one of equals). It is right where that reaches the overlap and the segment was not taken before.

    Args:
        videos: (predictions (T,), labels (T,)) ids per video.
        overlaps: least intersection over union, each in (0, 1].

    Returns:
        {"f1_10": share, ...} by per cent of overlap; NaN where no frame of any video is annotated.

    Raises:
        ConfigError: an overlap outside (0, 1].
        LabelError: the shapes of a video do not agree.
    """
    for overlap in overlaps:
        if not 0 < overlap <= 1:
            raise ConfigError(f"an overlap is {overlap}; it must be in (0, 1]")
    pairs = [tuple(segments(ids) for ids in _annotated(*video)) for video in videos]
    found, wanted = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    result = {}
    for overlap in overlaps:
        hits = sum(_matched(predicted, truth, overlap) for predicted, truth in pairs)
        # 2 TP / (2 TP + FP + FN), where TP + FP = predicted and TP + FN = annotated segments.
        result[f"f1_{overlap * 100:g}"] = 2 * hits / (found + wanted) if wanted else math.nan
    return result


def frame_scores(videos: Sequence[tuple[ArrayLike, ArrayLike]]) -> dict[str, float]:
    """All scores of predicted ids at once.

    Args:
        videos: (predictions (T,), labels (T,)) ids per video.

    Returns:
        "frame_accuracy" and "f1_10", "f1_25", "f1_50", pooled over the videos, and "edit", the mean of the videos with
        an annotated frame; NaN where no frame is annotated.

    Raises:
        LabelError: the shapes of a video do not agree.
    """
    pairs = [_annotated(*video) for video in videos]
    predicted, truth = (np.concatenate([np.empty(0, np.int64), *(pair[side] for pair in pairs)]) for side in (0, 1))
    edits = [edit_score(*pair) for pair in pairs if len(pair[1])]
    return {
        "frame_accuracy": frame_accuracy(predicted, truth),
        "edit": float(np.mean(edits)) if edits else math.nan,
        **segmental_f1(pairs),
    }


def _annotated(predictions: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both (T',) int64 without the frames whose label is 255."""
    predicted, truth = np.asarray(predictions).astype(np.int64), np.asarray(labels).astype(np.int64)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise LabelError(f"predictions {predicted.shape} and labels {truth.shape} must both be (T,)")
    kept = truth != IGNORE_INDEX
    return predicted[kept], truth[kept]


def _levenshtein(first: Sequence[int], second: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def _matched(predicted: Sequence[Segment], truth: Sequence[Segment], overlap: float) -> int:
    taken: set[int] = set()
    for segment in predicted:
        ratios = [_ratio(segment, other) for other in truth]
        best = int(np.argmax(ratios)) if ratios else -1
        if best >= 0 and ratios[best] >= overlap and best not in taken:
            taken.add(best)
    return len(taken)


def _ratio(first: Segment, second: Segment) -> float:
    """Intersection over union of two segments of one class, 0 of two classes."""
    if first[2] != second[2]:
        return 0.0
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return max(shared, 0) / (first[1] - first[0] + second[1] - second[0] - max(shared, 0))
