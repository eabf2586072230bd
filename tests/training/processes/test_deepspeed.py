"""DeepSpeed's ZeRO 1 and 2 on two gloo processes: training as with DDP, exact continuation, files for any other run.

What needs DeepSpeed is for make test-extras; refusals and what is said without it are always tested.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from safetensors.torch import load_file

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
from helpers.rooms_runs import four_steps, jobs_of_four_steps
from helpers.tiny_task import TinyTask
from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.processes import deepspeed, launch
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.compiling import check_compile
from m33d_hf.training.processes.fsdp2 import launcher_hidden, settle_sharding
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.replay import replay
from m33d_hf.training.tasks.pretraining import PretrainingTask

CONFIGURATIONS = Path(launch.__file__).parents[1] / "accelerate"
LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / "deepspeed_zero2.yaml")]
ZERO2: dict[str, str] = {}  # the configuration says so
ZERO1 = {"train__sharding": "deepspeed_zero1"}
DDP = {"train__sharding": "none"}
EXACT = {"checkpoint__every_steps": "2", "checkpoint__keep_last": "9", "evaluation__greater_is_better": "false"}
HARD = {
    **EXACT,
    "model__hidden_dropout_prob": "0.1",
    "model__drop_path_rate": "0.2",
    "train__ema_decay": "0.9",
    "optim__clip_grad_norm": "0.2",
    "optim__layer_decay": "0.75",
}
TWICE = {**EXACT, "train__accumulation": "2", "optim__clip_grad_norm": "0.2"}
NEGATIVES = {"model__contrastive_weight": "0.1", "model__contrastive_negatives": "batch"}
EXPLODING = {
    "optim__learning_rate": "1000",
    "optim__weight_decay": "1000",
    "optim__warmup_steps": "0",
    "evaluation__at_end": "false",
}
STAGES = ["zero1", "zero2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


def launch_all(folder: Path, cache: Path, runs: dict[str, dict[str, str]], *more: dict[str, Any]) -> Path:
    """One launch of two processes for all jobs."""
    return launch_jobs(folder, [*jobs_of_four_steps(folder, cache, runs), *more])


def launch_jobs(folder: Path, jobs: list[dict[str, Any]], processes: int = 2) -> Path:
    """The last job must leave its outcome."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    launcher = [sys.executable, *LAUNCH, "--num_processes", str(processes)]
    _, output = finish(start(launcher, jobs, folder, DS_ACCELERATOR="cpu"), timeout=500)
    assert (folder / f"{jobs[-1]['name']}.1.json").exists(), output
    return folder


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What every change must keep: equal to DDP, exact continuation, taking over, noticing what explodes."""
    folder = tmp_path_factory.mktemp("deepspeed")
    middle = "checkpoints/step_00000002"
    runs: dict[str, dict[str, str]] = {
        "ddp": {**HARD, **DDP},
        "zero1": {**HARD, **ZERO1},
        "zero2": {**HARD, **ZERO2},
        "zero1_again": {**HARD, **ZERO1, "resume": str(folder / "zero1" / middle)},
        "zero2_again": {**HARD, **ZERO2, "resume": str(folder / "zero2" / middle)},
        "zero2_from_ddp": {**HARD, **ZERO2, "resume": str(folder / "ddp" / middle)},
        "ddp_from_zero2": {**HARD, **DDP, "resume": str(folder / "zero2" / middle)},
        "twice_ddp": {**TWICE, **DDP},
        "twice_zero1": {**TWICE, **ZERO1},
        "twice_zero2": {**TWICE, **ZERO2},
        "exact": {**EXACT, **ZERO2, "checkpoint__save_best": "true", "evaluation__metric": "eval/loss"},
        "once": {**EXPLODING, **ZERO2, "train__max_steps": "1"},
        "exploded": {**EXPLODING, **ZERO2, "logging__every_steps": "4"},
    }
    explosive = {"data__options": {"explosive": [9]}, "logging__every_steps": 3, "train__batch_size": 2}
    tiny = [
        {"name": name, "changes": {**explosive, "output_dir": str(folder / name), "train__sharding": sharding}}
        for name, sharding in (("explosion_ddp", "none"), ("explosion", "deepspeed_zero2"))
    ]
    return launch_all(folder, cache, runs, *tiny)


@pytest.fixture(scope="module")
def launched_more(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What is combined with it, for the slow tests."""
    runs: dict[str, dict[str, str]] = {
        "negatives_ddp": {**NEGATIVES, **DDP},
        "negatives_zero1": {**NEGATIVES, **ZERO1},
        "negatives_zero2": {**NEGATIVES, **ZERO2},
        "half_ddp": {"train__precision": "bf16", **DDP},
        "half_zero1": {"train__precision": "bf16", **ZERO1},
        "half_zero2": {"train__precision": "bf16", **ZERO2},
        "recomputed_ddp": {**HARD, "train__grad_checkpointing": "true", **DDP},
        "recomputed_zero1": {**HARD, "train__grad_checkpointing": "true", **ZERO1},
        "recomputed_zero2": {**HARD, "train__grad_checkpointing": "true", **ZERO2},
    }
    return launch_all(tmp_path_factory.mktemp("deepspeed_more"), cache, runs)


