"""Verdicts: declared comparisons of two rows, each with its interval, and words that say no more than it shows.

Comparisons that answer one question are a family: their p values are adjusted together, over pairs and columns. The
verdict is "better" or "worse" where the adjusted value is below .05. Else it is "no difference larger than x", where
x is the end of the 95 % interval that is farther from zero; an interval that leaves out 0 all the same, which adjusted
values may disagree with, is said to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from m33d_hf.experiments.report.comparison import BETTER, UNDECIDED, UNKNOWN, WORSE
from m33d_hf.experiments.report.conditions import unmet_condition
from m33d_hf.experiments.report.results import (
    Results,
    TableEntry,
    cell,
    labels,
    seed_values,
    stuck_pretraining,
    variants_of,
)
from m33d_hf.experiments.report.two_way import Estimate, TwoWay, holm, paired_p

ALPHA = 0.05
_SAME = 1e-9  # of a tenth: what is left of a decimal number in floating point
RULE = (
    "Verdicts come from one model per column, value = row + seed + noise, fitted by least squares to all rows of the"
    " column. Seeds are seeds of pre-training; several fine-tunings of one encoder are averaged first. A difference in"
    " percentage points is **better** or **worse** by its 95 % interval where its p value is below .05 after Holm's"
    " adjustment over all comparisons and columns of its question; otherwise there is **no difference larger than** the"
    " far end of that interval, which may leave out 0 before the adjustment. Ends are rounded outwards. “p, own pairs”"
    " is that of a paired t test on the seeds of the two rows alone, without the noise of the others. The questions"
    " were declared before the run; nothing else gets a verdict."
)


@dataclass(frozen=True)
class Pair:
    """What is compared: ids of two variants and of a column."""

    better: str
    than: str
    column: str


@dataclass(frozen=True)
class Difference:
    """How much better one variant is than another in a column.

    Attributes:
        pair: what is compared.
        estimate: percentage points, interval and p; None where there is none.
        p_adjusted: Holm-adjusted over the family; None where there is no estimate.
        n: finished seeds of the side with fewer.
        paired: seed -> difference in percentage points, for the seeds that both sides finished.
        why: the reason why nothing is said; empty where there is a verdict.
    """

    pair: Pair
    estimate: Estimate | None
    p_adjusted: float | None
    n: int
    paired: Mapping[int, float]
    why: str = ""

    @property
    def verdict(self) -> str:
        """ "better", "worse", "no difference shown" or "unknown"."""
        if self.why or self.estimate is None or self.p_adjusted is None:
            return UNKNOWN
        if self.p_adjusted >= ALPHA:
            return UNDECIDED
        return BETTER if self.estimate.points > 0 else WORSE

    @property
    def p_paired(self) -> float | None:
        """Of a paired t test on the two rows' own seeds, whatever the noise of others; None for fewer than two."""
        return paired_p(list(self.paired.values()))

    @property
    def bound(self) -> float:
        """The far end of the interval, without its sign; NaN where there is none."""
        return float("nan") if self.estimate is None else max(abs(self.estimate.low), abs(self.estimate.high))

    def text(self) -> str:
        """The verdict as it is printed everywhere."""
        if self.estimate is None or self.verdict == UNKNOWN:
            return f"no verdict ({self.why})"
        if self.verdict == UNDECIDED:
            alone = " (its own interval leaves out 0)" if self.estimate.low * self.estimate.high > 0 else ""
            return f"no difference larger than {rounded_up(self.bound):.1f}{alone}"
        least, most = sorted((abs(self.estimate.low), abs(self.estimate.high)))
        return f"{self.verdict} by {rounded_down(least):.1f} to {rounded_up(most):.1f}"


def rounded_up(points: float, digits: int = 1) -> float:
    """The next number of so many decimals that is not smaller: printed intervals hold all of what was estimated."""
    return math.ceil(10**digits * points - _SAME) / 10**digits


def rounded_down(points: float, digits: int = 1) -> float:
    """The next number of so many decimals that is not larger."""
    return math.floor(10**digits * points + _SAME) / 10**digits


def compare_family(results: Results, pairs: Sequence[Pair]) -> list[Difference]:
    """The differences of one family, in the order given."""
    models = {column: column_model(results, column) for column in dict.fromkeys(pair.column for pair in pairs)}
    found = [_unadjusted(results, pair, models[pair.column]) for pair in pairs]
    told = [place for place, one in enumerate(found) if one.estimate is not None and not one.why]
    adjusted = holm([estimate.p for place in told if (estimate := found[place].estimate) is not None])
    for place, p in zip(told, adjusted, strict=True):
        found[place] = replace(found[place], p_adjusted=p)
    return found


def difference(results: Results, better: str, than: str, column: str) -> Difference:
    """One comparison that is its own family."""
    return compare_family(results, [Pair(better, than, column)])[0]


def column_model(results: Results, column: str) -> TwoWay:
    """The model of all rows that were measured in a column."""
    everyone = dict.fromkeys(row["variant"] for row in results["rows"] if row["column"] == column)
    return TwoWay({name: seed_values(results, name, column) for name in everyone})


def half_width(results: Results, table: TableEntry, column: str) -> float | None:
    """Half of the 95 % interval of a difference between two complete rows of a table; None where it is not known."""
    seeds = max((cell(results, name, column).n for name in variants_of(table)), default=0)
    return column_model(results, column).half_width(seeds)


def _unadjusted(results: Results, pair: Pair, model: TwoWay) -> Difference:
    left, right = (seed_values(results, name, pair.column) for name in (pair.better, pair.than))
    paired = {seed: left[seed] - right[seed] for seed in left if seed in right}
    estimate = model.difference(pair.better, pair.than)
    why = _why_unknown(results, pair) or ("" if estimate else "the noise is not known")
    return Difference(pair, estimate, None, min(len(left), len(right)), paired, why)


def _why_unknown(results: Results, pair: Pair) -> str:
    """Seeds that fail may fail for what is compared, so a row that lost one is not judged by the others."""
    sides = (pair.better, pair.than)
    cells = [cell(results, name, pair.column) for name in sides]
    if any(found.failed for found in cells):
        return "a seed failed"
    if any(not found.n for found in cells):
        return "not run"
    if any(found.n < 2 for found in cells):
        return "one seed"
    stuck = [labels(results).get(name, name) for name in sides if stuck_pretraining(results, name)]
    if stuck:
        return f"the pre-training of {' and '.join(stuck)} never left its trivial loss"
    return unmet_condition(results, sides)
