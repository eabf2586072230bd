"""Damaged and hostile weight files: read as they were, refused by an error of ours, and no code of theirs ever runs."""

from __future__ import annotations

import argparse
import io
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.foreign import original_mae, original_videomae, tiny_videomae, tiny_vitmae
from helpers.fuzzing import Outcomes, bit_flips, mutations, slices
from helpers.multimae_heads_twin import MultiMAEHeadsTwin
from helpers.multimae_twin import MultiMAETwin, timm_layout
from helpers.plain_vit import draw, random_vit
from m33d_hf.errors import M33DError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import config_for, convert_state_dict, from_state_dict, head_fields, load_foreign

STATED: dict[str, Any] = {"num_attention_heads": 4, "decoder_num_attention_heads": 3}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return original_mae(tiny_vitmae())


def _saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _trainers_content(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "model": weights,
        "optimizer": {"param_groups": [{"lr": np.float64(1e-3), "betas": (0.9, np.float32(0.95))}]},
        "epoch": 3,
        "args": argparse.Namespace(input_size=32, lr=np.float64(1.5)),
    }


class _Canary:
    """An object whose pickle creates a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (self.file,))  # type: ignore[return-value]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("seed", "count"), slices(quick=120, long=2000))
def test_damaged_torch_files(weights: dict[str, Tensor], legacy: bool, seed: int, count: int, tmp_path: Path) -> None:
    original, outcomes = _saved(_trainers_content(weights), legacy), Outcomes()
    file, canary = tmp_path / "damaged.pth", tmp_path / "code_ran"
    for name, damaged in mutations(original, seed, count):
        file.write_bytes(damaged)
        found = outcomes.judge(name, lambda: load_foreign(file))
        if not legacy and not isinstance(found, M33DError):
            assert damaged == original, f"{name}: damage in an archive with checksums was accepted"
    assert outcomes["refused"] > count // 2 and not canary.exists()


@pytest.mark.parametrize(("seed", "count"), slices(quick=200, long=3000))
def test_every_flipped_bit_of_an_archive_is_noticed(
    weights: dict[str, Tensor], seed: int, count: int, tmp_path: Path
) -> None:
    small = {key: tensor for key, tensor in weights.items() if "blocks" not in key}  # headers are a third of the file
    for content in (weights, small):
        original, outcomes = _saved(content), Outcomes()
        for name, damaged in bit_flips(original, seed, count // 2):
            (tmp_path / "damaged.pth").write_bytes(damaged)
            outcomes.judge(name, lambda: load_foreign(tmp_path / "damaged.pth"))
        assert outcomes["accepted"] == 0, outcomes


@pytest.mark.parametrize(("seed", "count"), slices(quick=150, long=2000))
def test_damaged_safetensors(weights: dict[str, Tensor], seed: int, count: int, tmp_path: Path) -> None:
    """Without a checksum of its own; what is accepted is what another reader of the format finds in the file."""
    save_file(weights, tmp_path / "whole.safetensors")
    original, outcomes = (tmp_path / "whole.safetensors").read_bytes(), Outcomes()
    file = tmp_path / "damaged.safetensors"
    for name, damaged in mutations(original, seed, count):
        file.write_bytes(damaged)
        found = outcomes.judge(name, lambda: load_foreign(file))
        if not isinstance(found, M33DError):
            again = load_file(file)
            assert all(torch.equal(found.tensors[key], again[key]) for key in found.tensors), name
    assert outcomes["refused"] > 0


def _strange_value(rng: random.Random, value: Tensor) -> Any:
    shape = tuple(value.shape)
    choices = [
        lambda: None,
        lambda: rng.choice(["text", 3, 2.5, [1], {"a": 1}, b"bytes", True]),
        lambda: value.to_sparse(),
        lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        lambda: value.to("meta"),
        lambda: value.to(rng.choice([torch.int64, torch.bool, torch.complex64, torch.float16, torch.float64])),
        lambda: value.to(torch.float8_e4m3fn),
        lambda: torch.full(shape, float("nan")),
        lambda: value[..., :0],
        lambda: value.flatten(),
        lambda: value.reshape(1, *shape),
        lambda: value.sum(),
        lambda: torch.zeros([n + rng.choice((-1, 1)) for n in shape] if all(n > 1 for n in shape) else (7,)),
        lambda: torch.zeros(0),
        lambda: torch.zeros(1).expand(shape),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ]
    return rng.choice(choices)()


def _strange_key(rng: random.Random, key: str) -> Any:
    return rng.choice(
        [
            7,
            None,
            ("a", "b"),
            b"bytes",
            1.5,
            "",
            ".",
            key.replace("0", "99999"),
            key.replace("0", "-1"),
            key.upper(),
            key + ".weight",
            "module." + key,
            key.replace("weight", "bias"),
            "model",
            "state_dict",
            "blocks.9999999999999999999999.norm1.weight",
            "\ud800",
        ]
    )


def _strange_dict(rng: random.Random, weights: dict[str, Tensor]) -> dict[Any, Any]:
    result: dict[Any, Any] = dict(weights)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(list(weights))
        kind = rng.randrange(4)
        if kind == 0:
            result.pop(key, None)
        elif kind == 1:
            result[key] = _strange_value(rng, weights[key])
        elif kind == 2:
            result[_strange_key(rng, key)] = result.pop(key, torch.zeros(2))
        else:
            result[_strange_key(rng, key)] = rng.choice([weights[key], {}, None, dict(weights), torch.zeros(3)])
    return result if rng.random() < 0.7 else {rng.choice(["model", "module", "state_dict", "net", 5]): result}


def _convert(content: Any) -> None:
    checkpoint = from_state_dict(content, stated=STATED)
    if checkpoint.format == "videomae":
        checkpoint.stated |= {"image_size": 32, "num_frames": 4}
    fields = config_for(checkpoint) | head_fields(checkpoint)
    if fields.get("decoder_hidden_size") is None:
        fields |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model = M33DForPreTraining(M33DConfig(**fields))
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) >= set(checkpoint.tensors)
    assert set(report.filled) | set(report.new) == set(model.state_dict())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["mae", "videomae", "multimae", "timm", "vit", "mae_st", "multimae_semseg"])
@pytest.mark.parametrize(("seed", "count"), slices(quick=60, long=1000))
def test_strange_state_dicts(layout: str, weights: dict[str, Tensor], seed: int, count: int) -> None:
    if layout == "mae":
        whole = weights
    elif layout == "vit":
        head = {"head.weight": (5, 32), "head.bias": (5,), "blocks.0.ls1.gamma": (32,), "blocks.0.ls2.gamma": (32,)}
        whole = random_vit(layers=1) | draw(head, 1)
    elif layout == "mae_st":
        tables = {"pos_embed_spatial": (1, 16, 32), "pos_embed_temporal": (1, 2, 32), "pos_embed_class": (1, 1, 32)}
        whole = random_vit(layers=1, patch=(2, 8, 8), rows=0, split=True) | draw(tables, 1)
    elif layout == "multimae_semseg":
        whole = MultiMAEHeadsTwin("semseg", layers=1).weights()
    elif layout == "videomae":
        whole = original_videomae(tiny_videomae())
    else:
        twin = MultiMAETwin(semseg=True, small_heads=3, small=24)
        whole = dict(twin.state_dict()) if layout == "multimae" else timm_layout(twin)
    outcomes = Outcomes()
    for number in range(count):
        rng = random.Random(f"{layout}:{seed}:{number}")
        content = _strange_dict(rng, whole)
        outcomes.judge(f"{layout}, seed {seed}, dict {number}", partial(_convert, content))
    assert outcomes["refused"] > count // 3 and outcomes["accepted"] > 0


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["model", "optimizer", "args", "key"])
def test_no_pickle_runs_code(weights: dict[str, Tensor], legacy: bool, place: str, tmp_path: Path) -> None:
    canary = _Canary(tmp_path / "code_ran")
    content: dict[Any, Any] = _trainers_content(weights)
    if place == "key":
        content[canary] = 1
    elif place == "args":
        content["args"].hidden = canary
    else:
        content[place] = {**content[place], "more": canary}
    (tmp_path / "hostile.pth").write_bytes(_saved(content, legacy))
    outcomes = Outcomes()
    outcomes.judge(place, lambda: load_foreign(tmp_path / "hostile.pth"))
    assert outcomes["refused"] == 1 and not canary.file.exists()
    torch.load(tmp_path / "hostile.pth", weights_only=False)  # the canary does sing where pickles may run
    assert canary.file.exists()
