"""FSDP2 on two gloo processes: the same training as DDP, exact continuation, files that any other run can take over."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch import nn

from helpers.launching import (
    assert_same_checkpoint,
    assert_same_weights,
    assert_trained_alike,
    finish,
    history,
    outcome,
    start,
    weights_of,
)
from helpers.ranks import run_jobs
from helpers.rooms_runs import four_steps, jobs_of_four_steps
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.processes import launch
from m33d_hf.training.processes.fsdp2 import check_shardable, settle_sharding
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.pretraining import PretrainingTask

CONFIGURATIONS = Path(launch.__file__).parents[1] / "accelerate"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / "fsdp2.yaml")]
SHARDED: dict[str, str] = {}  # the configuration says so
DDP = {"train__sharding": "none"}
# The literal method's stage 2: no term of it is drawn within a process, so that one process can be compared, too.
HARD = {
    "model__hidden_dropout_prob": "0.1",
    "model__drop_path_rate": "0.2",
    "checkpoint__every_steps": "2",
    "checkpoint__keep_last": "9",
    "train__ema_decay": "0.9",
    "optim__clip_grad_norm": "0.5",
}
EXPLODING = {
    "optim__learning_rate": "1000",
    "optim__weight_decay": "1000",
    "optim__warmup_steps": "0",
    "logging__every_steps": "4",
}
EXACT = {"checkpoint__every_steps": "2", "checkpoint__keep_last": "9"}
BATCH = {"model__contrastive_weight": "0.1", "model__contrastive_negatives": "batch"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


def environment_of(name: str) -> dict[str, str]:
    """What `accelerate launch --config_file` gives its two processes."""
    given = ["--config_file", str(CONFIGURATIONS / f"{name}.yaml"), "--num_processes", "2", "run.py"]
    checked, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    assert checked.num_processes == 2
    return prepare_multi_gpu_env(checked)


def launch_all(folder: Path, cache: Path, runs: dict[str, dict[str, str]], launcher: bool = False) -> Path:
    """Two processes for all jobs, of the launcher itself or as if; the last one must leave its outcome."""
    jobs = jobs_of_four_steps(folder, cache, runs)
    if launcher:
        code, output = finish(start([*LAUNCH, "--num_processes", "2"], jobs, folder), timeout=500)
    else:
        code, output = run_jobs(jobs, folder, timeout=500, **environment_of("fsdp2"))
    assert (folder / f"{list(runs)[-1]}.1.json").exists(), (code, output)
    return folder


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What every change must keep: equal to DDP, exact continuation, taking over, noticing what explodes."""
    folder = tmp_path_factory.mktemp("sharded")
    middle = "checkpoints/step_00000002"
    runs: dict[str, dict[str, str]] = {
        "ddp": {**HARD, **DDP},
        "whole": {**HARD, **SHARDED},
        "again": {**HARD, **SHARDED, "resume": str(folder / "whole" / middle)},
        "from_ddp": {**HARD, **SHARDED, "resume": str(folder / "ddp" / middle)},
        "exact": {**EXACT, **SHARDED},
        "exploded": {**EXPLODING, **SHARDED},
    }
    return launch_all(folder, cache, runs)


