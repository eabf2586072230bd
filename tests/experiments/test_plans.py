"""Every plan of the tables: declared contrasts, equal FLOPs, cost, and its smallest budget from end to end."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from m33d_hf.experiments.collecting import collect, questions_of
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.costs import dry_run_lines, estimate
from m33d_hf.experiments.driver import run
from m33d_hf.experiments.jobs import Job, check_jobs
from m33d_hf.experiments.plan import load_plan
from m33d_hf.experiments.report.answers import answers
from m33d_hf.experiments.report.contrasts import column_model
from m33d_hf.experiments.report.reproduction import summary
from m33d_hf.experiments.report.results import cell, load_results
from m33d_hf.training.recipe.parsing import parse_arguments

ROOT = Path(__file__).parents[2]
README = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
PLANS = (
    *("core", "parts", "masks", "initialisation", "labels", "clips_labels", "clips", "temporal", "rgbd", "gpu"),
    *("confirm_single", "mae_masks", "search_hidden", "search_normals", "own_method", "own_clips"),
    *("confirm_normed", "confirm_rivals", "confirm_rooms", "clips_normed", "rgbd_sets", "rgbd_clips", "labels_long"),
)


@pytest.mark.parametrize("name", PLANS)
def test_contrasts_are_declared_of_what_is_measured(name: str, tmp_path: Path) -> None:
    plan = load_plan(name, "full", tmp_path)
    check_jobs(jobs_of(plan))
    measured = {(entry, item) for entry in plan.entries for item in plan.measurements(entry)}
    assert [question["id"] for question in plan.content["questions"] if question.get("primary")], "one is judged by"
    for question in plan.content["questions"]:
        pairs = [(pair[side], column) for pair in question["compare"] for side in ("better", "than")
                 for column in pair["columns"]]  # fmt: skip
        assert all((entry, plan.columns()[column]["of"]) in measured for entry, column in pairs), question["id"]
    for table in plan.content["tables"]:
        for row in table["rows"]:
            assert all((row, plan.columns()[column]["of"]) in measured for column in table["columns"]), (
                table["id"],
                row,
            )
    assert questions_of(load_plan(name, "smoke", tmp_path)), "the smallest budget still compares something"


@pytest.mark.parametrize(("name", "other"), [("mae-equal", "m33d_plus"), ("clips-m33d-equal", "clips-videomae")])
def test_equal_flops_count_all_stages(name: str, other: str, tmp_path: Path) -> None:
    plan = load_plan("core" if name == "mae-equal" else "clips", "full", tmp_path)

    def flops(entry: str) -> float:
        return sum(plan.steps(link) * plan.step_flops(link) for link in plan.chain(entry))

    assert flops(name) == pytest.approx(flops(other), rel=0.001)


def test_core_fits_its_hour_and_tells_what_it_would_cost(tmp_path: Path) -> None:
    plan = load_plan("core", "full", tmp_path)
    jobs = jobs_of(plan)
    assert sum(job.cost for job in jobs) / 2 <= 60 * 60
    said = "\n".join(dry_run_lines(plan, jobs, 2))
    assert "semantic segmentation     80 jobs" in said and "about 0:4" in said
    assert "primary: Is M33D+ better than MAE at equal FLOPs and than scratch in segmentation? (Holm over 2)" in said
    gpu = load_plan("gpu", "full", tmp_path)
    assert sum(job.cost for job in jobs_of(gpu)) / 8 <= 5 * 60


LISTED = dict(re.findall(r"^\| `(\w+)` \| .* \| (\d:\d\d)(?: of the GPU)? \|$", README, flags=re.M))


@pytest.mark.parametrize("name", LISTED)
def test_the_estimates_that_are_listed_are_those_that_are_told(tmp_path: Path, name: str) -> None:
    plan = load_plan(name, "full", tmp_path)
    (told,) = re.findall(r"about (\d+):(\d+):(\d+) in", estimate(jobs_of(plan), plan.compute.workers or 2, "full"))
    hours, minutes = LISTED[name].split(":")
    assert abs(60 * int(told[0]) + int(told[1]) + int(told[2]) / 60 - 60 * int(hours) - int(minutes)) <= 1


@pytest.mark.parametrize(("name", "measured"), [("own_clips", 1.67), ("clips_labels", 1.30)])
def test_pretrainings_of_clips_are_expected_to_take_what_they_took(tmp_path: Path, name: str, measured: float) -> None:
    """`measured`: seconds over what operations alone tell; one figure serves both plans, so that neither is hit."""
    plan, results = load_plan(name, "full", tmp_path), load_results(ROOT / "results" / name)
    jobs = {job.id: job.cost for job in jobs_of(plan)}
    done = [(entry["seconds"], jobs[plan.pretraining_id(entry["variant"], entry["seed"])])
            for entry in results["pretraining"] if len(plan.chain(entry["variant"])) == 1]  # fmt: skip
    ratio = sum(seconds for seconds, _ in done) / sum(cost for _, cost in done)
    assert ratio == pytest.approx(measured / 1.5, rel=0.1)


def test_the_masks_that_own_method_compared_are_those_that_are_told(tmp_path: Path) -> None:
    plan, results = load_plan("own_method", "full", tmp_path), load_results(ROOT / "results" / "own_method")
    words = plan.recipe_words("shown", 0)
    ratios = {words[place + 1] for place, word in enumerate(words) if word.endswith("mask_ratio")}
    steps = {entry["variant"]: entry["steps"] for entry in results["pretraining"]}
    assert ratios == {"0.8"}
    told = " ".join(README.split())
    assert "RGB-D MAE has mask ratios of .8 (RGB and depth), where `own/pretrain` had .75" in told
    assert f"{steps['shown']:,} steps of the one and {steps['single']:,} of the other" in told


def test_fine_tunings_of_an_encoder_differ_in_their_seed_alone(tmp_path: Path) -> None:
    jobs = {job.id: job for job in jobs_of(load_plan("core", "full", tmp_path))}
    first, second = (list(jobs[f"semseg-m33d_plus-s1{end}"].parameters["argv"]) for end in ("", "-f2"))
    changed = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    assert changed == [("1", "2001"), ("1", "2001")], "the run's and the labels'"
    depth = jobs["depth-scratch-s0"].parameters["argv"]
    assert depth[depth.index("--model.depth_loss") + 1] == "l1"


def test_rows_of_temporal_models_differ_in_their_second_stage_alone(tmp_path: Path) -> None:
    jobs = {job.id: job.parameters for job in jobs_of(load_plan("temporal", "full", tmp_path))}
    paper, other = jobs["phases-gru-s1"], jobs["phases-tcn-causal-s1"]
    assert paper["clip_argv"] == other["clip_argv"] and paper["output_dir"] != other["output_dir"]
    model = parse_arguments(list(other["temporal_argv"]), "action_detection").model
    assert (model["temporal_model"], model["temporal_causal"], model["temporal_tcn_stages"]) == ("tcn", True, 3)
    assert "temporal_model" not in parse_arguments(list(paper["temporal_argv"]), "action_detection").model


def test_rows_of_rgb_and_depth_have_one_encoder_and_differ_in_their_inputs_alone(tmp_path: Path) -> None:
    jobs = {job.id: job.parameters for job in jobs_of(load_plan("rgbd", "full", tmp_path))}
    rgb, both = (list(jobs[f"semseg-{name}-s1"]["argv"]) for name in ("rgb", "concatenation"))
    start = rgb[rgb.index("--init_from") + 1]
    assert start == both[both.index("--init_from") + 1] == jobs["pretrain-m33d_plus-s1"]["output_dir"]
    more = ["--model.task_inputs", "[rgb, depth]", "--model.task_fusion", "concatenation", "--model.depth_dropout"]
    place = both.index(more[0])
    assert both[place : place + 5] == more and both[:place] + both[place + 6 :] == rgb
    assert "--init_from" not in jobs["semseg-scratch-sum-s1"]["argv"]


def test_a_model_of_rgb_has_no_value_for_depth(tmp_path: Path) -> None:
    plan = load_plan("rgbd", "full", tmp_path)
    rows = {job.id: _row(job, place) for place, job in enumerate(jobs_of(plan))}
    for name, row in rows.items():
        if name.startswith(("semseg-rgb-", "semseg-scratch-rgb-")):
            del row["metrics"]["depth/miou"]
    found = collect(plan, rows)
    named = {variant: {row["column"] for row in found["rows"] if row["variant"] == variant} for variant in plan.entries
             if plan.measurements(variant)}  # fmt: skip
    assert named["rgb"] == named["scratch-rgb"] == {"given", "hidden"}
    assert named["sum"] == named["scratch-sum"] == {"given", "hidden", "depth"}
    assert {entry["variant"] for entry in found["pretraining"]} == {"rgb", "sum", "concatenation", "cross_attention"}
    del rows["semseg-sum-s0"]["metrics"]["miou"]
    with pytest.raises(KeyError):  # what every model has is never left out
        collect(plan, rows)


def _row(job: Job, place: int) -> dict[str, Any]:
    """What a worker would have left: fine-tunings of one encoder differ."""
    row: dict[str, Any] = {"id": job.id, "status": "done", "started": 0.0, "wall_seconds": 2.0, "cpu_seconds": 1.5}
    if job.id.startswith("pretrain-"):
        row |= {"stage": None, "steps": job.parameters["steps"], "seconds": 1.0, "flops": 10.0, "encoder_parameters": 5}
        return {**row, "diagnostics": {"loss/rgb": 0.5, "loss": 0.5}}
    names = ("miou", "delta1", "top1", "map", "clipwise/map", "knn/top1", "linear/top1")
    names += ("frame_accuracy", "phase_jaccard", "edit", "f1_50")
    names += tuple(f"{inputs}/{name}" for inputs in ("rgb", "depth") for name in ("miou", "top1", "map"))
    value = 0.3 + 0.1 * random.Random(place).random() + 0.2 * ("m33d_plus" in job.id)
    return {**row, "metrics": dict.fromkeys(names, value), "steps": 1, "seconds": 1.0}


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_collects_and_answers_its_questions(name: str, tmp_path: Path) -> None:
    plan = load_plan(name, "full", tmp_path)
    results = collect(plan, {job.id: _row(job, place) for place, job in enumerate(jobs_of(plan))})
    for found in answers(results):
        for comparison in found.comparisons:
            for one in comparison.differences:
                assert one.n == len(plan.seeds) and one.estimate is not None, "n counts encoders, not fine-tunings"
    column = results["columns"][0]["id"]
    assert cell(results, results["tables"][0]["rows"][0]["variant"], column).n == len(plan.seeds)
    rows = {row["variant"] for row in results["rows"] if row["column"] == column}
    assert column_model(results, column).df == (len(rows) - 1) * (len(plan.seeds) - 1)
    assert len(summary(results)) == len(plan.content["questions"]) + 1
    assert all(entry["loss_floors"].get("loss/rgb", 1.0) > 0.99 for entry in results["pretraining"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_the_smallest_budget_runs_from_end_to_end(name: str, tmp_path: Path, tmp_path_factory: Any) -> None:
    """Two seeds, a few steps, real training; whatever is said afterwards is said of real rows."""
    cache = tmp_path_factory.getbasetemp() / "rooms"
    assert run(name, tmp_path, "smoke", workers=1, cache_dir=str(cache)) == 0
    results = load_results(tmp_path)
    assert all(row["status"] == "done" for row in results["rows"]) and results["questions"]
    said = (tmp_path / "answers.md").read_text(encoding="utf-8")
    assert all(question["text"] in said for question in results["questions"])
    assert re.search(r"better by|worse by|no difference larger than|no verdict", said)


def test_every_share_of_videos_takes_as_many_steps_in_both_stages(tmp_path: Path) -> None:
    """Epochs would be a twentieth of the steps with a twentieth of the videos."""
    jobs = {job.id: job for job in jobs_of(load_plan("clips_labels", "full", tmp_path))}

    def steps(name: str) -> tuple[int | None, ...]:
        parameters = jobs[name].parameters
        stages = ((parameters["clip_argv"], "video_classification"), (parameters["temporal_argv"], "action_detection"))
        return tuple(parse_arguments([*argv, "--output_dir", "x"], task).train.max_steps for argv, task in stages)

    assert {steps(f"phases-{share}-hidden-random-s1") for share in ("0.05", "0.1", "0.2", "1")} == {(200, 720)}
    assert steps("phases-1-half-hidden-random-s1") == (100, 360)
