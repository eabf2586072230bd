"""Whether probabilities mean what they say: expected calibration error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import LabelError

BINS = 15


@dataclass
class Calibration:
    """Frames by the probability of their most probable phase, in `BINS` equally wide bins (k / BINS, (k + 1) / BINS].

    0 lies in the first bin. The counts of several videos add up, so that hours of frames never lie in memory at once.

    Attributes:
        frames, right: (BINS,) annotated frames, and how many of their most probable phases are right.
        confidence: (BINS,) sums of the probabilities of those phases.
    """

    frames: np.ndarray
    right: np.ndarray
    confidence: np.ndarray

    @classmethod
    def empty(cls) -> Calibration:
        """No frame yet."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), np.zeros(BINS))

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Count frames; those that are not annotated (255) or have no probability (NaN) are left out.

        Args:
            probabilities: (T, L); of equal ones the first phase wins.
            labels: (T,) ids.

        Raises:
            LabelError: shapes that do not agree.
        """
        if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
            raise LabelError(f"probabilities {probabilities.shape} and labels {labels.shape} must be (T, L) and (T,)")
        kept = (labels != IGNORE_INDEX) & ~np.isnan(probabilities).any(axis=1)
        if not kept.any():
            return
        best = probabilities[kept].max(axis=1)
        hits = probabilities[kept].argmax(axis=1) == labels[kept]
        edges = np.linspace(0, 1, BINS + 1)[1:-1]
        place = np.searchsorted(edges, best, side="left")  # a probability on an edge belongs to the bin below it
        self.frames += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[hits], minlength=BINS)
        self.confidence += np.bincount(place, weights=best, minlength=BINS)

    def error(self) -> float:
        """Expected calibration error (Guo et al., ICML 2017), in [0, 1]; NaN without a frame.

        The mean over the frames of |share of right frames - mean probability| of their bin.
        """
        total = int(self.frames.sum())
        return float(np.abs(self.right - self.confidence).sum() / total) if total else math.nan

    def rows(self) -> list[tuple[float, float, int, float, float]]:
        """(low, high, frames, mean probability, share of right frames) of each bin; NaN where it is empty."""
        edges = np.linspace(0, 1, BINS + 1)
        rows = []
        for number, count in enumerate(self.frames.tolist()):
            told = self.confidence[number] / count if count else math.nan
            right = self.right[number] / count if count else math.nan
            rows.append((float(edges[number]), float(edges[number + 1]), count, float(told), float(right)))
        return rows
