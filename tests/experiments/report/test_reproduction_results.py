"""Cells, spreads and differences of the reproduction, by hand."""

from __future__ import annotations

import pytest

from helpers.reproduction_results import made_pretraining, made_results, made_row
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.comparison import Cell
from m33d_hf.experiments.report.results import (
    best,
    cell,
    column_entry,
    cost,
    difference,
    failures,
    paired,
    spread,
    table_entry,
    table_spread,
)


def test_differences_have_the_known_answers() -> None:
    results = made_results()
    won = difference(results, "win", "base", "semseg-200")
    assert (won.verdict, won.points, won.spread) == ("better", pytest.approx(10.0), pytest.approx(2.0))
    assert won.agreeing == 3 and len(won.paired) == 3
    assert difference(results, "base", "win", "semseg-200").verdict == "worse"
    same = difference(results, "same", "base", "depth-200")
    assert same.verdict == "within the spread" and same.points == pytest.approx(1.0)
    assert list(same.paired.values()) == pytest.approx([3.0, 1.0, -1.0]) and same.agreeing == 2
    assert same.paired_cell.mean == pytest.approx(1.0) and same.paired_cell.std == pytest.approx(2.0)
    for other, pairs in (("broken", 2), ("absent", 0), ("alone", 1)):
        found = difference(results, other, "base", "semseg-200")
        assert found.verdict == "unknown" and len(found.paired) == pairs
    assert difference(results, "absent", "base", "semseg-200").points is None
    assert difference(results, "absent", "base", "semseg-200").agreeing == 0
    assert paired(results, "broken", "base", "semseg-200").keys() == {0, 2}


def test_failed_seeds_are_counted_and_told() -> None:
    results = made_results()
    assert cell(results, "broken", "semseg-200").failed == 1
    assert cell(results, "absent", "semseg-200") == Cell(())
    results["pretraining"][0] = {"variant": "base", "seed": 0, "status": "blocked"}
    results["grid"][0].update(status="failed", error="OSError: disk full")
    told = dict(failures(results))
    assert told["pretrain-base-s0"] == "blocked" and told["grid-base-s7"] == "OSError: disk full"
    assert told["semseg-200-broken-s1"].startswith("NonFiniteLossError")
    assert len(told) == 5


def test_the_spread_is_that_of_the_tables_which_show_both() -> None:
    results = made_results()
    for row in results["rows"]:
        if (row["variant"], row["column"]) == ("scratch", "semseg-200"):
            row["value"] = (0.20, 0.25, 0.32)[row["seed"]]
    assert table_spread(results, table_entry(results, "table_3"), "semseg-200") == pytest.approx(12.0)
    assert table_spread(results, table_entry(results, "table_8"), "semseg-200") == pytest.approx(2.0)
    assert spread(results, "win", "base", "semseg-200") == pytest.approx(12.0), "the most careful of the tables"
    assert spread(results, "broken", "alone", "semseg-200") == pytest.approx(2.0), "only Table 8 shows both"
    assert difference(results, "win", "base", "semseg-200").verdict == "within the spread"
    eight = table_entry(results, "table_8")
    assert difference(results, "win", "base", "semseg-200", eight).verdict == "better"
    assert spread(results, "alone", "ratio-1", "semseg-200") == pytest.approx(12.0), "no table shows both: any variant"


def test_best_needs_a_win_over_every_other_row() -> None:
    results = made_results()
    assert best(results, table_entry(results, "table_3"), "semseg-200") == "win"
    assert best(results, table_entry(results, "table_8"), "semseg-200") is None, "a failed seed leaves it open"
    assert best(results, table_entry(results, "table_6"), "semseg-200") is None, "the second is 2 points below"
    assert best(results, table_entry(results, "empty"), "semseg-200") is None


def test_cost_is_a_mean_over_finished_seeds() -> None:
    results = made_results()
    found = cost(results, "base")
    assert found is not None and (found.steps, found.flops, found.cpu_seconds) == (500, 3e12, 60.0)
    assert cost(results, "scratch") is None
    results["pretraining"] = [
        made_pretraining("base", 0, 1e12),
        {**made_pretraining("base", 1, 1e12), "status": "failed"},
    ]
    found = cost(results, "base")
    assert found is not None and found.cpu_seconds == 59.0


def test_unknown_names_are_errors_that_name_the_known() -> None:
    with pytest.raises(ConfigError, match=r"no table 'table_9'.*table_3"):
        table_entry(made_results(), "table_9")
    with pytest.raises(ConfigError, match=r"no column 'x'.*semseg-200"):
        column_entry(made_results(), "x")


def test_rows_are_read_by_seed_in_any_order() -> None:
    results = made_results()
    results["rows"] = [made_row("a", "c", 2, 0.3), made_row("a", "c", 0, 0.1), made_row("a", "c", 1, None)]
    assert cell(results, "a", "c").values == pytest.approx((10.0, 30.0))
