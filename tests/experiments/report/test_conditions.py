"""A plan's conditions: no verdict before a baseline has learnt, on its own row or on all; the losses are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.reproduction_results import made_results
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.costs import dry_run_lines
from m33d_hf.experiments.plan import load_plan
from m33d_hf.experiments.report.answers import declared
from m33d_hf.experiments.report.conditions import check_conditions
from m33d_hf.experiments.report.reproduction import write_reports

# "win", "base" and "same" are compared; "base" stands for VideoMAE here.
GATES = {"variant": "base", "loss": "loss/rgb", "below": 0.95}


def _results(losses: tuple[float, ...], gates: str) -> dict[str, Any]:
    results = {**made_results(), "conditions": [{**GATES, "gates": gates}]}
    for entry, loss in zip([one for one in results["pretraining"] if one["variant"] == "base"], losses, strict=True):
        entry.update(diagnostics={"loss/rgb": loss}, loss_floors={"loss/rgb": 127 / 128})
    ask = {"better": "win", "than": "same", "columns": ["semseg-200"], "text": "win against same"}
    results["questions"].append({"id": "others", "text": "Do others differ?", "compare": [ask]})
    return results


def _verdicts(results: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(one.pair.better, one.pair.than): one.text() for one in declared(results)}


def test_below_the_bound_in_every_seed_there_are_verdicts() -> None:
    verdicts = _verdicts(_results((0.949, 0.93, 0.90), "all"))
    assert "better by" in verdicts["win", "base"] and "better by" in verdicts["win", "same"]
    assert "no difference larger than" in verdicts["same", "base"]


@pytest.mark.parametrize("losses", [(0.951, 0.93, 0.90), (0.95, 0.9, 0.9), (0.991, 0.992, 0.991)])
def test_one_seed_above_and_nothing_is_concluded(losses: tuple[float, ...]) -> None:
    verdicts = _verdicts(_results(losses, "all"))
    assert all(text.startswith("no verdict") for text in verdicts.values())
    assert "the rgb loss of base must be below .950 and is " in verdicts["win", "same"]
    stuck = "never left its trivial loss" in verdicts["win", "base"]
    assert stuck == (losses[0] > 0.99 * 127 / 128), "the harder reason is the one that is given"


def test_a_condition_may_hold_back_its_own_row_alone() -> None:
    verdicts = _verdicts(_results((0.97, 0.97, 0.97), "own"))
    assert verdicts["win", "base"] == "no verdict (the rgb loss of base must be below .950 and is .970 / .970 / .970)"
    assert "better by" in verdicts["win", "same"]


def test_a_loss_that_nobody_measured_is_no_proof() -> None:
    results = {**made_results(), "conditions": [{**GATES, "gates": "all"}]}
    for entry in results["pretraining"]:
        entry["diagnostics"] = {}
    assert "below .950 and is not known" in _verdicts(results)["win", "base"]


def test_a_seed_that_failed_is_not_below_the_bound() -> None:
    """Two seeds that learnt do not speak for the third one, whose baseline might never have left its floor."""
    results = _results((0.94, 0.9, 0.9), "all")
    (lost,) = [one for one in results["pretraining"] if (one["variant"], one["seed"]) == ("base", 1)]
    lost.update(status="failed", error="OSError: disk full")
    del lost["diagnostics"]
    said = "no verdict (the rgb loss of base must be below .950 and is .940 / not known / .900)"
    assert _verdicts(results)["win", "same"] == said
    results["pretraining"].remove(lost)
    assert _verdicts(results)["win", "same"] == said


def test_refused_comparisons_do_not_cost_the_others_their_level() -> None:
    """Holm's adjustment is over what gets a verdict: one comparison is left of two, so its p is its own."""
    results = _results((0.97, 0.97, 0.97), "own")
    pairs = [{"better": "win", "than": than, "columns": ["semseg-200"]} for than in ("base", "same")]
    results["questions"] = [{"id": "both", "text": "Both?", "compare": pairs}]
    refused, left = declared(results)
    assert refused.p_adjusted is None and left.estimate is not None and left.p_adjusted == left.estimate.p


def test_reports_print_losses_floor_and_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m33d_hf.experiments.report import reproduction

    monkeypatch.setattr(reproduction, "all_pictures", lambda *_: {"answers": []})
    for losses, outcome in (((0.97, 0.9, 0.9), "**not met**"), ((0.94, 0.9, 0.9), "met")):
        write_reports(_results(losses, "all"), tmp_path)
        said = (tmp_path / "answers.md").read_text(encoding="utf-8")
        assert f"(a constant reaches .992): {outcome}." in said
        assert said.index("## Conditions") < said.index("## Does winning help?")
        assert f"{losses[0]:.3f} / {losses[1]:.3f} / {losses[2]:.3f} (floor 0.992)" in (
            tmp_path / "tables.md"
        ).read_text(encoding="utf-8")


def test_the_plan_of_clips_waits_for_its_videomae(tmp_path: Path) -> None:
    plan = load_plan("clips", "full", tmp_path)
    (primary,) = [question for question in plan.content["questions"] if question.get("primary")]
    baselines = {pair["than"] for pair in primary["compare"]}
    assert baselines == {one["variant"] for one in plan.conditions if one["gates"] == "all"}
    assert all((one["loss"], one["below"]) == ("loss/rgb", 0.95) for one in plan.conditions)
    masked = {name for name, entry in plan.entries.items() if entry.get("method") == "videomae"}
    assert masked == {one["variant"] for one in plan.conditions}
    assert plan.loss_floors("clips-videomae") == {"loss/rgb": pytest.approx(127 / 128)}
    lines = dry_run_lines(plan, jobs_of(plan), 2)
    assert "condition: nothing is concluded unless loss/rgb of videomae-random is below 0.95" in lines


def test_a_condition_of_a_row_that_the_budget_leaves_out_is_left_out(tmp_path: Path) -> None:
    declared, smoke = (load_plan("clips_labels", budget, tmp_path).conditions for budget in ("full", "smoke"))
    assert [one["variant"] for one in declared] == ["videomae-random"] and smoke == []


@pytest.mark.parametrize("wrong", [{"gates": "some"}, {"variant": "nobody"}, {"bellow": 0.9}])
def test_a_condition_that_cannot_be_judged_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gates all or own"):
        check_conditions([{**GATES, "gates": "all", **wrong}], ["base"])
