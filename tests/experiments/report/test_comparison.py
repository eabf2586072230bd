"""Cells against numpy, and the rule of what counts as a difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.comparison import Cell, compare, largest_range, percent
from m33d_hf.experiments.report.results import cell, understood


def test_a_cell_against_numpy() -> None:
    values = (31.2, 29.9, 30.7, 33.1)
    found = Cell(values)
    assert found.n == 4 and found.min == 29.9 and found.max == 33.1
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.range == pytest.approx(3.2)
    assert Cell((1.0,)).std is None and Cell((1.0,)).range is None
    assert Cell(()).mean is None and Cell(()).min is None and Cell(()).max is None
    assert largest_range([Cell((1.0, 2.0)), Cell((1.0, 4.0)), Cell(())]) == 3.0
    assert largest_range([Cell((1.0,))]) is None


@pytest.mark.parametrize(
    ("left", "right", "limit", "points", "verdict"),
    [
        (Cell((5.0, 7.0)), Cell((2.0, 4.0)), 2.0, 3.0, "better"),
        (Cell((2.0, 4.0)), Cell((5.0, 7.0)), 2.0, -3.0, "worse"),
        (Cell((5.0, 7.0)), Cell((2.0, 4.0)), 3.0, 3.0, "within the spread"),  # exactly the spread is not beyond it
        (Cell((5.0, 7.0), failed=1), Cell((2.0, 4.0)), 1.0, 3.0, "unknown"),
        (Cell((6.0,)), Cell((2.0, 4.0)), 1.0, 3.0, "unknown"),
        (Cell((5.0, 7.0)), Cell((2.0, 4.0)), None, 3.0, "unknown"),
        (Cell(()), Cell((2.0, 4.0)), 1.0, None, "unknown"),
    ],
)
def test_the_rule(left: Cell, right: Cell, limit: float | None, points: float | None, verdict: str) -> None:
    assert compare(left, right, limit) == (points, verdict)


@pytest.mark.parametrize("value", [True, "0.5", [0.5], None, {"value": 0.5}])
def test_a_value_of_another_kind_is_no_cell(value: object, tmp_path: Path) -> None:
    """True passed for 100 %; the message names the file that is read."""
    assert percent(0.25) == 25.0 and percent(1) == 100
    row = {"variant": "base", "column": "depth-50", "seed": 0, "status": "done", "value": value}
    unknown = pytest.raises(ConfigError, match=r"results\.json is not a file that this version .* not a number")
    with unknown, understood(tmp_path / "results.json"):
        cell({"rows": [row]}, "base", "depth-50")
