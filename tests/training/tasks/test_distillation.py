"""The teacher of a distillation: where it comes from, what it sees, and that a run with one can be continued."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.launching import assert_same_weights, without_timing
from helpers.rooms_runs import words
from m33d_hf.data.files.markers import MARKER
from m33d_hf.errors import ConfigError, NonFiniteLossError, ResumeError
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.replay import replay
from m33d_hf.training.tasks.base import Batch
from m33d_hf.training.tasks.pretraining import PretrainingTask


def parse(output_dir: Path, stage: int, **changes: str) -> RunArguments:
    given = {"method": "m33d_followup", **changes}
    return parse_arguments(words(f"rooms/pretrain_stage{stage}", output_dir, **given), "pretraining")


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage_1")
    train(parse(folder, 1), PretrainingTask())
    return folder


class Stopping(PretrainingTask):
    """Stops its own run by SIGTERM in its second update."""

    seen = 0

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        self.seen += 1
        if self.seen == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().prepare_step(model, batches)


def test_a_continuation_is_exact_and_no_teacher_is_saved(stage_1: Path, tmp_path: Path) -> None:
    changes = {"init_from": str(stage_1), "train__max_steps": "4", "logging__every_steps": "1"}
    whole = train(parse(tmp_path / "whole", 2, **changes), PretrainingTask())
    stopped = train(parse(tmp_path / "cut", 2, **changes), Stopping())
    assert stopped.step == 2 and stopped.interrupted_by == signal.SIGTERM
    continued = train(parse(tmp_path / "cut", 2, **changes), PretrainingTask())
    assert without_timing(continued.history) == without_timing(whole.history)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert {"eval/loss/depth", "eval/loss/depth_noise", "eval/loss/distillation"} <= set(whole.metrics)
    model = M33DForPreTraining.from_pretrained(tmp_path / "whole")
    assert not any("teacher" in name for name in model.state_dict())
    assert "decoder.noise_heads.depth.weight" in model.state_dict()


def test_a_continuation_with_another_teacher_is_refused(stage_1: Path, tmp_path: Path) -> None:
    copy, run = tmp_path / "stage_1", tmp_path / "run"
    shutil.copytree(stage_1, copy)
    changes = {"init_from": str(copy), "train__max_steps": "4"}
    train(parse(run, 2, **changes), Stopping())
    train(parse(tmp_path / "other", 1, seed="1"), PretrainingTask())
    for name in ("model.safetensors", MARKER):
        shutil.copy(tmp_path / "other" / name, copy / name)
    with pytest.raises(ResumeError, match="teacher"):
        train(parse(run, 2, **changes), PretrainingTask())


def test_the_teacher_stays_what_training_started_from(stage_1: Path, tmp_path: Path) -> None:
    args = parse(tmp_path, 2, init_from=str(stage_1))
    task = PretrainingTask()
    train(args, task)
    assert task.teacher is not None
    start = M33DForPreTraining.from_pretrained(stage_1).m33d.state_dict()
    kept = task.teacher.model.m33d.state_dict()
    end = M33DForPreTraining.from_pretrained(tmp_path).m33d.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in start.items())
    assert not all(torch.equal(tensor, end[name]) for name, tensor in start.items())
    assert not any(parameter.requires_grad for parameter in task.teacher.model.parameters())


class Exploding(PretrainingTask):
    """Has a teacher of infinite features."""

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        extra = super().prepare_step(model, batches)
        batches[0]["teacher_features"]["rgb"].fill_(torch.inf)
        return extra


def test_a_replay_has_the_teacher_again(stage_1: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError):
        train(parse(tmp_path, 2, init_from=str(stage_1)), Exploding())
    found = replay(tmp_path / "nonfinite" / "step_00000000", Exploding())
    assert found.reproduced and (0, 0, "distillation") in found.culprits


@pytest.mark.parametrize("tokens", ["all", "visible"])
def test_features_are_those_of_stage_1(stage_1: Path, tmp_path: Path, tokens: str) -> None:
    """A stage 1 without positions teaches without positions; what its student does not see it sees on request."""
    args = parse(tmp_path, 2, init_from=str(stage_1), model__distillation_tokens=tokens)
    task = PretrainingTask()
    model = task.build_model(args)
    dataset, _ = task.build_datasets(args, model)
    batch = task.build_collator(args, model, train=True)([dataset[0, row] for row in range(3)])
    batch.pop("meta")
    assert task.teacher is not None and not task.teacher.use_positions
    assert task.prepare_step(model, [batch]) == {}
    found = batch["teacher_features"]
    source = M33DForPreTraining.from_pretrained(stage_1).eval()
    keep = batch["keep"] if tokens == "visible" else None
    inputs = {"rgb": batch["pixel_values"][:, None], "depth": batch["depth_values"][:, None]}
    with torch.no_grad():
        states = source.m33d.encode(inputs, keep, use_positions=False)
    for name, tokens_BND in states.items():
        assert torch.equal(found[name], source.m33d.without_cls(tokens_BND).max(dim=1).values)


def test_a_masked_start_teaches_with_positions(stage_1: Path, tmp_path: Path) -> None:
    train(parse(tmp_path / "rgbd", 2, method="m33d_plus", init_from=str(stage_1)), PretrainingTask())
    task = PretrainingTask()
    task.build_model(parse(tmp_path / "run", 2, init_from=str(tmp_path / "rgbd")))
    assert task.teacher is not None and task.teacher.use_positions


def test_without_a_teacher_there_is_nothing_to_distil(stage_1: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--init_from"):
        PretrainingTask().build_model(parse(tmp_path, 2))
    train(parse_arguments(words("rooms/pretrain", tmp_path / "mae"), "pretraining"), PretrainingTask())
    random = parse(tmp_path, 2, init_from=str(tmp_path / "mae"), init__depth_encoder_init="random")
    with pytest.raises(ConfigError, match="partly random"):
        PretrainingTask().build_model(random)


def test_an_evaluation_without_training_leaves_distillation_out(stage_1: Path, tmp_path: Path) -> None:
    train(parse(tmp_path / "run", 2, init_from=str(stage_1)), PretrainingTask())
    task = PretrainingTask()
    found = evaluate_run(parse(tmp_path, 2, init_from=str(tmp_path / "run"), eval_only="true"), task)
    assert task.teacher is None
    assert {"loss/depth", "loss/depth_noise"} <= set(found) and "loss/distillation" not in found
    weights = {"depth": 1.0, "depth_noise": 0.1}
    assert found["loss"] == pytest.approx(sum(weight * found[f"loss/{name}"] for name, weight in weights.items()))