@pytest.mark.extras
@pytest.mark.parametrize("stage", STAGES)
def test_training_is_that_of_ddp(launched: Path, stage: str) -> None:
    """Losses, norms before clipping, learning rates by layer, dropout, drop path, average and evaluation."""
    assert_trained_alike(launched, stage, "ddp")
    theirs, ours = weights_of(launched / "ddp"), weights_of(launched / stage)
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in theirs)


@pytest.mark.extras
@pytest.mark.parametrize("stage", STAGES)
def test_accumulation_is_that_of_ddp(launched: Path, stage: str) -> None:
    """The engine's own division by accumulation and processes is made up for."""
    assert_trained_alike(launched, f"twice_{stage}", "twice_ddp")


@pytest.mark.extras
@pytest.mark.parametrize("stage", STAGES)
def test_continuing_is_exact(launched: Path, stage: str) -> None:
    """From the middle, with dropout, drop path, clipping and an average of the weights."""
    assert history(launched, f"{stage}_again") == history(launched, stage)[2:]
    assert_same_weights(launched / stage, launched / f"{stage}_again")
    last = [launched / run / "checkpoints/step_00000004" for run in (stage, f"{stage}_again")]
    assert_same_checkpoint(*last)


@pytest.mark.extras
@pytest.mark.parametrize("stage", STAGES)
def test_files_are_those_of_a_run_without_deepspeed(launched: Path, stage: str) -> None:
    folders = [launched / run / "checkpoints/step_00000002" for run in (stage, "ddp")]
    assert [p.name for p in sorted(folders[0].iterdir())] == [p.name for p in sorted(folders[1].iterdir())]
    for name in ("model", "ema"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in folders)
        assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    ours, theirs = (torch.load(folder / "optimizer.pt", weights_only=True)["optimizer"] for folder in folders)
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, entries in theirs["state"].items():
        for name, value in entries.items():
            assert torch.allclose(ours["state"][number][name], value, rtol=1e-4, atol=1e-7), (number, name)
    model, report = M33DForPreTraining.from_pretrained(launched / stage, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    saved = weights_of(launched / stage)
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


@pytest.mark.extras
def test_the_best_weights_are_kept_from_within_an_evaluation(launched: Path) -> None:
    best = load_file(launched / "exact" / "checkpoints/best/model.safetensors")
    expected = weights_of(launched / "exact")
    assert best.keys() == expected.keys() and all(torch.equal(best[key], expected[key]) for key in best)


@pytest.mark.extras
@pytest.mark.parametrize(("name", "before"), [("zero2_from_ddp", "ddp"), ("ddp_from_zero2", "zero2")])
def test_runs_take_over_from_each_other(launched: Path, name: str, before: str) -> None:
    """The state of AdamW goes with the weights, in both directions."""
    for a, b in zip(history(launched, before)[2:], history(launched, name), strict=True):
        assert b.get("loss", 0.0) == pytest.approx(a.get("loss", 0.0), rel=2e-6)
    last = [launched / run / "checkpoints/step_00000004/optimizer.pt" for run in (before, name)]
    a, b = (torch.load(path, weights_only=True)["optimizer"]["state"] for path in last)
    for number, entries in a.items():
        for key, value in entries.items():
            assert torch.allclose(b[number][key], value, rtol=1e-4, atol=1e-7), (number, key)


@pytest.mark.extras
def test_one_process_without_deepspeed_takes_over(launched: Path, cache: Path, tmp_path: Path) -> None:
    resume = str(launched / "exact" / "checkpoints/step_00000002")
    words_ = four_steps(tmp_path, "one", cache, **EXACT, train__batch_size="4", resume=resume)
    found = train(parse_arguments(words_, "pretraining"), PretrainingTask()).history
    for a, b in zip(history(launched, "exact")[2:], found, strict=True):
        if a["kind"] == "train":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


@pytest.mark.extras
def test_what_explodes_is_noticed_before_it_reaches_the_weights(launched: Path) -> None:
    """The second step goes wrong and is looked at after the fourth: the weights are those after the first."""
    for rank in (0, 1):
        assert outcome(launched, "exploded", rank)["error"] == "NonFiniteLossError"
    (capture,) = (launched / "exploded" / "nonfinite").iterdir()
    assert read_state(capture)["step"] == 1
    history(launched, "once")
    captured, expected = load_file(capture / "model.safetensors"), weights_of(launched / "once")
    assert captured.keys() == expected.keys()
    for name, value in captured.items():
        assert bool(value.isfinite().all()) and torch.equal(value, expected[name]), name


@pytest.mark.extras
def test_a_loss_that_explodes_on_one_rank_stops_all_and_is_replayed_without_deepspeed(launched: Path) -> None:
    for name in ("explosion_ddp", "explosion"):
        assert [outcome(launched, name, rank)["error"] for rank in (0, 1)] == ["NonFiniteLossError"] * 2
    theirs, ours = (next((launched / name / "nonfinite").iterdir()) for name in ("explosion_ddp", "explosion"))
    assert read_state(ours)["step"] == read_state(theirs)["step"]
    a, b = load_file(theirs / "model.safetensors"), load_file(ours / "model.safetensors")
    assert a.keys() == b.keys() and all(torch.allclose(b[key], a[key], atol=1e-6) for key in a)
    assert replay(ours, TinyTask()).reproduced


@pytest.mark.extras
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("what", ["negatives", "half", "recomputed"])
def test_it_goes_with_what_ddp_goes_with(launched_more: Path, what: str, stage: str) -> None:
    """Negatives of all processes, bfloat16, recomputing."""
    assert_trained_alike(launched_more, f"{what}_{stage}", f"{what}_ddp")


@pytest.mark.extras
@pytest.mark.slow
def test_three_processes_take_over_from_two(tmp_path: Path) -> None:
    """The flat parts are cut and padded elsewhere."""
    fixed = {"checkpoint__every_steps": 4, "checkpoint__keep_last": 9, "logging__every_steps": 1}
    whole = {**fixed, "output_dir": str(tmp_path / "whole"), "train__batch_size": 6}
    launch_jobs(tmp_path / "two", [{"name": "whole", "changes": {**whole, "train__sharding": "auto"}}])
    resume = {"resume": str(tmp_path / "whole/checkpoints/step_00000004"), "train__batch_size": 4}
    jobs = [
        {
            "name": sharding,
            "changes": {**fixed, **resume, "output_dir": str(tmp_path / sharding), "train__sharding": sharding},
        }
        for sharding in ("deepspeed_zero1", "deepspeed_zero2")
    ]
    launch_jobs(tmp_path / "three", jobs, processes=3)
    expected = history(tmp_path / "two", "whole", "train")[4:]
    for job in jobs:
        for a, b in zip(expected, history(tmp_path / "three", job["name"], "train"), strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5) and b["step"] == a["step"]


@pytest.mark.parametrize("stage", STAGES)
def test_accelerate_reads_the_configurations(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher would give its processes is what the run understands; without DeepSpeed, too."""
    path = CONFIGURATIONS / f"deepspeed_{stage}.yaml"
    parsed = launch_command_parser().parse_args(["--config_file", str(path), "--num_processes", "2", "run.py"])
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    checked, _, _ = _validate_launch_command(parsed)
    assert checked.use_deepspeed and checked.num_processes == 2
    checked.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(checked)
    for key, value in environment.items():
        if key.startswith("ACCELERATE_"):
            monkeypatch.setenv(key, value)
    args = RunArguments()
    launch.check_launcher(args)
    settle_sharding(args)
    assert args.train.sharding == f"deepspeed_{stage}"


def test_without_deepspeed_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"m33d-hf\[deepspeed\].*fsdp2"):
        deepspeed.load_deepspeed(torch.device("cpu"))


def test_a_version_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.0")
    with pytest.raises(MissingDependencyError, match=f"0.10.0 is too old; version {deepspeed.MINIMUM}"):
        deepspeed.load_deepspeed(torch.device("cpu"))


def test_the_extra_asks_for_the_version_that_is_checked() -> None:
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).resolve().parents[3] / "setup.cfg")
    assert settings["options.extras_require"]["deepspeed"].split() == [f"deepspeed>={deepspeed.MINIMUM}"]


def asked(monkeypatch: pytest.MonkeyPatch, **variables: str) -> RunArguments:
    """A run under a launcher that says so: four samples, clipped at 1.0."""
    for key, value in {"ACCELERATE_USE_DEEPSPEED": "true", **variables}.items():
        monkeypatch.setenv(key, value)
    args = RunArguments()
    args.train.batch_size, args.optim.clip_grad_norm = 4, 1.0
    return args


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero_stage 3.*fsdp2.yaml"),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "zero_stage 0.*ddp.yaml"),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device: cpu"),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device: nvme"),
        ({"ACCELERATE_GRADIENT_CLIPPING": "0.5"}, "gradient_clipping: 0.5.*--optim.clip_grad_norm"),
        ({"ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": "Experts"}, "cls_names is not supported.*experts"),
        ({"ACCELERATE_DEEPSPEED_CONFIG_FILE": "/nowhere/ds.json"}, "/nowhere/ds.json cannot be read"),
    ],
)
def test_what_the_configuration_would_not_get_is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = asked(monkeypatch, **variables)
    with pytest.raises(ConfigError, match=message):
        settle_sharding(args)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_optimization": {"stage": 3}}, "zero_stage 3"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, "offload_optimizer.*processes"),
        ({"zero_optimization": {"stage": 2, "overlap_comm": True}}, "zero_optimization.overlap_comm.*leave it out"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, 'reduce_bucket_size: -1.*"auto"'),
        ({"train_micro_batch_size_per_gpu": 8}, 'train.batch_size 4: write "auto"'),
        ({"train_batch_size": 16}, "effective batch 8"),
        ({"gradient_accumulation_steps": 2}, "train.accumulation 1"),
        ({"gradient_clipping": 0.5}, "optim.clip_grad_norm 1.0"),
        ({"fp16": {"enabled": True}}, "loss scaling is not supported"),
        ({"bf16": {"enabled": True}}, "--train.precision bf16"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer.*AdamW with the recipe"),
        ({"scheduler": {"type": "WarmupLR"}}, "--optim.schedule"),
        ({"flops_profiler": {"enabled": True}}, "flops_profiler: it is not supported"),
    ],
)
def test_what_a_json_file_would_not_get_is_refused(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, **settings}))
    args = asked(monkeypatch, ACCELERATE_DEEPSPEED_CONFIG_FILE=str(tmp_path / "ds.json"), WORLD_SIZE="2")
    with pytest.raises(ConfigError, match=message):
        settle_sharding(args)


def test_a_json_file_of_autos_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "fp16": {"enabled": "auto"},
        "bf16": {"enabled": False},
        "zero_optimization": {"stage": 1, "reduce_bucket_size": 1e8, "allgather_bucket_size": "auto"},
    }
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    args = asked(monkeypatch, ACCELERATE_DEEPSPEED_CONFIG_FILE=str(tmp_path / "ds.json"))
    settle_sharding(args)
    assert args.train.sharding == "deepspeed_zero1"
    with launcher_hidden():  # as while a run is prepared
        told = deepspeed._engine_config(args)["zero_optimization"]
    assert told == {"stage": 1, "compute_grad_norm": False, "reduce_bucket_size": 100_000_000}


def test_compiling_is_refused() -> None:
    args = RunArguments()
    args.train.sharding = "deepspeed_zero2"
    with pytest.raises(ConfigError, match="fsdp2"):
        check_compile(torch.nn.Linear(2, 2), args, torch.device("cpu"))


def test_loading_the_package_leaves_deepspeed_alone() -> None:
    """Where it is installed, too: it is slow to import, and looks for compilers."""
    modules = "m33d_hf.training.processes.deepspeed, m33d_hf.training.processes.fsdp2"
    code = f"import sys, {modules}; assert 'deepspeed' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
