"""Cells, costs and pre-trainings of results.json, by hand."""

from __future__ import annotations

import pytest

from helpers.reproduction_results import made_pretraining, made_results, made_row
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.comparison import Cell
from m33d_hf.experiments.report.results import (
    cell,
    column_entry,
    cost,
    failures,
    seed_values,
    stuck_pretraining,
    table_entry,
)


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


def test_fine_tunings_of_one_encoder_are_averaged_and_one_that_failed_takes_its_seed_along() -> None:
    results = made_results()
    draws = [(0, 0.2), (0, 0.4), (1, 0.5), (1, None), (2, 0.1)]
    results["rows"] = [{**made_row("a", "c", seed, value), "draw": place} for place, (seed, value) in enumerate(draws)]
    found = cell(results, "a", "c")
    assert found.values == pytest.approx((30.0, 10.0)) and found.failed == 1, "two seeds, not four values"
    assert seed_values(results, "a", "c") == pytest.approx({0: 30.0, 2: 10.0})


@pytest.mark.parametrize(
    ("losses", "stuck"),
    [
        ({"loss/rgb": 0.9913, "loss": 0.9913}, True),
        ({"loss/rgb": 0.95, "loss": 0.95}, False),
        ({"loss/rgb": 0.9913, "loss/depth": 1.5}, False),  # the depth has no floor that a formula tells
        ({"retrieval_accuracy_depth": 0.2}, False),
        ({}, False),
    ],
)
def test_a_pretraining_on_its_floor_is_stuck(losses: dict[str, float], stuck: bool) -> None:
    results = made_results()
    for entry in results["pretraining"]:
        if entry["variant"] == "win":
            entry.update(diagnostics=losses, loss_floors={"loss/rgb": 127 / 128})
    assert stuck_pretraining(results, "win") is stuck
    assert not stuck_pretraining(results, "scratch") and not stuck_pretraining(results, "base")
