"""Trivial floors of clip classification: the commonest classes of the training clips, and uniform chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.classification_metrics import ScoreTable
from m33d_hf.evaluation.floor_table import floor_table

FLOOR_METRICS = ("top1", "mean_class_accuracy")


class ClassFloor:
    """What is reached without looking at any clip.

    Args:
        labels: class ids of the training clips, 255 where there is none.
        names: of the classes.
    """

    def __init__(self, labels: Sequence[int], names: Sequence[str]) -> None:
        every = np.asarray(labels, dtype=np.int64)
        counts = np.bincount(every[every != IGNORE_INDEX], minlength=len(names))
        self.names = list(names)
        self.shares = counts / max(int(counts.sum()), 1)
        self.commonest = int(counts.argmax())

    def metrics(self, table: ScoreTable) -> dict[str, float]:
        """ "floor/..." of the commonest class, over the videos of an evaluation; see `ScoreTable.metrics`."""
        blind = np.broadcast_to(self.shares, (len(table.keys), len(self.names)))
        found = ScoreTable(table.keys, table.labels, blind, table.losses, table.views).metrics()
        return {f"floor/{name}": found[name] for name in FLOOR_METRICS}

    def lines(self, metrics: Mapping[str, float]) -> list[str]:
        """The model beside both floors; a guess among L classes is right once in L, for every class."""
        title = f"commonest class of the training clips ({self.names[self.commonest]})"
        rows = {
            "this model": [metrics[name] for name in FLOOR_METRICS],
            title: [metrics[f"floor/{name}"] for name in FLOOR_METRICS],
            f"uniform chance among {plural(len(self.names), 'class')}": [1 / len(self.names)] * len(FLOOR_METRICS),
        }
        return floor_table(FLOOR_METRICS, rows)
