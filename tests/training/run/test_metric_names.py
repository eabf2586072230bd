"""Every task knows the names of its metrics, so that a mistyped one stops the run before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.metric_names import larger_is_better
from m33d_hf.training.tasks.base import Task, build_task

RUNS = {
    "rooms/pretrain_stage1": "pretraining",
    "rooms/pretrain": "pretraining",
    "rooms/pretrain_clips": "pretraining",
    "rooms/depth": "depth_estimation",
    "rooms/semseg": "semantic_segmentation",
    "rooms/actions": "video_classification",
}
MISTYPED = {"pretraining": "los", "depth_estimation": "delta_1", "semantic_segmentation": "eval/miuo"}


def arguments(recipe: str, folder: Path, **changes: str | None) -> tuple[Any, Task]:
    """Arguments and task of a tiny run."""
    changes["data__max_train_samples"] = "null"
    if recipe == "rooms/actions":
        changes["data__options"] = "{num_clips: 24}"
    if recipe == "rooms/pretrain":
        changes["method"] = "rgbd_mae"
    return parse_arguments(words(recipe, folder, **changes), RUNS[recipe]), build_task(RUNS[recipe])


@pytest.mark.parametrize("recipe", RUNS)
def test_what_an_evaluation_reports_is_known_beforehand(tmp_path: Path, recipe: str) -> None:
    args, task = arguments(recipe, tmp_path, train__max_steps="1")
    result = train(args, task)
    known = task.metric_names(args, task.build_model(args))
    assert known is not None and result.metrics
    assert result.metrics.keys() <= {f"eval/{name}" for name in known}


@pytest.mark.parametrize("recipe", RUNS)
def test_a_mistyped_metric_stops_the_run_at_its_start(tmp_path: Path, recipe: str) -> None:
    wrong = MISTYPED.get(RUNS[recipe], "topp1")
    args, task = arguments(recipe, tmp_path / "out", evaluation__metric=wrong)
    task.build_datasets = task.evaluate = None  # type: ignore[method-assign, assignment]
    for start in (train, dry_run):
        with pytest.raises(ConfigError, match=r"evaluation\.metric .* is not one of eval/.*Did you mean 'eval/"):
            start(args, task)
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("loss", False), ("eval/loss/rgb", False), ("eval/rgb_loss_hidden", False), ("rmse", False),
        ("eval/per_image/abs_rel", False), ("rmse_log", False), ("absent_classes", False), ("clipwise/loss", False),
        ("delta1", True), ("miou", True), ("eval/iou/blood_loss", True), ("clipwise/ap/loss", True),
        ("retrieval_accuracy_depth", True), ("matching_accuracy_depth", True), ("top1", True),
    ],
)  # fmt: skip
def test_losses_and_errors_are_to_fall_and_others_to_rise(name: str, larger: bool) -> None:
    assert larger_is_better(name) is larger


@pytest.mark.parametrize(("metric", "larger"), [("rmse", False), ("delta2", True), (None, True)])
def test_the_best_checkpoint_of_an_error_is_the_one_where_it_is_least(
    tmp_path: Path, metric: str | None, larger: bool
) -> None:
    changes = {"checkpoint__save_best": "true", "train__max_steps": "2", "evaluation__every_steps": "1"}
    args, task = arguments("rooms/depth", tmp_path, evaluation__metric=metric or "null", **changes)
    assert train(args, task).metrics
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    name = f"eval/{metric or 'delta1'}"
    found = {row["step"]: row[name] for row in rows if name in row}
    assert len(found) == 2
    best = (max if larger else min)(found, key=lambda step: found[step])
    assert read_state(tmp_path / "checkpoints" / "best")["step"] == best


def test_with_and_without_its_prefix_a_metric_is_one(tmp_path: Path) -> None:
    for name in ("loss", "eval/loss"):
        changes = {"evaluation__greater_is_better": "false", "checkpoint__save_best": "true", "train__max_steps": "1"}
        args, task = arguments("rooms/depth", tmp_path / name, evaluation__metric=name, **changes)
        train(args, task)
        assert list((tmp_path / name / "checkpoints").glob("best*"))


def test_a_class_that_no_evaluation_label_has_keeps_no_best_and_is_said_once(tmp_path: Path, caplog) -> None:
    changes = {"checkpoint__save_best": "true", "train__max_steps": "2", "evaluation__every_steps": "1"}
    args, task = arguments("rooms/semseg", tmp_path, **changes, logging__pictures="true")
    model = task.build_model(args)
    absent = next(name for name in task.metric_names(args, model) or [] if name.startswith("iou/"))
    args.evaluation.metric, evaluate = absent, task.evaluate
    task.evaluate = lambda *given: {k: v for k, v in evaluate(*given).items() if k != absent}  # type: ignore
    assert train(args, task).metrics
    assert not list(tmp_path.glob("checkpoints/best*"))
    assert len([record for record in caplog.records if f"has no eval/{absent}" in record.getMessage()]) == 1
    assert "a picture could not be made" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_metric_that_the_task_does_not_know_still_ends_the_run(tmp_path: Path) -> None:
    args, task = arguments("rooms/depth", tmp_path, checkpoint__save_best="true", train__max_steps="1")
    evaluate = task.evaluate
    task.evaluate = lambda *given: {k: v for k, v in evaluate(*given).items() if k != "delta1"}  # type: ignore
    task.metric_names = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"'delta1' is not one of eval/"):
        train(args, task)
