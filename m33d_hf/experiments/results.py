"""results.json of the demo: reading cells out of it, and what counts as a difference.

`rows` holds one entry per method, task, number of labels and seed; a column is a task with a number of labels. What
is beyond the spread of a column, `m33d_hf.experiments.comparison` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m33d_hf.experiments.comparison import Cell, compare, largest_range, percent

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
    done = [percent(row["value"]) for row in rows if row["status"] == "done"]
    return Cell(tuple(done), len(rows) - len(done))


def column_spread(results: Results, column: Column) -> float | None:
    """Largest range between the seeds of one method, over the methods; None where no method has two seeds."""
    return largest_range(cell(results, method, column) for method in methods(results))


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
    """Compare two methods in a column by the rule of `m33d_hf.experiments.comparison`."""
    spread = column_spread(results, column)
    points, verdict = compare(cell(results, method, column), cell(results, other, column), spread)
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
