"""Tables and curves from logged rows, and which evaluation was the best."""

from __future__ import annotations

import math
from typing import Any

from m33d_hf.training.showing.story import best_row, classes_table, inputs_table, metrics_table, run_curves

ROWS: list[dict[str, Any]] = [
    {"kind": "train", "step": 5, "loss": 2.0, "learning_rate": 0.1},
    {"kind": "eval", "step": 5, "eval/loss": 3.0, "eval/miou": 0.2, "eval/iou/wall": 0.4, "seconds": 1.0},
    {"kind": "train", "step": 10, "loss": 1.0, "learning_rate": 0.2},
    {"kind": "eval", "step": 10, "eval/loss": 1.5, "eval/miou": math.nan, "eval/iou/wall": 0.3, "eval/iou/floor": 0.1},
    {"kind": "eval", "step": 15, "eval/loss": 1.5, "eval/miou": 0.2},
]


def test_metrics_and_classes_have_tables() -> None:
    table = metrics_table(ROWS)
    assert table is not None and list(table.header) == ["metric", "step 5", "step 10", "step 15"]
    assert [list(row) for row in table.rows] == [["loss", "3", "1.5", "1.5"], ["miou", "0.2", "-", "0.2"]]
    many = [{"kind": "eval", "step": step, "eval/rmse": 0.5} for step in range(1, 41)]
    long = metrics_table(many)
    assert long is not None and long.header[1] == "step 1" and long.header[-1] == "step 40" and len(long.header) == 7
    assert long.rows[0][0] == "rmse [m]" and "6 of 40 evaluations" in long.note
    classes = classes_table(ROWS[3])
    assert classes is not None and [list(row) for row in classes.rows] == [["floor", "0.1"], ["wall", "0.3"]]
    assert classes_table(ROWS[4]) is None and metrics_table(ROWS[:1]) is None


def test_input_sets_stand_side_by_side_without_single_classes() -> None:
    table = inputs_table({"RGB": {"miou": 0.25, "iou/wall": 0.5}, "RGB and depth": {"miou": 0.5, "rmse": 2.0}})
    assert list(table.header) == ["metric", "RGB", "RGB and depth"]
    assert [list(row) for row in table.rows] == [["miou", "0.25", "0.5"], ["rmse [m]", "-", "2"]]


def test_the_best_evaluation_is_the_first_of_equals_and_never_nan() -> None:
    assert best_row(ROWS, "eval/miou", greater=True) is ROWS[1]
    assert best_row(ROWS, "eval/loss", greater=False) is ROWS[3]
    assert best_row(ROWS, "eval/absent", greater=True) is None


def test_curves_hold_what_was_logged() -> None:
    figure = run_curves({"run": ROWS}, "eval/miou")
    loss, miou, rate = figure.axes
    assert [list(map(float, line.get_ydata())) for line in loss.lines] == [[2.0, 1.0], [3.0, 1.5, 1.5]]
    assert list(miou.lines[0].get_xdata()) == [5, 15] and list(rate.lines[0].get_ydata()) == [0.1, 0.2]
    assert [axis.get_title() for axis in figure.axes] == [
        "loss: training, evaluation (dashed)",
        "miou",
        "learning rate",
    ]
    assert len(run_curves({"run": ROWS}, "eval/loss").axes) == 2