@pytest.fixture(scope="module")
def launched_more(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Other methods, precisions and means, for the slow tests."""
    runs: dict[str, dict[str, str]] = {
        "recomputed": {**HARD, **SHARDED, "train__grad_checkpointing": "true"},
        "compiled": {**HARD, **SHARDED, "train__compile": "true", "train__compile_backend": "aot_eager"},
        "negatives_ddp": {**BATCH, **DDP},
        "negatives": {**BATCH, **SHARDED},
        "plus_ddp": {"recipe": "rooms/pretrain_clips", "method": "m33d_plus", **DDP},
        "plus": {"recipe": "rooms/pretrain_clips", "method": "m33d_plus", **SHARDED},
        "half_ddp": {"train__precision": "bf16", **DDP},
        "half": {"train__precision": "bf16", **SHARDED},
    }
    return launch_all(tmp_path_factory.mktemp("sharded_more"), cache, runs, launcher=True)


def test_sharded_training_is_that_of_ddp(launched: Path) -> None:
    assert_trained_alike(launched, "whole", "ddp", norm=2e-5)  # gradients of blocks that run twice are reduced twice


@pytest.mark.slow
@pytest.mark.parametrize("name", ["negatives", "plus", "half"])
def test_sharded_training_of_other_methods_is_that_of_ddp(launched_more: Path, name: str) -> None:
    """Negatives of all processes, a clip method of all losses, and bf16."""
    assert_trained_alike(launched_more, name, f"{name}_ddp", norm=2e-5)


def test_continuing_is_exact(launched: Path) -> None:
    """From the middle, with dropout, drop path, clipping and an average of the weights."""
    assert history(launched, "again") == history(launched, "whole")[2:]
    assert_same_weights(launched / "whole", launched / "again")
    last = [launched / run / "checkpoints/step_00000004" for run in ("whole", "again")]
    assert_same_checkpoint(*last)


def test_files_are_those_of_a_run_that_is_not_sharded(launched: Path) -> None:
    for name in ("model", "ema"):
        path = f"checkpoints/step_00000002/{name}.safetensors"
        ours, theirs = load_file(launched / "whole" / path), load_file(launched / "ddp" / path)
        assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    model, report = M33DForPreTraining.from_pretrained(launched / "whole", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    saved = weights_of(launched / "whole")
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert json.loads((launched / "whole" / "config.json").read_text())["architectures"] == ["M33DForPreTraining"]


def test_a_sharded_run_takes_over_a_ddp_run(launched: Path) -> None:
    for a, b in zip(history(launched, "ddp")[2:], history(launched, "from_ddp"), strict=True):
        assert b.get("loss", 0.0) == pytest.approx(a.get("loss", 0.0), rel=2e-6)


def test_one_process_takes_over_a_sharded_run(launched: Path, cache: Path, tmp_path: Path) -> None:
    resume = str(launched / "exact" / "checkpoints/step_00000002")
    words_ = four_steps(tmp_path, "one", cache, **EXACT, train__batch_size="4", resume=resume)
    found = train(parse_arguments(words_, "pretraining"), PretrainingTask()).history
    for a, b in zip(history(launched, "exact")[2:], found, strict=True):
        if a["kind"] == "train":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recomputed", "compiled"])
def test_sharding_goes_with_recomputing_and_compiling(launched: Path, launched_more: Path, name: str) -> None:
    """Random states are put back before blocks are computed again; aot_eager computes what eager does."""
    for a, b in zip(history(launched, "whole"), history(launched_more, name), strict=True):
        for key in a:
            if isinstance(a[key], float):
                assert b[key] == pytest.approx(a[key], rel=1e-5), key


def test_a_gradient_that_explodes_is_noticed_and_captured(launched: Path) -> None:
    for rank in (0, 1):
        assert outcome(launched, "exploded", rank)["error"] == "NonFiniteLossError"
    (capture,) = (launched / "exploded" / "nonfinite").iterdir()
    assert load_file(capture / "model.safetensors").keys() == weights_of(launched / "exact").keys()


@pytest.mark.parametrize(("name", "expected"), [("ddp", "none"), ("fsdp2", "fsdp2"), ("fsdp2_zero2", "fsdp2")])
def test_accelerate_reads_the_configurations(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher would give its processes is what the run understands."""
    for key, value in environment_of(name).items():
        monkeypatch.setenv(key, value)
    args = RunArguments()
    launch.check_launcher(args)
    settle_sharding(args)
    assert args.train.sharding == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "fsdp2.yaml"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "more processes"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "--train.grad"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block"}, "M33DLayer"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "--train.precision bf16"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "--train.compile"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "--train.accumulation"),
    ],
)
def test_what_would_not_be_followed_is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    args = RunArguments(output_dir=str(tmp_path), cpu=True)
    with pytest.raises(ConfigError, match=message), launch.open_accelerator(args):
        pass


@pytest.mark.parametrize(
    ("model", "precision", "processes", "message"),
    [
        (nn.Linear(2, 2), "no", 1, "only one"),
        (nn.Linear(2, 2), "fp16", 2, "bf16 or no"),
        (nn.Sequential(nn.GRU(2, 2)), "no", 2, "too small to need it"),
    ],
)
def test_what_cannot_be_sharded_is_refused(model: nn.Module, precision: Any, processes: int, message: str) -> None:
    args = RunArguments()
    args.train.precision = precision
    with pytest.raises(ConfigError, match=message):
        check_shardable(model, args, processes)
