"""Clip classification evaluated per video: the views of a video are averaged, then each video counts once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import LabelError

TOP = 5
PREDICTIONS = "predictions.csv"
CONFUSION = "confusion.csv"
CONFUSION_FIGURE = "confusion_matrix.png"
View = tuple[int, ...]


@dataclass
class VideoScore:
    """The predictions for one video.

    Attributes:
        key: its name.
        label: class id, 255 if it has none.
        views: (segment, crop) -> (softmax (L,), cross-entropy; NaN without a label). float64. Those of further cameras
            of a case have their number behind.
    """

    key: str
    label: int
    views: dict[View, tuple[np.ndarray, float]] = field(default_factory=dict)

    @property
    def probabilities(self) -> np.ndarray:
        """(L,) mean of the softmax over the views, in the order of the views, whatever order they came in."""
        return np.mean([self.views[view][0] for view in sorted(self.views)], axis=0)

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the views."""
        return float(np.mean([self.views[view][1] for view in sorted(self.views)]))


class VideoScores:
    """Collects the views of videos, by number of the video, so that the result does not depend on batches or ranks.

    A view that occurs twice (short videos give some segments and crops twice, and samplers may pad) counts once, as in
    VideoMAE's test.

    Args:
        num_classes: L.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.videos: dict[int, VideoScore] = {}

    def update(
        self, indices: Sequence[int], views: Sequence[View], keys: Sequence[str], labels: Any, logits: Any
    ) -> None:
        """Add rows.

        Args:
            indices: number of the video of each row.
            views: (segment, crop) of each row.
            keys: name of the video of each row.
            labels: (B,) class ids, 255 where unknown.
            logits: (B, L), array or CPU tensor.

        Raises:
            LabelError: a label that is not a class, or lengths that differ.
        """
        values = np.asarray(logits, dtype=np.float64)
        ids = np.asarray(labels, dtype=np.int64)
        if values.shape != (len(indices), self.num_classes) or not len(indices) == len(views) == len(keys) == len(ids):
            raise LabelError(
                f"logits have shape {values.shape}, expected ({len(indices)}, {self.num_classes}); there are "
                f"{plural(len(indices), 'video')}, {len(views)} views, {len(keys)} keys and {plural(len(ids), 'label')}"
            )
        logs = _log_softmax(values)
        for row, (index, view, key, label) in enumerate(zip(indices, views, keys, ids.tolist(), strict=True)):
            if label != IGNORE_INDEX and not 0 <= label < self.num_classes:
                raise LabelError(f"{key}: label {label} is outside the {self.num_classes} classes")
            loss = math.nan if label == IGNORE_INDEX else -float(logs[row, label])
            video = self.videos.setdefault(int(index), VideoScore(key, label))
            video.views.setdefault((int(view[0]), int(view[1])), (np.exp(logs[row]), loss))

    def merge(self, other: VideoScores) -> None:
        """Add the views of another process."""
        for index, theirs in other.videos.items():
            video = self.videos.setdefault(index, VideoScore(theirs.key, theirs.label))
            for view, found in theirs.views.items():
                video.views.setdefault(view, found)

    def gather(self, accelerator: Any | None = None) -> VideoScores:
        """All videos of all ranks, on every rank; ranks may have seen any number of them."""
        if accelerator is None or accelerator.num_processes == 1:
            return self
        from accelerate.utils import gather_object

        whole = VideoScores(self.num_classes)
        for part in gather_object([self]):
            whole.merge(part)
        return whole

    def joined(self, together: Mapping[int, int]) -> VideoScores:
        """Clips of further cameras as more views of those of the first one, whose key and label count.

        Args:
            together: number of a clip -> that of the first camera at the same moment. Where that one could not be read,
                the next one stands for it.
        """
        whole = VideoScores(self.num_classes)
        for index in sorted(self.videos, key=lambda index: (index in together, index)):
            video, place = self.videos[index], together.get(index, index)
            if place not in whole.videos:
                whole.videos[place] = VideoScore(video.key, video.label, dict(video.views))
                continue
            first = whole.videos[place]
            for view, (shares, _) in video.views.items():
                loss = math.nan if first.label == IGNORE_INDEX else -float(np.log(shares[first.label]))
                further = (*view, index)
                first.views[further] = shares, loss
        return whole

    def table(self) -> ScoreTable:
        """Averages over the views, with videos in the order of their numbers."""
        chosen = [self.videos[index] for index in sorted(self.videos)]
        empty = np.zeros((0, self.num_classes))
        return ScoreTable(
            keys=[video.key for video in chosen],
            labels=np.array([video.label for video in chosen], dtype=np.int64),
            probabilities=np.stack([video.probabilities for video in chosen]) if chosen else empty,
            losses=np.array([video.loss for video in chosen]),
            views=np.array([len(video.views) for video in chosen], dtype=np.int64),
        )


@dataclass
class ScoreTable:
    """One row per video.

    Attributes:
        keys: N names.
        labels: (N,) class ids, 255 where a video has none; such videos count in no metric.
        probabilities: (N, L).
        losses: (N,) cross-entropy, NaN without a label.
        views: (N,) number of different views.
    """

    keys: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    views: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool."""
        return self.labels != IGNORE_INDEX

    @property
    def predictions(self) -> np.ndarray:
        """(N,) class ids; of equal probabilities the first class wins."""
        return self.probabilities.argmax(axis=1) if len(self.keys) else np.zeros(0, dtype=np.int64)

    def confusion(self) -> np.ndarray:
        """(L, L) int64 number of labelled videos, rows are labels, columns predictions."""
        matrix = np.zeros((self.probabilities.shape[1],) * 2, dtype=np.int64)
        chosen = self.labelled
        np.add.at(matrix, (self.labels[chosen], self.predictions[chosen]), 1)
        return matrix

    def metrics(self) -> dict[str, float]:
        """Shares in [0, 1] over the labelled videos; NaN where there is none.

        Returns:
            "top1"; "top5", the label is among the five most probable classes (among all of them where there are
            fewer, so that it is 1 with up to five classes); "mean_class_accuracy", the mean over the classes that
            occur of the share of their videos found (top-1); "loss", the mean over videos of the mean cross-entropy
            of their views; "samples", how many counted.
        """
        chosen = self.labelled
        number = int(chosen.sum())
        if not number:
            return {**dict.fromkeys(("top1", "top5", "mean_class_accuracy", "loss"), math.nan), "samples": 0.0}
        ranks = label_ranks(self.probabilities[chosen], self.labels[chosen])
        matrix = self.confusion()
        occurring = matrix.sum(axis=1) > 0
        recalls = matrix.diagonal()[occurring] / matrix.sum(axis=1)[occurring]
        return {
            "top1": float((ranks == 0).mean()),
            "top5": float((ranks < TOP).mean()),
            "mean_class_accuracy": float(recalls.mean()),
            "loss": float(self.losses[chosen].mean()),
            "samples": float(number),
        }


