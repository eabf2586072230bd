"""Differences between rows of a column: a two-way model of rows and seeds, 95 % intervals, and Holm's adjustment.

The model is value = row + seed + noise with one noise for the whole column, fitted by least squares (a randomised block
design; seeds are blocks, because one seed draws the same labels and the same order of data for every row). The noise is
estimated from all rows together, so that its degrees of freedom grow with rows and seeds: with n seeds and r rows
they are (n - 1)(r - 1). What one seed of one row is worth must be one number: several fine-tunings of one encoder are
averaged before, because they share its noise and would pass for seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 1e-10


@dataclass(frozen=True)
class Estimate:
    """A difference of two rows.

    Attributes:
        points: by least squares, in the unit of the values; the difference of means where no value is missing.
        low, high: the 95 % interval, for this difference alone.
        p: two-sided, for this difference alone.
        df: degrees of freedom of the noise.
    """

    points: float
    low: float
    high: float
    p: float
    df: int


class TwoWay:
    """Least squares on value = row + seed + noise.

    Args:
        values: row -> seed -> value; rows may lack seeds, and rows without any are left out.
    """

    def __init__(self, values: Mapping[str, Mapping[int, float]]) -> None:
        self.rows = [name for name, found in values.items() if found]
        seeds = sorted({seed for found in values.values() for seed in found})
        cells = [(self.rows.index(name), seeds.index(seed), value)
                 for name in self.rows for seed, value in values[name].items()]  # fmt: skip
        self._design = np.zeros((len(cells), len(self.rows) + len(seeds)))
        for place, (row, seed, _) in enumerate(cells):
            self._design[place, [row, len(self.rows) + seed]] = 1.0
        measured = np.array([value for _, _, value in cells], dtype=np.float64)
        # Rows and seeds share a constant; the pseudo-inverse takes the shortest of all solutions, and differences of
        # rows are the same in each of them.
        self._inverse = np.linalg.pinv(self._design)
        self._effects = self._inverse @ measured
        residual = measured - self._design @ self._effects
        self.df = len(cells) - int(np.linalg.matrix_rank(self._design)) if cells else 0
        self.sigma = float(np.sqrt(residual @ residual / self.df)) if self.df else 0.0
        # Values that are equal but for rounding have no noise to judge by, and not an infinitely small one.
        self._known = self.df > 0 and self.sigma > ROUNDING * float(np.abs(measured).max())

    def difference(self, row: str, other: str) -> Estimate | None:
        """How much larger `row` is than `other`.

        Returns:
            None where the model cannot tell: a row is not there, nothing is left to estimate the noise from, there is
            none, or no chain of shared seeds joins the two.
        """
        if not self._known or row not in self.rows or other not in self.rows:
            return None
        contrast = np.zeros(self._design.shape[1])
        contrast[self.rows.index(row)] += 1.0
        contrast[self.rows.index(other)] -= 1.0
        weights = contrast @ self._inverse  # of the measured values
        if not np.allclose(weights @ self._design, contrast, atol=1e-8):
            return None
        points, error = float(contrast @ self._effects), self.sigma * float(np.linalg.norm(weights))
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.df)) * error
        p = 2 * float(stats.t.sf(abs(points) / error, self.df))
        return Estimate(points, points - half, points + half, p, self.df)

    def half_width(self, seeds: int) -> float | None:
        """Half of the 95 % interval of a difference between two rows that have the same `seeds` seeds each."""
        mean = self.half_width_of_mean(seeds)
        return None if mean is None else mean * float(np.sqrt(2))

    def half_width_of_mean(self, seeds: int) -> float | None:
        """Half of the 95 % interval of a row's mean over these `seeds` seeds, seeds taken as they are."""
        if not self._known or not seeds:
            return None
        return float(stats.t.ppf((1 + LEVEL) / 2, self.df)) * self.sigma / float(np.sqrt(seeds))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of a t test of paired differences against 0; None where they tell no noise."""
    found = np.asarray(differences, np.float64)
    if len(found) < 2 or found.std() <= ROUNDING * np.abs(found).max():
        return None
    return float(stats.ttest_1samp(found, 0.0).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values (Holm 1979): whatever is true, the chance that any true null falls
    below .05 is at most 5 %.

    Returns:
        The adjusted values, in the order given, at most 1.
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = largest
    return adjusted
