"""Seeds, their spread, and what counts as a difference: one rule for every experiment.

With few seeds a spread is not a confidence interval. A difference of means counts as *beyond the spread* only where it
exceeds the largest range (largest minus smallest seed) of any row of the same column: the noise of the others is
noise of the measurement too. Where a seed failed, or a row has one seed only, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

BETTER, WORSE, WITHIN, UNKNOWN = "better", "worse", "within the spread", "unknown"


def percent(value: object) -> float:
    """A measured fraction in percent.

    Raises:
        TypeError: no number; true would pass for 100 %, and a list or a text would be repeated a hundred times.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a measured value is {value!r:.60}, which is not a number")
    return 100 * value


@dataclass(frozen=True)
class Cell:
    """The finished seeds of one row in one column, in percent; failed ones are counted."""

    values: tuple[float, ...]
    failed: int = 0

    @property
    def n(self) -> int:
        """Finished seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """None without a finished seed."""
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample (n - 1); None with fewer than two seeds."""
        mean = self.mean
        if mean is None or self.n < 2:
            return None
        return math.sqrt(sum((value - mean) ** 2 for value in self.values) / (self.n - 1))

    @property
    def min(self) -> float | None:
        """Smallest seed; None without one."""
        return min(self.values, default=None)

    @property
    def max(self) -> float | None:
        """Largest seed; None without one."""
        return max(self.values, default=None)

    @property
    def range(self) -> float | None:
        """Largest minus smallest; None with fewer than two seeds."""
        return max(self.values) - min(self.values) if len(self.values) > 1 else None

    def text(self) -> str:
        """Mean, then every seed, then failures."""
        if self.mean is None:
            return "failed"
        seeds = " / ".join(f"{value:.1f}" for value in self.values)
        failed = f"; {self.failed} failed" if self.failed else ""
        return f"**{self.mean:.1f}** ({seeds}{failed})"


def largest_range(cells: Iterable[Cell]) -> float | None:
    """The spread of a column: the largest range of its cells; None where no cell has two seeds."""
    known = [cell.range for cell in cells if cell.range is not None]
    return max(known, default=None)


def compare(left: Cell, right: Cell, spread: float | None) -> tuple[float | None, str]:
    """How much larger `left` is than `right`.

    Args:
        spread: of the column, percentage points; None = not known.

    Returns:
        Difference of the means of finished seeds in percentage points (None without a seed on either side), and
        "better", "worse", "within the spread" or "unknown" by the rule in the module's docstring.
    """
    if left.mean is None or right.mean is None:
        return None, UNKNOWN
    points = left.mean - right.mean
    if spread is None or left.failed or right.failed or min(left.n, right.n) < 2:
        return points, UNKNOWN
    if abs(points) <= spread:
        return points, WITHIN
    return points, BETTER if points > 0 else WORSE
