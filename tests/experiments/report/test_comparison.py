"""Cells against numpy, and values that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.comparison import Cell, percent
from m33d_hf.experiments.report.results import cell, understood


def test_a_cell_against_numpy() -> None:
    values = (31.2, 29.9, 30.7, 33.1)
    found = Cell(values)
    assert found.n == 4 and found.min == 29.9 and found.max == 33.1
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert Cell((1.0,)).std is None
    assert Cell(()).mean is None and Cell(()).min is None and Cell(()).max is None


@pytest.mark.parametrize("value", [True, "0.5", [0.5], None, {"value": 0.5}])
def test_a_value_of_another_kind_is_no_cell(value: object, tmp_path: Path) -> None:
    """True passed for 100 %; the message names the file that is read."""
    assert percent(0.25) == 25.0 and percent(1) == 100
    row = {"variant": "base", "column": "depth-50", "seed": 0, "status": "done", "value": value}
    unknown = pytest.raises(ConfigError, match=r"results\.json is not a file that this version .* not a number")
    with unknown, understood(tmp_path / "results.json"):
        cell({"rows": [row]}, "base", "depth-50")
