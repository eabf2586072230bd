"""The finished seeds of a row in a column, and the words for verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

BETTER, WORSE, UNDECIDED, UNKNOWN = "better", "worse", "no difference shown", "unknown"


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
    """The finished pre-training seeds of one row in one column, in percent; failed ones are counted."""

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

    def text(self) -> str:
        """Mean, then every seed, then failures."""
        if self.mean is None:
            return "failed"
        seeds = " / ".join(f"{value:.1f}" for value in self.values)
        failed = f"; {self.failed} failed" if self.failed else ""
        return f"**{self.mean:.1f}** ({seeds}{failed})"
