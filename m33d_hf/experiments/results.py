"""results.json of the demo: reading cells out of it, and what counts as a difference.

`rows` holds one entry per method, task, number of labels and seed. With two seeds a spread is no confidence
interval: a difference of means counts as *beyond the spread* only where it exceeds the largest difference
between two seeds of one method in the same column (task and labels), over all methods of that column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]

METRICS = {"depth_estimation": "delta1", "semantic_segmentation": "miou"}
METRIC_NAMES = {"delta1": "δ1", "miou": "mIoU"}
TASK_NAMES = {"depth_estimation": "depth", "semantic_segmentation": "segmentation"}


@dataclass(frozen=True, order=True)
class Column:
    """A task with a number of labels."""

    task: str
    labels: int

    @property
    def title(self) -> str:
        """For table heads: metric in percent, task, labels."""
        metric = METRIC_NAMES[METRICS[self.task]]
        return f"{TASK_NAMES[self.task]} {metric} %, {self.labels} labels"

    @property
    def short(self) -> str:
        """Task and number of labels, such as "depth 200"."""
        return f"{TASK_NAMES[self.task]} {self.labels}"

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{TASK_NAMES[self.task]} with {self.labels} labels"


@dataclass(frozen=True)
class Cell:
    """The seeds of one method in one column, in percent; failed ones are counted."""

    values: tuple[float, ...]
    failed: int = 0

    @property
    def mean(self) -> float | None:
        """None without a finished seed."""
        return sum(self.values) / len(self.values) if self.values else None

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


def methods(results: Results) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(row["method"] for row in results["rows"]))


def columns(results: Results) -> list[Column]:
    """In the order of the rows."""
    return list(dict.fromkeys(Column(row["task"], row["labels"]) for row in results["rows"]))


def cell(results: Results, method: str, column: Column) -> Cell:
    """The seeds of a method in a column; finished ones as percent."""
    rows = [
        row
        for row in results["rows"]
        if (row["method"], row["task"], row["labels"]) == (method, column.task, column.labels)
    ]
    done = [100 * row["value"] for row in rows if row["status"] == "done"]
    return Cell(tuple(done), len(rows) - len(done))


def column_spread(results: Results, column: Column) -> float | None:
    """Largest range between the seeds of one method, over the methods; None where no method has two seeds."""
    ranges = [cell(results, method, column).range for method in methods(results)]
    known = [value for value in ranges if value is not None]
    return max(known) if known else None


@dataclass(frozen=True)
class Difference:
    """How much better `method` is than `other` in a column, in percentage points.

    `verdict` is "better", "worse", "within the spread", or "unknown" (a failed row, or one seed only).
    """

    method: str
    other: str
    column: Column
    points: float | None
    verdict: str

    def text(self) -> str:
        """For sentences: signed points, with the verdict where it is not beyond the spread."""
        if self.points is None:
            return "unknown"
        return f"{self.points:+.1f}" + ("" if self.verdict in ("better", "worse") else f" ({self.verdict})")


def difference(results: Results, method: str, other: str, column: Column) -> Difference:
    """Compare two methods in a column by the rule in the module's docstring."""
    left, right = cell(results, method, column), cell(results, other, column)
    spread = column_spread(results, column)
    if left.mean is None or right.mean is None:
        return Difference(method, other, column, None, "unknown")
    points = left.mean - right.mean
    if spread is None or left.failed or right.failed:
        return Difference(method, other, column, points, "unknown")
    verdict = "within the spread" if abs(points) <= spread else ("better" if points > 0 else "worse")
    return Difference(method, other, column, points, verdict)


def failures(results: Results) -> list[tuple[str, str]]:
    """(what, error) of everything that did not finish: rows, pre-trainings and other jobs."""
    return [
        (entry["id"], entry.get("error", "unknown error"))
        for part in ("jobs", "pretraining", "rows")
        for entry in results.get(part, [])
        if entry["status"] != "done"
    ]


def diagnostic(results: Results, method: str, key: str) -> list[float]:
    """A diagnostic of every finished pre-training of a method, in the order of seeds."""
    entries: Sequence[Mapping[str, Any]] = results.get("pretraining", [])
    values = [entry.get("diagnostics", {}).get(key) for entry in entries if entry["method"] == method]
    return [float(value) for value in values if value is not None]
