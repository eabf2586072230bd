"""The reproduction's plan: what it runs, that runs are told apart, and that its results hang together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments import plan as plan_module
from m33d_hf.experiments.collecting import collect
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.costs import estimate
from m33d_hf.experiments.jobs import Job, check_jobs
from m33d_hf.experiments.plan import Plan, load_plan
from m33d_hf.experiments.report.results import failures
from m33d_hf.experiments.report.tables import floors_text


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return load_plan("reproduction", "full", tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def jobs(full: Plan) -> dict[str, Job]:
    return {job.id: job for job in jobs_of(full)}


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No operations are counted, which takes seconds for a plan, where costs and equal compute do not matter."""
    monkeypatch.setattr(plan_module, "flops_per_sample", lambda *args, **options: 1e9)


def _option(job: Job, key: str, words: str = "argv") -> str | None:
    argv = job.parameters[words]
    return argv[argv.index(key) + 1] if key in argv else None


def test_jobs_can_be_ordered_and_are_all_different(jobs: dict[str, Job]) -> None:
    check_jobs(list(jobs.values()))
    folders = [job.parameters["output_dir"] for job in jobs.values() if "output_dir" in job.parameters]
    assert len(set(folders)) == len(folders)


def test_table_six_has_exactly_the_cells_of_the_paper(full: Plan, jobs: dict[str, Job]) -> None:
    table = next(table for table in full.content["tables"] if table["id"] == "table_6")
    cells = set()
    for name in table["rows"]:
        job = jobs[f"pretrain-{name}-s0"]
        assert job.needs == ("render", "pretrain-m33d-1-s0")  # one unmasked stage 1 for all cells
        cell = tuple(float(str(_option(job, f"--modalities.{m}.mask_ratio"))) for m in ("rgb", "depth"))
        if name != "m33d-50-equal":
            assert job.parameters["steps"] == full.steps("m33d")
            cells.add(cell)
    assert cells == {(0.2, 0.2), (0.2, 0.5), (0.2, 0.8), (0.5, 0.2), (0.5, 0.5), (0.8, 0.2), (0.8, 0.8)}


def test_equal_flops_are_equal(full: Plan) -> None:
    ours, theirs = (full.steps(entry) * full.step_flops(entry) for entry in ("m33d-50-equal", "m33d"))
    assert ours == pytest.approx(theirs, rel=0.01)
    assert full.steps("m33d-50-equal") < full.steps("m33d")


def test_all_rows_of_a_seed_see_the_same_labels_and_one_recipe(jobs: dict[str, Job]) -> None:
    def settings(name: str) -> list[str]:
        argv = list(jobs[name].parameters["argv"])
        if "--init_from" in argv:
            del argv[argv.index("--init_from") : argv.index("--init_from") + 2]
        return argv

    assert settings("semseg-200-scratch-s1") == settings("semseg-200-m33d_plus-s1")
    assert settings("semseg-200-scratch-s1") != settings("semseg-200-scratch-s2")
    assert _option(jobs["depth-200-mae-s2"], "--data.subset_seed") == "2"


def test_nothing_is_chosen_on_the_test_split(full: Plan, jobs: dict[str, Job], uncounted: None) -> None:
    assert full.content["grid"]["seed"] not in full.seeds
    grid = [job for job in jobs.values() if job.id.startswith("grid-")]
    assert grid and all(_option(job, "--data.eval_split") == "validation" for job in grid)
    assert all(_option(j, "--data.eval_split") == "validation" for j in jobs.values() if j.id.startswith("pretrain-"))
    assert _option(jobs["semseg-200-mae-s0"], "--data.eval_split", "test_argv") == "test"
    exploration = load_plan("exploration", "full", full.folder)
    assert exploration.split == "validation" and not set(exploration.seeds) & set(full.seeds)
    check_jobs(jobs_of(exploration))


def test_the_longer_plan_differs_in_length_alone(full: Plan, uncounted: None) -> None:
    longer = load_plan("longer", "full", full.folder)
    assert longer.split == full.split and longer.seeds == full.seeds
    check_jobs(jobs_of(longer))
    assert set(longer.entries) <= set(full.entries)
    for name in longer.entries:
        ours, theirs = (dict(plan.content["pretraining"][name], columns=None) for plan in (longer, full))
        assert ours == theirs, f"{name} is pre-trained otherwise"
    for name in ("segmentation_steps", "depth_steps", "long_steps", "frames"):
        assert longer.budget[name] == full.budget[name]
    longer_samples, samples = (
        plan.budget["pretraining_steps"]["images"] * plan.content["common"]["images"]["train.batch_size"]
        for plan in (longer, full)
    )
    assert longer_samples == 5 * samples


