"""Memory that a device does not have ends in an error of ours that says which keys take less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.phases_in_memory import arguments as phase_arguments
from helpers.phases_in_memory import first_stage, register
from helpers.rooms_runs import words
from helpers.tiny_task import TinyTask, tiny_arguments
from m33d_hf.errors import ConfigError, DeviceMemoryError
from m33d_hf.scripts._main import main
from m33d_hf.training.processes.guards import memory_named
from m33d_hf.training.run import trial
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection.feature_extraction import FeatureExtractor
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.66 GiB of which 1.20 GiB is free. "
    "Including non-PyTorch memory, this process has 6.40 GiB memory in use."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GiB, other allocations: 384 KiB)."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to"),
    ],
)
def test_what_allocators_say_names_the_keys_that_take_less(error: RuntimeError, tmp_path: Path) -> None:
    args = tiny_arguments(tmp_path, train__batch_size=64, train__accumulation=1)
    with pytest.raises(DeviceMemoryError) as caught, memory_named(args):
        raise error
    said = str(caught.value)
    assert "--train.batch_size 32 --train.accumulation 2 (the same" in said and "--train.grad_checkpointing" in said
    assert str(error).split("\n")[0][:40] in said and "\n" not in said


def test_a_batch_that_cannot_be_halved_and_an_evaluation_get_advice_that_they_can_follow(tmp_path: Path) -> None:
    args = tiny_arguments(tmp_path, train__batch_size=1)
    with pytest.raises(DeviceMemoryError, match=r"a smaller --train.batch_size with"), memory_named(args):
        raise torch.OutOfMemoryError(CUDA)
    args = tiny_arguments(tmp_path, eval_only=True, evaluation__batch_size=16)
    with pytest.raises(DeviceMemoryError, match=r"--evaluation.batch_size \(it was 16\)"), memory_named(args):
        raise torch.OutOfMemoryError(CUDA)


@pytest.mark.parametrize(("task", "batch"), [("pretraining", 32), ("semantic_segmentation", 64)])
def test_an_evaluation_names_the_batch_that_it_took(task: str, batch: int, tmp_path: Path) -> None:
    args = tiny_arguments(tmp_path, task=task, eval_only=True, train__batch_size=64)
    with pytest.raises(DeviceMemoryError, match=rf"--evaluation.batch_size \(it was {batch}\)"), memory_named(args):
        raise torch.OutOfMemoryError(CUDA)


def test_the_extraction_of_features_names_its_own_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a training, by an evaluation and by extract_features.py, whose other batches are of a small net."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    register()
    args = phase_arguments(tmp_path / "out", first_stage(tmp_path / "one"))
    monkeypatch.setattr(FeatureExtractor, "run", full)
    for args.eval_only in (False, True):
        task = ActionDetectionTask()
        model = build_model(args, task)
        for work in (task.extract, task.build_eval_dataset):
            with pytest.raises(DeviceMemoryError, match=r"smaller --features\.batch_size \(it was 3\)") as caught:
                work(args, model)
            assert "evaluation.batch_size" not in str(caught.value) and "train.batch" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ConfigError("no"), ValueError("no")])
def test_other_errors_pass(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, memory_named(tiny_arguments(tmp_path)):
        raise error
    assert caught.value is error


class Hungry(TinyTask):
    def build_model(self, args):
        model = super().build_model(args)

        def full(*_: object) -> None:
            raise torch.OutOfMemoryError(CUDA)

        model.register_forward_pre_hook(full)
        return model


def test_a_run_tells_of_it_in_its_page_too(tmp_path: Path) -> None:
    with pytest.raises(DeviceMemoryError, match=r"Tried to allocate 2\.00 GiB"):
        train(tiny_arguments(tmp_path, logging__pictures=True), Hungry())
    assert "Ended by DeviceMemoryError" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_dry_run_ends_without_a_traceback(tmp_path: Path, monkeypatch, capfd) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(trial, "place", full)
    assert main("pretraining", [*words("rooms/pretrain", tmp_path / "out"), "--dry_run", "true"]) == 2
    told = capfd.readouterr().err
    assert "DeviceMemoryError: The run needs more memory" in told and "Traceback" not in told
