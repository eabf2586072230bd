"""--compile and --grad_checkpointing: what they do to a run, and where they are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.launching import assert_same_weights, weights_of, without_timing
from helpers.rooms_runs import words
from helpers.tiny_task import TinyTask, tiny_arguments
from m33d_hf.errors import ConfigError
from m33d_hf.training.processes import compiling
from m33d_hf.training.processes.compiling import check_compile, checkpoint_activations
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.command_line import read_overrides
from m33d_hf.training.recipe.differences import recipe_differences
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

ALL_ROOMS = {"data__max_train_samples": "null"}
TASKS: dict[str, tuple[str, str, type[Task], dict[str, str]]] = {
    "stage2": ("pretraining", "rooms/pretrain_stage2", PretrainingTask, {"method": "m33d"}),
    "clips": ("pretraining", "rooms/pretrain_clips", PretrainingTask, {"method": "m33d_plus"}),
    "cross": (
        "pretraining",
        "rooms/pretrain_stage2",
        PretrainingTask,
        {"method": "m33d", "model__decoder_attention": "cross"},
    ),
    "segmentation": ("semantic_segmentation", "rooms/semseg", SemanticSegmentationTask, ALL_ROOMS),
}
NOISE = {"model__hidden_dropout_prob": "0.1", "model__drop_path_rate": "0.3"}
AOT = {"train__compile": "true", "train__compile_backend": "aot_eager"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("rooms"))


def run(name: str, folder: Path, cache: str, **changes: str) -> TrainResult:
    task, recipe, cls, own = TASKS[name]
    given = {"train__max_steps": "3", "logging__every_steps": "1", "data__cache_dir": cache, **NOISE, **own, **changes}
    return train(parse_arguments(words(recipe, folder, **given), task), cls())


@pytest.mark.parametrize("name", TASKS)
def test_recomputing_is_bit_equal(name: str, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, gradients (their norm, and weights after three updates) with dropout and drop path on."""
    counted: list[nn.Module] = []
    plain = run(name, tmp_path / "plain", cache)
    original = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint", lambda *a, **k: (counted.append(a[0]), original(*a, **k))[1]
    )
    saved = run(name, tmp_path / "saved", cache, train__grad_checkpointing="true")
    assert counted, "nothing was recomputed"
    assert without_timing(plain.history) == without_timing(saved.history)
    assert_same_weights(tmp_path / "plain", tmp_path / "saved")


def test_every_block_is_recomputed() -> None:
    """Encoder and decoder alike: less is kept for the backward pass, the gradients are the same."""
    argv = words("rooms/pretrain_stage2", "unused", method="m33d", model__hidden_dropout_prob="0.1")
    args = parse_arguments(argv, "pretraining")
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        model = PretrainingTask().build_model(args).train()
        if recompute:
            checkpoint_activations(model, args)
            assert all(block.gradient_checkpointing for block in compiling.blocks_of(model))
        kept[recompute] = bytes_kept(model, args)
    assert kept[True] < 0.5 * kept[False]


def bytes_kept(model: Any, args: RunArguments) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass."""
    side = args.model.get("image_size", 48)
    side = side if isinstance(side, int) else side[0]
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images, depth = torch.randn(4, 3, side, side), torch.randn(4, 1, side, side)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(pixel_values=images, depth_values=depth).loss.backward()
    return sum(found.values())


@pytest.mark.parametrize("name", ["stage2", pytest.param("segmentation", marks=pytest.mark.slow)])
def test_a_compiled_run_trains_evaluates_and_saves_like_another(name: str, tmp_path: Path, cache: str) -> None:
    """aot_eager runs the graph's operations one by one, so that even the numbers are the same."""
    changes = {"model__hidden_dropout_prob": "0.0", "model__drop_path_rate": "0.0", "evaluation__batch_size": "3"}
    plain = run(name, tmp_path / "plain", cache, **changes)
    compiled = run(name, tmp_path / "compiled", cache, **changes, **AOT)
    for a, b in zip(without_timing(plain.history), without_timing(compiled.history), strict=True):
        assert a.keys() == b.keys()
        assert all(b[key] == pytest.approx(a[key], rel=1e-5) for key in a if isinstance(a[key], float))
    ours, theirs = weights_of(tmp_path / "compiled"), weights_of(tmp_path / "plain")
    assert ours.keys() == theirs.keys() and not any("_orig_mod" in key for key in ours)


@pytest.mark.slow
def test_a_compiled_run_continues_exactly(tmp_path: Path, cache: str) -> None:
    """Also with dropout, and with the blocks recomputed."""
    changes = {**AOT, "train__grad_checkpointing": "true", "checkpoint__every_steps": "1", "checkpoint__keep_last": "9"}
    whole = run("stage2", tmp_path / "whole", cache, **changes)
    middle = tmp_path / "whole" / "checkpoints" / "step_00000002"
    again = run("stage2", tmp_path / "again", cache, **changes, resume=str(middle))
    assert without_timing(again.history) == without_timing(whole.history)[2:]
    assert_same_weights(tmp_path / "whole", tmp_path / "again")
    assert not any("_orig_mod" in key for key in load_file(middle / "model.safetensors"))


def test_the_short_words_are_the_long_ones() -> None:
    found = read_overrides(["--compile", "--grad_checkpointing", "true"])
    assert found["train"]["compile"] is True and found["train"]["grad_checkpointing"] == "true"
    with pytest.raises(ConfigError, match="twice"):
        read_overrides(["--compile", "--train.compile", "false"])


@pytest.mark.parametrize("word", ["--train.compile_mode reduce-overhead", "--train.compile_backend aot_eager"])
def test_how_to_compile_without_compiling_is_refused(word: str) -> None:
    given = ["--recipe", "rooms/pretrain", *word.split()]
    with pytest.raises(ConfigError, match="have no effect without"):
        parse_arguments(given, "pretraining")
    assert parse_arguments([*given, "--compile"], "pretraining").train.compile


def test_a_run_may_be_continued_with_other_means() -> None:
    now = RunArguments().to_dict()
    before = RunArguments().to_dict()
    for key in ("compile", "compile_mode", "compile_backend", "grad_checkpointing", "sharding"):
        del before["train"][key]  # as an earlier version wrote it
    assert not recipe_differences(before, now)


def arguments(tmp_path: Path, **changes: Any) -> RunArguments:
    return tiny_arguments(tmp_path, train__compile=True, **changes)


@pytest.mark.parametrize(
    ("device", "changes", "message"),
    [
        ("cpu", {"train__compile_backend": "inducter"}, "Did you mean 'inductor'"),
        ("cpu", {"train__compile_mode": "reduce-overhead"}, "CUDA graphs.*uses cpu"),
        ("cuda", {"train__compile_mode": "reduce-overhead", "train__accumulation": 2}, "train.accumulation to 1"),
        ("cuda", {"train__compile_mode": "max-autotune", "train__sharding": "fsdp2"}, "FSDP2 moves"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        check_compile(nn.Linear(2, 2), arguments(tmp_path, **changes), torch.device(device))


def test_missing_compilers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"):
        train(arguments(tmp_path), TinyTask())
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="triton"):
        check_compile(nn.Linear(2, 2), arguments(tmp_path), torch.device("cuda"))


def test_recurrent_models_and_models_without_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="any length"):
        check_compile(nn.Sequential(nn.GRU(2, 2)), arguments(tmp_path), torch.device("cpu"))
    with pytest.raises(ConfigError, match="no transformer blocks"):
        train(tiny_arguments(tmp_path, train__grad_checkpointing=True), TinyTask())