def test_the_stand_in_for_imagenet_is_another_set_of_rooms(jobs: dict[str, Job]) -> None:
    assert _option(jobs["pretrain-elsewhere-s0"], "--data.options.seed") == "77"
    after = jobs["pretrain-elsewhere-mask3d-s0"]
    assert "pretrain-elsewhere-s0" in after.needs and _option(after, "--data.options.seed") is None
    assert jobs["render"].parameters["seeds"] == [0, 77]


def test_a_plan_can_have_rooms_of_its_own(full: Plan, jobs: dict[str, Job], uncounted: None) -> None:
    """Training, judging and floors, in frames, clips and videos; the stand-in for ImageNet keeps its own."""
    elsewhere = Plan({**full.content, "rooms_seed": 5}, full.budget_name, full.folder)
    found = {job.id: job for job in jobs_of(elsewhere)}
    assert set(found) == set(jobs)
    assert found["render"].parameters["seeds"] == [5, 77] and jobs["render"].parameters["seeds"] == [0, 77]
    assert found["floors"].parameters["options"]["seed"] == found["render"].parameters["options"]["seed"] == 5
    assert "seed" not in jobs["floors"].parameters["options"]
    for name, job in found.items():
        for words in (key for key in job.parameters if key.endswith("argv")):
            seed = "77" if name.startswith("pretrain-elsewhere-s") else "5"
            assert _option(job, "--data.options.seed", words) == seed, (name, words)
            assert _option(job, "--data.eval_options.seed", words) is None  # both come from one place


@pytest.mark.parametrize("name", ["reproduction", "longer"])
def test_every_question_and_table_names_what_is_measured(full: Plan, name: str) -> None:
    plan = load_plan(name, "full", full.folder)
    measured = {(entry, item) for entry in plan.entries for item in plan.measurements(entry)}
    columns = plan.columns()
    for table in plan.content["tables"]:
        for name in table["rows"]:
            assert all((name, columns[column]["of"]) in measured for column in table["columns"]), (table["id"], name)
    for question in plan.content["questions"]:
        for pair in question["compare"]:
            for name in (pair["better"], pair["than"]):
                assert all((name, columns[column]["of"]) in measured for column in pair["columns"]), (pair, name)


def test_the_full_budget_fits_its_hour_on_two_cores(jobs: dict[str, Job]) -> None:
    assert sum(job.cost for job in jobs.values()) / 2 <= 60 * 60
    assert "pre-trainings" in estimate(list(jobs.values()), 2, "full")


def test_a_smaller_budget_keeps_what_its_rows_start_from(tmp_path: Path) -> None:
    plan = load_plan("reproduction", "smoke", tmp_path)
    assert "m33d-1" in plan.entries and "m33d_plus" not in plan.entries
    check_jobs(jobs_of(plan))


def test_a_plan_takes_what_it_has_of_a_budget_that_it_inherits(tmp_path: Path) -> None:
    plan = load_plan("exploration", "smoke", tmp_path)
    assert set(plan.entries) == {"scratch", "mae", "m33d-1", "m33d"}
    check_jobs(jobs_of(plan))


def test_results_keep_failures_apart_from_numbers(tmp_path: Path) -> None:
    plan = load_plan("reproduction", "smoke", tmp_path)
    results = collect(plan, {job.id: _row(job) for job in jobs_of(plan)})
    rows = {row["id"]: row for row in results["rows"]}
    failed = rows["semseg-200-mae-s0"]
    assert failed["status"] == "failed" and failed["value"] is None and "out of memory" in failed["error"]
    assert rows["semseg-200-scratch-s0"]["value"] == 0.25 and rows["semseg-200-scratch-s0"]["pretraining_flops"] == 0
    assert rows["semseg-200-m33d-s0"]["pretraining_flops"] == 20  # both stages
    filled = {row["column"] for row in rows.values()}
    assert {"actions", "actions-knn", "actions-linear", "phases-clip", "phases-video"} <= filled
    entry = next(entry for entry in results["pretraining"] if entry["variant"] == "m33d")
    assert entry["steps"] == plan.steps("m33d") + plan.steps("m33d-1")
    # The contrast is judged after the stage that trains it, the rest after the last stage.
    assert entry["diagnostics"] == {"retrieval_accuracy_depth": 1.0, "depth_loss_hidden": 2.0}
    assert {table["id"] for table in results["tables"]} >= {"table_3", "table_5", "clips", "phases"}
    assert all(row["variant"] != "m33d_plus" for table in results["tables"] for row in table["rows"])
    # One row is left of the mask ratios, which is no table; what the budget cuts from others is said.
    assert "table_6" not in {table["id"] for table in results["tables"]}
    (table,) = (table for table in results["tables"] if table["id"] == "table_3")
    assert "Not in this budget: MultiMAE" in table["note"] and "long fine-tuning." in table["note"]


