"""Trivial floor of phase detection: the phases by their share of the training clips, whatever a video shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.detection_results import VideoResult, detection_metrics
from m33d_hf.evaluation.phases.results import headline_metrics

FLOOR_METRICS = ("frame_accuracy", "phase_jaccard", "map", "edit", "f1_50")


class PhaseFloor:
    """What is reached without looking at any clip.

    Every clip gets the same probabilities, so that all frames are of the commonest phase, and average precision is how
    often a phase occurs.

    Args:
        labels: per training video the class ids of its clips, 255 where nothing is annotated.
        names: of the classes.

    Attributes:
        title: what it is, in words.
    """

    def __init__(self, labels: Iterable[np.ndarray], names: Sequence[str]) -> None:
        every = np.concatenate([np.empty(0, np.int64), *(np.asarray(video, np.int64) for video in labels)])
        counts = np.bincount(every[every != IGNORE_INDEX], minlength=len(names))
        self.names = list(names)
        self.shares = (counts / max(int(counts.sum()), 1)).astype(np.float32)
        self.title = f"commonest phase of the training clips ({names[int(counts.argmax())]})"

    def metrics(self, results: Sequence[VideoResult]) -> dict[str, float]:
        """ "floor/..." of the same videos; see `detection_metrics` and `headline_metrics`."""
        shares = [np.broadcast_to(self.shares, result.temporal.shape) for result in results]
        blind = [replace(result, temporal=each, clipwise=each) for result, each in zip(results, shares, strict=True)]
        found = {**detection_metrics(blind, self.names)[0], **headline_metrics(blind, self.names)}
        return {f"floor/{name}": found[name] for name in FLOOR_METRICS}
