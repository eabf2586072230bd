"""The demo's plan: equal budgets, one recipe per task, the right dependencies, command lines that parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.base_plan import run_folder
from m33d_hf.experiments.jobs import Job, check_jobs
from m33d_hf.experiments.plan import DemoPlan, load_plan
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments

SEEDS = (0, 1)


@pytest.fixture
def plan(tmp_path: Path) -> DemoPlan:
    return load_plan("full", tmp_path)


def _by_id(plan: DemoPlan) -> dict[str, Job]:
    return {job.id: job for job in plan.jobs()}


def _parsed(job: Job) -> RunArguments:
    argv = [*job.parameters["argv"], "--output_dir", job.parameters["output_dir"]]
    return parse_arguments(argv, job.parameters.get("task", "pretraining"))


def test_every_row_of_the_grid_is_there_once(plan: DemoPlan) -> None:
    jobs = plan.jobs()
    check_jobs(jobs)
    rows = [job for job in jobs if job.function.endswith(":finetune")]
    assert len(rows) == 4 * 3 * 2, "methods x (task, labels) x seeds"
    assert len({job.parameters["output_dir"] for job in jobs if "output_dir" in job.parameters}) == 2 * (
        1 + 2 + 2 + 2 + 12
    )


def test_methods_take_equal_steps(plan: DemoPlan) -> None:
    jobs = _by_id(plan)
    total = plan.budget["pretraining_steps"]
    assert jobs["pretrain-mae-s0"].parameters["steps"] == total
    for method in ("m33d", "m33d_plus"):
        stages = [jobs[f"pretrain-{method}-s0-stage{number}"].parameters["steps"] for number in (1, 2)]
        assert sum(stages) == total and min(stages) > 0


def test_stages_and_rows_start_from_what_they_need(plan: DemoPlan) -> None:
    jobs = _by_id(plan)
    first, second = jobs["pretrain-m33d-s1-stage1"], jobs["pretrain-m33d-s1-stage2"]
    row = jobs["semantic_segmentation-50-m33d-s1"]
    assert first.id in second.needs and second.id in row.needs
    assert _parsed(second).init_from == first.parameters["output_dir"]
    assert _parsed(row).init_from == second.parameters["output_dir"]
    assert jobs["depth_estimation-200-scratch-s0"].needs == ("render",)
    assert _parsed(jobs["depth_estimation-200-scratch-s0"]).init_from is None
    assert jobs["probe-m33d-s0"].needs == ("render", "pretrain-m33d-s0-stage1")
    assert not any("probe-m33d-s0" in job.needs for job in jobs.values()), "nothing uses the probe's weights"


def test_finetuning_differs_in_nothing_but_its_start(plan: DemoPlan) -> None:
    jobs = _by_id(plan)
    for task, labels in (("depth_estimation", 200), ("semantic_segmentation", 50), ("semantic_segmentation", 200)):
        for seed in SEEDS:
            trees = []
            for method in ("scratch", "mae", "m33d", "m33d_plus"):
                args = _parsed(jobs[f"{task}-{labels}-{method}-s{seed}"])
                assert (args.data.max_train_samples, args.data.subset_seed, args.seed) == (labels, seed, seed)
                tree = args.to_dict()
                del tree["init_from"], tree["output_dir"]
                trees.append(tree)
            assert all(tree == trees[0] for tree in trees)


def test_nothing_is_chosen_on_the_test_split(plan: DemoPlan) -> None:
    for job in plan.jobs():
        if job.function.endswith(":finetune"):
            args = _parsed(job)
            assert args.data.eval_split == "validation"
            assert not args.checkpoint.save_best
            tested = parse_arguments([*job.parameters["test_argv"], "--output_dir", "x"], job.parameters["task"])
            assert tested.data.eval_split == "test"
            assert tested.data.eval_options["num_frames"] == plan.budget["frames"]["test"]
        elif job.function.endswith(":pretrain"):
            args = _parsed(job)
            assert args.evaluation.every_steps is None, "evaluated once, at the end"
            assert not args.checkpoint.save_best


def test_every_method_and_stage_parses(plan: DemoPlan) -> None:
    for job in plan.jobs():
        if "argv" in job.parameters:
            args = _parsed(job)
            assert args.train.max_steps == job.parameters["steps"]
            assert args.cpu and args.cpu_threads == 1 and args.data.num_workers == 0
            assert args.logging.trackers == []
    probe = _parsed(_by_id(plan)["probe-m33d_plus-s1"])
    assert probe.model["matching_weight"] == 1.0 and probe.model["matching_fusion"] == "product"


def test_other_settings_are_other_folders_and_fingerprints(tmp_path: Path) -> None:
    full, smoke = _by_id(load_plan("full", tmp_path)), _by_id(load_plan("smoke", tmp_path))
    assert list(full) == list(smoke)
    for name in full:
        assert full[name].fingerprint() != smoke[name].fingerprint()
    name = "pretrain-mae-s0"
    assert full[name].parameters["output_dir"] != smoke[name].parameters["output_dir"]


def test_unknown_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        load_plan("smok", tmp_path)


def test_a_changed_recipe_is_run_again(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    runs = (["--recipe", str(recipe), "--seed", "1"], "pretraining")
    folders = []
    for rate in (1e-3, 1e-3, 2e-3):
        recipe.write_text(f"extends: rooms/pretrain\noptim: {{learning_rate: {rate}}}\n", encoding="utf-8")
        folders.append(run_folder(tmp_path, "row", runs))
    assert folders[0] == folders[1] != folders[2]
