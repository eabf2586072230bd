"""Tables and curves of a run out of what it logged; shared by the report of one run and the comparison of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m33d_hf.data.sources.frames.frames import spread_indices
from m33d_hf.visualization.curves import Curve, curves_figure
from m33d_hf.visualization.document import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
PREFIX = "eval/"
# One value per class, or the same errors by image: tables of their own.
_PER_CLASS = ("iou/", "ap/", "clipwise/ap/")
_APART = (*_PER_CLASS, "per_image/")
# What a number counts; everything else has no unit.
_UNITS = {"rmse": "m", "sq_rel": "m", "seconds": "s"}
MOST_COLUMNS = 6
_MOST_CLASSES = 60


def evaluations(history: Sequence[Row]) -> list[Row]:
    """The rows of evaluations."""
    return [row for row in history if row["kind"] == "eval"]


def metric_values(row: Row) -> dict[str, float]:
    """Metrics of an evaluation without the prefix."""
    return {name.removeprefix(PREFIX): float(value) for name, value in row.items() if name.startswith(PREFIX)}


def number_text(value: float | None) -> str:
    """Four digits; a dash where there is no value."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def named(metric: str) -> str:
    """A metric with its unit."""
    unit = _UNITS.get(metric.split("/")[-1])
    return f"{metric} [{unit}]" if unit else metric


def is_plain(metric: str) -> bool:
    """Whether a metric is one of the run as a whole, not of a class or by image."""
    return not metric.startswith(_APART)


def metrics_table(history: Sequence[Row]) -> Table | None:
    """Metrics: rows; evaluations, spread over the run with the first and the last: columns. None without any."""
    rows = evaluations(history)
    if not rows:
        return None
    shown = [rows[place] for place in spread_indices(len(rows), MOST_COLUMNS)]
    values = [metric_values(row) for row in shown]
    names = [name for name in dict.fromkeys(n for each in values for n in each) if is_plain(name)]
    lines = [[named(name), *(number_text(each.get(name)) for each in values)] for name in names]
    note = f"{len(shown)} of {len(rows)} evaluations; all are in metrics.jsonl." if len(rows) > len(shown) else ""
    return Table(["metric", *(f"step {row['step']}" for row in shown)], lines, note=note)


def inputs_table(rounds: Mapping[str, Mapping[str, float]]) -> Table:
    """Metrics: rows; what the model was given: columns.

    Args:
        rounds: words for the inputs -> metrics.
    """
    names = [name for name in dict.fromkeys(n for each in rounds.values() for n in each) if is_plain(name)]
    lines = [[named(name), *(number_text(each.get(name)) for each in rounds.values())] for name in names]
    return Table(["metric", *rounds], lines)


def classes_table(row: Row) -> Table | None:
    """One value per class of an evaluation, the lowest first; None for a task without."""
    values = {name: value for name, value in metric_values(row).items() if name.startswith(_PER_CLASS)}
    if not values:
        return None
    kinds = list(dict.fromkeys(name.rpartition("/")[0] for name in values))
    classes = list(dict.fromkeys(name.rpartition("/")[2] for name in values))
    classes.sort(key=lambda name: values.get(f"{kinds[0]}/{name}", math.inf))
    lines = [[name, *(number_text(values.get(f"{kind}/{name}")) for kind in kinds)] for name in classes]
    note = f"The lowest {_MOST_CLASSES} of {len(lines)} classes." if len(lines) > _MOST_CLASSES else "Lowest first."
    return Table(["class", *kinds], lines[:_MOST_CLASSES], note=note)


def best_row(history: Sequence[Row], metric: str, greater: bool) -> Row | None:
    """The evaluation with the best value of a metric ("eval/..."); the first of equals; None without a finite one."""
    rows = [row for row in evaluations(history) if math.isfinite(float(row.get(metric, math.nan)))]
    if not rows:
        return None
    return max(rows, key=lambda row: row[metric] if greater else -row[metric])


def run_curves(histories: Mapping[str, Sequence[Row]], metric: str | None) -> Figure:
    """Loss (solid: training, dashed: evaluation), the metric that chooses the best weights, and the learning rate.

    Args:
        histories: name of a run -> its rows; one colour each.
        metric: "eval/..." to draw; None or the loss draws no panel of its own.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    panels: dict[str, list[Curve]] = {"loss: training, evaluation (dashed)": []}
    extra = metric if metric not in (None, "eval/loss") else None
    if extra is not None:
        panels[extra.removeprefix(PREFIX)] = []
    panels["learning rate"] = []
    for name, rows in histories.items():
        loss = panels["loss: training, evaluation (dashed)"]
        loss += _curve(rows, "loss", name, "train", 0) + _curve(rows, "eval/loss", name, "eval", 1)
        if extra is not None:
            panels[extra.removeprefix(PREFIX)] += _curve(rows, extra, name, "eval", 0)
        panels["learning rate"] += _curve(rows, "learning_rate", name, "train", 0)
    return curves_figure(panels, groups=list(histories))


def _curve(rows: Sequence[Row], key: str, group: str, kind: str, variant: int) -> list[Curve]:
    points = [(row["step"], float(row[key])) for row in rows if row["kind"] == kind and key in row]
    points = [(x, y) for x, y in points if math.isfinite(y)]
    return [Curve([x for x, _ in points], [y for _, y in points], group, variant)] if points else []
