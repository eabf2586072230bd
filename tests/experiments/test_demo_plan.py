"""The demo's plan: equal budgets, one recipe per task, the right dependencies, command lines that parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.commands import jobs_of, run_folder
from m33d_hf.experiments.jobs import Job, check_jobs
from m33d_hf.experiments.plan import Plan, load_plan
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments

SEEDS = (0, 1, 2)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return load_plan("demo", "full", tmp_path)


def _by_id(plan: Plan) -> dict[str, Job]:
    return {job.id: job for job in jobs_of(plan)}


def _parsed(job: Job) -> RunArguments:
    argv = [*job.parameters["argv"], "--output_dir", job.parameters["output_dir"]]
    return parse_arguments(argv, job.parameters.get("task", "pretraining"))


def test_every_row_of_the_grid_is_there_once(plan: Plan) -> None:
    jobs = jobs_of(plan)
    check_jobs(jobs)
    rows = [job for job in jobs if job.function.endswith(":dense")]
    assert len(rows) == 3 * 2 * 3, "methods x tasks x seeds"
    assert len({job.parameters["output_dir"] for job in jobs if "output_dir" in job.parameters}) == 3 * (2 + 6)
    assert sum(job.cost for job in jobs) < 2 * 540, "ten minutes on two cores, with a tenth to spare"


def test_pretrainings_come_first_and_are_called_by_method_seed_and_stage(plan: Plan) -> None:
    jobs = jobs_of(plan)
    trained = [number for number, job in enumerate(jobs) if job.function.endswith(":pretrain")]
    assert max(trained) < min(number for number, job in enumerate(jobs) if job.function.endswith(":dense"))
    labels = {job.id: job.label for job in jobs}
    assert labels["pretrain-mae-s0"] == "mae seed 0"
    assert labels["pretrain-m33d_normed-s1"] == "m33d_normed seed 1"


def test_methods_take_equal_steps(plan: Plan) -> None:
    jobs = _by_id(plan)
    total = plan.budget["pretraining_steps"]["images"]
    assert jobs["pretrain-mae-s0"].parameters["steps"] == total
    assert jobs["pretrain-m33d_normed-s0"].parameters["steps"] == total


def test_rows_start_from_what_they_need(plan: Plan) -> None:
    jobs = _by_id(plan)
    first = jobs["pretrain-m33d_normed-s1"]
    row = jobs["semantic_segmentation-200-m33d_normed-s1"]
    assert first.id in row.needs
    assert _parsed(row).init_from == first.parameters["output_dir"]
    assert jobs["depth_estimation-200-scratch-s0"].needs == ("render",)
    assert _parsed(jobs["depth_estimation-200-scratch-s0"]).init_from is None


def test_finetuning_differs_in_nothing_but_its_start(plan: Plan) -> None:
    jobs = _by_id(plan)
    for task in ("depth_estimation", "semantic_segmentation"):
        for seed in SEEDS:
            trees = []
            for method in ("scratch", "mae", "m33d_normed"):
                args = _parsed(jobs[f"{task}-200-{method}-s{seed}"])
                assert (args.data.max_train_samples, args.data.subset_seed, args.seed) == (200, seed, seed)
                assert args.model.get("depth_loss", "l1") == "l1"
                tree = args.to_dict()
                del tree["init_from"], tree["output_dir"]
                trees.append(tree)
            assert all(tree == trees[0] for tree in trees)


def test_nothing_is_chosen_on_the_test_split(plan: Plan) -> None:
    for job in jobs_of(plan):
        if job.function.endswith(":dense"):
            args = _parsed(job)
            assert args.data.eval_split == "validation"
            assert not args.checkpoint.save_best
            tested = parse_arguments([*job.parameters["test_argv"], "--output_dir", "x"], job.parameters["task"])
            assert tested.data.eval_split == "test" and tested.init_from is None, "the row's own weights are tested"
            assert tested.data.eval_options["num_frames"] == plan.budget["frames"]["test"]
        elif job.function.endswith(":pretrain"):
            args = _parsed(job)
            assert args.evaluation.every_steps is None, "evaluated once, at the end"
            assert args.data.eval_split == "test", "losses and diagnostics are those of test frames"
            assert not args.checkpoint.save_best


def test_every_method_and_stage_parses(plan: Plan) -> None:
    for job in jobs_of(plan):
        if "argv" in job.parameters:
            args = _parsed(job)
            assert args.train.max_steps == job.parameters["steps"]
            assert args.cpu and args.cpu_threads == 1 and args.data.num_workers == 0
            assert args.logging.trackers == []


def test_other_settings_are_other_folders_and_fingerprints(tmp_path: Path) -> None:
    full, smoke = _by_id(load_plan("demo", "full", tmp_path)), _by_id(load_plan("demo", "smoke", tmp_path))
    assert list(full) == list(smoke)
    for name in full:
        assert full[name].fingerprint() != smoke[name].fingerprint()
    name = "pretrain-mae-s0"
    assert full[name].parameters["output_dir"] != smoke[name].parameters["output_dir"]


def test_unknown_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        load_plan("demo", "smok", tmp_path)


def test_a_changed_recipe_is_run_again(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    runs = (["--recipe", str(recipe), "--seed", "1"], "pretraining")
    folders = []
    for rate in (1e-3, 1e-3, 2e-3):
        recipe.write_text(f"extends: rooms/pretrain\noptim: {{learning_rate: {rate}}}\n", encoding="utf-8")
        folders.append(run_folder(tmp_path, "row", runs))
    assert folders[0] == folders[1] != folders[2]
