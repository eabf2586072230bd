"""Expected calibration error against its formula over explicit bins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from m33d_hf.errors import LabelError
from m33d_hf.evaluation.phases.calibration import BINS, Calibration


def _formula(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, eq. 5, bin by bin with the intervals written out."""
    kept = labels != 255
    best, hit = probabilities[kept].max(axis=1), probabilities[kept].argmax(axis=1) == labels[kept]
    total = 0.0
    for number in range(BINS):
        inside = (best > number / BINS) & (best <= (number + 1) / BINS)
        if inside.any():
            total += inside.sum() / len(best) * abs(hit[inside].mean() - best[inside].mean())
    return total


def test_the_error_is_that_of_the_formula_however_frames_come() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.full(4, 0.5), 300)
        labels = np.where(rng.random(300) < 0.1, 255, rng.integers(0, 4, 300))
        parts = Calibration.empty()
        for piece in np.array_split(np.arange(300), 7):
            parts.add(probabilities[piece], labels[piece])
        assert parts.error() == pytest.approx(_formula(probabilities, labels), abs=1e-12)
        assert sum(row[2] for row in parts.rows()) == (labels != 255).sum()


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    for labels, wanted in (([0, 1], 0.0), ([1, 0], 1.0), ([0, 0], 0.5)):
        found = Calibration.empty()
        found.add(np.eye(2), np.array(labels))
        assert found.error() == wanted
    low, high, frames, told, right = found.rows()[-1]
    assert (low, high, frames, told, right) == (pytest.approx(14 / 15), 1.0, 2, 1.0, 0.5)


def test_nothing_to_judge_is_nan_and_unread_videos_are_left_out() -> None:
    found = Calibration.empty()
    assert math.isnan(found.error())
    found.add(np.full((3, 2), np.nan), np.zeros(3, int))
    found.add(np.array([[0.5, 0.5]]), np.array([255]))
    assert math.isnan(found.error()) and all(math.isnan(row[3]) for row in found.rows())
    with pytest.raises(LabelError, match=r"\(3, 2\) and labels \(2,\)"):
        found.add(np.zeros((3, 2)), np.zeros(2, int))