def label_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) place of the label among the classes by probability, 0 first; among equals the lower class id is first.

    Args:
        probabilities: (N, L).
        labels: (N,) class ids.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)


def write_predictions(table: ScoreTable, names: Sequence[str], path: Path) -> None:
    """Write one line per video: key, label, predicted, correct (1, 0), the probabilities of both, the five most
    probable classes as "name:probability" separated by " | ", and the number of views. Without a label: empty cells.
    """
    rows = []
    for number, key in enumerate(table.keys):
        scores, label = table.probabilities[number], int(table.labels[number])
        predicted = int(table.predictions[number])
        best = np.argsort(-scores, kind="stable")[:TOP]
        known = label != IGNORE_INDEX
        rows.append(
            [
                key,
                names[label] if known else "",
                names[predicted],
                int(label == predicted) if known else "",
                f"{scores[label]:.6f}" if known else "",
                f"{scores[predicted]:.6f}",
                " | ".join(f"{names[int(i)]}:{scores[i]:.6f}" for i in best),
                int(table.views[number]),
            ]
        )
    header = ["key", "label", "predicted", "correct", "label_probability", "predicted_probability", "top5", "views"]
    write_text_atomically(path, csv_text(header, rows))


def write_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Write the counts: a line per label, a column per prediction, names in the first line and the first column."""
    rows = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
    write_text_atomically(path, csv_text(["label \\ predicted", *names], rows))


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