def test_floors_that_failed_are_told(tmp_path: Path) -> None:
    plan = load_plan("reproduction", "smoke", tmp_path)
    rows = {job.id: _row(job) for job in jobs_of(plan)}
    rows["floors"] |= {"status": "failed", "error": "ValueError: no frames"}
    results = collect(plan, rows)
    assert ("floors", "ValueError: no frames") in failures(results)
    assert all(column["floor"] is None for column in results["columns"])


def test_a_run_that_failed_is_told_once_whatever_it_fills_and_starts(
    full: Plan, jobs: dict[str, Job], uncounted: None
) -> None:
    rows = {name: _row(job) for name, job in jobs.items()}
    fills_two = next(name for name in rows if name.startswith("phases-") and name.endswith("-s0"))
    starts_many = full.pretraining_id("m33d-1", 0)
    for name in (fills_two, starts_many):
        rows[name] |= {"status": "failed", "error": "OSError: full"}
    results = collect(full, rows)
    filled = [row["column"] for row in results["rows"] if row["status"] != "done"]
    started = [entry["variant"] for entry in results["pretraining"] if entry["status"] != "done"]
    assert len(filled) == 3 and len(started) > 6, "a cell each, besides the one of `_row`"
    errors = dict(failures(results))
    assert len(errors) == 3
    assert errors[fills_two] == "OSError: full" and "MemoryError" in errors["semseg-200-mae-s0"]
    assert f"{starts_many}: OSError: full" in errors.values()


@pytest.mark.parametrize(
    ("plan", "budget", "command"),
    [
        ("demo-video", "smoke", "python scripts/reproduce.py --budget smoke --plan demo-video"),
        ("demo-video", "full", "make demo-video"),
        ("demo", "smoke", "python scripts/reproduce.py --budget smoke --plan demo"),
        ("core", "smoke", "python scripts/reproduce.py --budget smoke"),
    ],
)
def test_a_report_names_a_command_that_there_is(tmp_path: Path, plan: str, budget: str, command: str) -> None:
    assert load_plan(plan, budget, tmp_path).command == command
    words = command.split()
    assert words[0] == "make" or words[-1] in (*plan_module.PLANS, budget)


def test_floors_are_told_to_be_of_another_split_where_they_are(tmp_path: Path) -> None:
    """Chance has no split; floors of a row of earlier versions, which does not say, are of the test split."""
    plan = load_plan("exploration", "smoke", tmp_path)
    rows = {job.id: _row(job) for job in jobs_of(plan)}
    floors = {"miou": {"value": 0.1, "how": "the commonest"}, "top1": {"value": 0.1, "how": "chance"}}
    for told, words in (({}, "the commonest, judged on the test split"), ({"split": "validation"}, "the commonest")):
        rows["floors"] = {**rows["floors"], "floors": floors, **told}
        columns = [c for c in collect(plan, rows)["columns"] if c["floor_text"]]
        assert {column["split"] for column in columns} == {"validation"}
        text = floors_text({"columns": columns})
        assert text in (f"Trivial floors: {words}.", f"Trivial floors: {words}; chance.")
    old = [{key: value for key, value in column.items() if key != "floor_split"} for column in columns]
    assert "the commonest, judged on the test split" in floors_text({"columns": old})


def _row(job: Job) -> dict[str, Any]:
    """What a worker would have left."""
    row: dict[str, Any] = {"id": job.id, "status": "done", "started": 0.0, "wall_seconds": 2.0, "cpu_seconds": 1.5}
    if job.id == "semseg-200-mae-s0":
        return {**row, "status": "failed", "error": "MemoryError: out of memory"}
    if job.id.startswith("pretrain-"):
        stage = 1 if job.id.startswith("pretrain-m33d-1") else 2
        row |= {"stage": stage, "steps": job.parameters["steps"], "seconds": 1.0}
        row |= {"flops": 10.0, "encoder_parameters": 5}
        return {**row, "diagnostics": {"retrieval_accuracy_depth": float(stage), "depth_loss_hidden": float(stage)}}
    names = ("miou", "delta1", "top1", "map", "clipwise/map", "knn/top1", "linear/top1")
    return {**row, "metrics": dict.fromkeys(names, 0.25), "steps": 1, "seconds": 1.0}


def test_unknown_plans_and_budgets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exploration"):
        load_plan("explore", "full", tmp_path)
    with pytest.raises(ConfigError, match="small"):
        load_plan("reproduction", "smal", tmp_path)
