"""What all phase metrics are made of: frames counted per video and phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import LabelError
from m33d_hf.evaluation.phases.boundaries import EXACT, RULES, SECONDS, right_frames

METRICS = ("precision", "recall", "jaccard", "f1")


@dataclass(frozen=True)
class PhaseVideo:
    """One video as the metrics see it.

    Attributes:
        key: its name.
        predictions, labels: (T,) ids; labels are 255 where nothing is annotated, predictions where nothing is known.
        fps: ids per second; None where unknown, which leaves relaxed boundaries undefined.
    """

    key: str
    predictions: np.ndarray
    labels: np.ndarray
    fps: float | None = None

    def annotated(self) -> tuple[np.ndarray, np.ndarray]:
        """(predictions, labels) of the annotated frames, int64.

        Raises:
            LabelError: the shapes do not agree.
        """
        predicted, truth = self.predictions.astype(np.int64), self.labels.astype(np.int64)
        if predicted.shape != truth.shape or truth.ndim != 1:
            raise LabelError(f"{self.key}: predictions {predicted.shape} and labels {truth.shape} must both be (T,)")
        kept = truth != IGNORE_INDEX
        return predicted[kept], truth[kept]


@dataclass(frozen=True)
class PhaseCounts:
    """Frames counted under one boundary rule; V videos, L phases.

    Attributes:
        boundary: the rule.
        right: (V, L) frames within the union of predicted and annotated frames of the phase that are right or forgiven.
        predicted, annotated, union: (V, L) frames.
        right_frames, frames: (V,) frames that are right or forgiven, and all annotated ones.
    """

    boundary: str
    right: np.ndarray
    predicted: np.ndarray
    annotated: np.ndarray
    union: np.ndarray
    right_frames: np.ndarray
    frames: np.ndarray

    def pooled(self) -> PhaseCounts:
        """All frames as if they were one video."""
        parts = (self.right, self.predicted, self.annotated, self.union, self.right_frames, self.frames)
        return PhaseCounts(self.boundary, *(part.sum(axis=0, keepdims=True) for part in parts))

    def accuracy(self) -> np.ndarray:
        """(V,) share of the annotated frames; NaN without any."""
        return _ratio(self.right_frames, self.frames)

    def values(self) -> dict[str, np.ndarray]:
        """Each of `METRICS` as (V, L) shares; NaN where it is undefined.

        precision = right / predicted, recall = right / annotated, Jaccard = right / union, F1 = 2 right / (predicted +
        annotated). Undefined are the precision of a phase that is not predicted, the recall of one that is not
        annotated, Jaccard and F1 of one that is neither. Forgiven frames are counted for both phases of a border, so
        that relaxed precision and recall may exceed 1; as in the challenge's script, they are cut to 1.
        """
        precision = _ratio(self.right, self.predicted)
        rule = RULES.get(self.boundary)
        if rule is not None and rule.unpredicted_is_right:
            precision[(self.predicted == 0) & (self.right > 0)] = 1.0
        found = {
            "precision": precision,
            "recall": _ratio(self.right, self.annotated),
            "jaccard": _ratio(self.right, self.union),
            "f1": _ratio(2 * self.right, self.predicted + self.annotated),
        }
        return {name: np.minimum(value, 1.0) for name, value in found.items()}


def count_phases(videos: Sequence[PhaseVideo], names: Sequence[str], boundary: str = EXACT) -> PhaseCounts:
    """Count the annotated frames of videos; frames without an annotation are removed first, with their predictions.

    Args:
        videos: V of them.
        names: of the L phases.
        boundary: see `m33d_hf.evaluation.phases.boundaries`; a relaxed one leaves out videos without a rate.

    Raises:
        ConfigError: a rule for other phases.
        LabelError: shapes that do not agree, or ids outside the phases.
    """
    number = len(names)
    rows = [_counted(video, names, boundary) for video in videos]
    tables = [np.array([row[place] for row in rows], dtype=np.int64).reshape(len(rows), number) for place in range(4)]
    totals = [np.array([row[place] for row in rows], dtype=np.int64) for place in (4, 5)]
    return PhaseCounts(boundary, *tables, *totals)


def _counted(video: PhaseVideo, names: Sequence[str], boundary: str) -> tuple[np.ndarray, ...]:
    number = len(names)
    predicted, truth = video.annotated()
    if boundary != EXACT and video.fps is None:
        predicted, truth = predicted[:0], truth[:0]
    for ids, what, spare in ((truth, "label", ()), (predicted, "prediction", (IGNORE_INDEX,))):
        outside = np.setdiff1d(ids, [*range(number), *spare])
        if len(outside):
            raise LabelError(f"{video.key}: {what} {int(outside[0])} is none of the {number} phases")
    width = 0 if video.fps is None else round(SECONDS * video.fps)
    right = right_frames(predicted, truth, names, boundary, width)
    annotated = np.bincount(truth, minlength=number)
    told = predicted != IGNORE_INDEX
    shown = np.bincount(predicted[told], minlength=number)
    both = np.bincount(truth[predicted == truth], minlength=number)
    # A right frame lies in the union of its annotated phase and, where a forgiven error was predicted, in that one's.
    other = right & (predicted != truth) & told
    hits = np.bincount(truth[right], minlength=number) + np.bincount(predicted[other], minlength=number)
    return hits, shown, annotated, shown + annotated - both, right.sum(), np.int64(len(truth))


def confusion(videos: Sequence[PhaseVideo], number: int) -> np.ndarray:
    """(L, L) int64 annotated frames of all videos, rows the truth, columns the prediction; without unpredicted ones."""
    matrix = np.zeros((number, number), np.int64)
    for video in videos:
        predicted, truth = video.annotated()
        told = predicted != IGNORE_INDEX
        np.add.at(matrix, (truth[told], predicted[told]), 1)
    return matrix


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
