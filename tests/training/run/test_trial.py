"""The dry run's measured steps: close to a real run, and without a trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from helpers.ranks import ForkedRanks
from helpers.rooms_runs import words
from m33d_hf.training.costs.machine import peak_memory, resident
from m33d_hf.training.costs.table import Cost
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run import trial
from m33d_hf.training.run.plan import RunPlan, plan_run
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import build_task

LARGER = {
    "model__hidden_size": "192",
    "model__intermediate_size": "768",
    "train__batch_size": "32",
    "train__ema_decay": "0.9",
    "data__options": "{num_frames: 40}",
    "data__eval_split": "null",
    "checkpoint__save_final": "false",
    "train__max_steps": "3",
    "logging__every_steps": "1",
    "method": "rgbd_mae",
}


def _cost(args: RunArguments, task_name: str) -> Cost | str:
    task = build_task(task_name)
    model = build_model(args, task)
    train_set, eval_set = task.build_datasets(args, model)
    return trial.measured_cost(args, task, model, train_set, eval_set, plan_run(args, len(train_set), 1), 1)


def _predict(command: list[str]) -> None:
    """In a process of its own: bytes that the measured steps grow it by, and seconds per step."""
    torch.set_num_threads(1)
    before = resident()
    cost = _cost(resolve(command, "pretraining").args, "pretraining")
    assert isinstance(cost, Cost)
    print(json.dumps([cost.memory.peak - before, cost.wall]))


def _train(command: list[str]) -> None:
    from m33d_hf.training.run.loop import train

    torch.set_num_threads(1)
    before = resident()
    with peak_memory(torch.device("cpu")) as peak:
        result = train(resolve(command, "pretraining").args, build_task("pretraining"))
    speeds = [row["samples_per_second"] for row in result.history if row["kind"] == "train"]
    print(json.dumps([peak.total - before, 32 / speeds[-1]]))


@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory")
def test_memory_is_within_15_percent_of_a_real_run(tmp_path: Path) -> None:
    """Peak growth of one process by the dry run's steps, and of another one by a training with the same arguments."""
    command = words("rooms/pretrain", tmp_path / "out", data__cache_dir=str(tmp_path / "cache"), **LARGER)
    found = []
    for target in (_predict, _train):
        process = ForkedRanks(target, command, log=tmp_path / f"{target.__name__}.log")
        assert process.wait() == [0], process.output()
        found.append(json.loads(next(line for line in process.output().splitlines()[::-1] if line[:1] == "[")))
    (predicted, step), (measured, real_step) = found
    assert measured > 100 << 20  # more than chance
    assert predicted == pytest.approx(measured, rel=0.15)
    assert real_step / 100 < step < real_step * 100  # the unit: how busy the machine was at either moment is chance


@pytest.mark.parametrize(
    ("recipe", "task"),
    [("rooms/pretrain_stage1", "pretraining"), ("rooms/semseg", "semantic_segmentation"),
     ("rooms/depth", "depth_estimation"), ("rooms/actions", "video_classification")],
)  # fmt: skip
def test_every_task_is_timed_and_nothing_is_written_or_moved(recipe: str, task: str, tmp_path: Path) -> None:
    changes: dict[str, str] = {"data__max_eval_samples": "4", "train__accumulation": "2"}
    changes |= {"method": "m33d"} if task == "pretraining" else {}
    changes |= {"data__options": "{num_clips: 12}"} if recipe == "rooms/actions" else {}
    args = resolve(words(recipe, tmp_path / "out", **changes), task).args
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    cost = _cost(args, task)
    assert isinstance(cost, Cost)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []
    assert args.num_processes is None and args.logging.trackers == []
    assert 0 < cost.step <= cost.wall and cost.evaluation is not None and cost.evaluation > 0
    assert cost.steps == 2 and cost.evaluations >= 1
    text = "\n".join(cost.lines())
    assert "measured here (cpu" in text and "largest batch that fits" in text


def test_a_batch_that_is_too_slow_is_reckoned_from_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SLOWEST", 0.0)
    changes = {"train__batch_size": "8", "data__eval_split": "null", "method": "mae"}
    cost = _cost(resolve(words("rooms/pretrain", tmp_path, **changes), "pretraining").args, "pretraining")
    assert isinstance(cost, Cost)
    assert "3 steps of 2 samples" in cost.how and "8, too large or too slow to try, reckoned from them" in cost.how
    assert cost.memory.rows == 8 and cost.memory.per_row > 0 and cost.evaluations == 0
    # Operations are those of the run that was asked for.
    args = resolve(words("rooms/pretrain", tmp_path, **{**changes, "train__batch_size": "4"}), "pretraining").args
    half = _cost(args, "pretraining")
    assert isinstance(half, Cost) and half.step_flops == pytest.approx((cost.step_flops or 0) / 2)


def test_under_a_launcher_or_without_room_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = resolve(words("rooms/pretrain", tmp_path, method="mae"), "pretraining").args
    monkeypatch.setattr(trial, "memory_for_one", lambda device: 1000)
    told = _cost(args, "pretraining")
    assert isinstance(told, str) and "this process can have 0.000954 MiB" in told
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = _cost(args, "pretraining")
    assert isinstance(told, str) and "as one process" in told


@pytest.mark.parametrize("every", [None, 1, 3, 7, 20])
@pytest.mark.parametrize("at_end", [True, False])
def test_evaluations_are_counted_as_the_loop_does_them(every: int | None, at_end: bool, tmp_path: Path) -> None:
    args = resolve(words("rooms/pretrain", tmp_path, method="mae", train__max_steps="14"), "pretraining").args
    args.evaluation.every_steps, args.evaluation.every_epochs, args.evaluation.at_end = every, None, at_end
    plan: RunPlan = plan_run(args, 12, 1)
    loop = sum(plan.evaluates(step) for step in range(1, plan.total_steps + 1))
    assert trial._evaluations(plan, object()) == loop  # type: ignore[arg-type]
    assert trial._evaluations(plan, None) == 0
