"""DINOv2 -> our models: the tokens of transformers' models, and of written-out formulas for the repository's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from helpers.plain_vit import blocks, draw, layer_norm, patch_tokens, random_vit
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import (
    ConversionOptions,
    ConversionReport,
    config_for,
    convert_state_dict,
    from_state_dict,
    load_foreign,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 70,
    "patch_size": 14,
}
GRID = 5
KINDS = {False: (Dinov2Config, Dinov2Model), True: (Dinov2WithRegistersConfig, Dinov2WithRegistersModel)}
INPUTS = [(70, 70), (42, 98), (112, 84)]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def _theirs(registers: bool = False, seed: int = 0, **fields: Any) -> Any:
    """Every weight is drawn: layer scales of one and tokens of zero would hide mistakes."""
    config_class, kind = KINDS[registers]
    model = kind(config_class(**{**SIZES, **fields})).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)
    return model


def _converted(source: Any, stated: Any = None, **overrides: Any) -> tuple[M33DModel, ConversionReport]:
    checkpoint = load_foreign(source) if isinstance(source, Path) else from_state_dict(source, stated=stated)
    torch.manual_seed(1)
    model = M33DModel(M33DConfig(**{**config_for(checkpoint), **overrides})).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) == set(checkpoint.tensors) | set(checkpoint.ignored)
    assert not set(report.used) & set(report.ignored)
    assert set(report.filled) == set(model.state_dict()) and not report.new
    return model, report


def _pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))


def _assert_same(model: M33DModel, theirs: Any) -> None:
    registers = getattr(theirs.config, "num_register_tokens", 0)
    for height, width in INPUTS:
        with torch.no_grad():
            expected = theirs(_pixels(height, width)).last_hidden_state
            found = model(pixel_values=_pixels(height, width)).last_hidden_state
        expected = torch.cat([expected[:, :1], expected[:, 1 + registers :]], dim=1)
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("registers", [False, True])
def test_saved_by_transformers(registers: bool, tmp_path: Path) -> None:
    theirs = _theirs(registers)
    theirs.save_pretrained(tmp_path)
    model, report = _converted(tmp_path)
    assert report.format == ("DINOv2 with registers (transformers)" if registers else "DINOv2 (transformers)")
    assert "encoder.layer.0.attention.attention.query.weight" in report.used  # version 4's names
    scales = {f"encoder.layer.{n}.layer_scale{k}.lambda1" for n in range(3) for k in (1, 2)}
    assert set(report.ignored) == {"embeddings.mask_token"} | scales
    config = model.config
    assert (config.image_size, config.patch_size, config.position_grid) == (70, 14, [1, GRID, GRID])
    assert config.position_embedding_resize == ("antialias" if registers else "interpolate")
    assert config.num_register_tokens == (4 if registers else 0)
    _assert_same(model, theirs)


@pytest.mark.parametrize("registers", [False, True])
def test_in_memory_names_of_transformers_5(registers: bool) -> None:
    theirs = _theirs(registers)
    assert "encoder.layer.0.attention.q_proj.weight" in theirs.state_dict()
    model, _ = _converted(dict(theirs.state_dict()), {"num_attention_heads": 4})
    _assert_same(model, theirs)


def test_a_fine_tuned_classifier_gives_its_encoder(tmp_path: Path) -> None:
    theirs = Dinov2ForImageClassification(Dinov2Config(**SIZES, num_labels=5)).eval()
    theirs.dinov2.load_state_dict(_theirs().state_dict())
    theirs.save_pretrained(tmp_path)
    model, report = _converted(tmp_path)
    assert {"classifier.weight", "classifier.bias"} <= set(report.ignored)
    _assert_same(model, theirs.dinov2)


def test_no_mask_token_and_half_precision(tmp_path: Path) -> None:
    theirs = _theirs(use_mask_token=False).half()
    theirs.save_pretrained(tmp_path)
    model, report = _converted(tmp_path)
    assert "embeddings.mask_token" not in report.used | report.ignored
    layer = theirs.encoder.layer[1]
    exact = layer.layer_scale2.lambda1.double()[:, None] * layer.mlp.fc2.weight.double()
    torch.testing.assert_close(model.encoders["rgb"].layers[1].mlp.fc2.weight.double(), exact, rtol=1e-7, atol=0)
    _assert_same(model, theirs.float())


def _original(registers: int = 0, chunked: bool = False) -> dict[str, Tensor]:
    """Weights of the repository's names: those of timm with layer scales, a mask token (1, D) and registers."""
    weights = random_vit(layers=4, patch=(14, 14), rows=1 + GRID**2)
    shapes: dict[str, tuple[int, ...]] = {f"blocks.{n}.ls{k}.gamma": (32,) for n in range(4) for k in (1, 2)}
    shapes["mask_token"] = (1, 32)
    if registers:
        shapes["register_tokens"] = (1, registers, 32)
    weights |= draw(shapes, seed=5)
    if not chunked:
        return weights
    chunks = {f"blocks.{n}.": f"blocks.{n // 2}.{n}." for n in range(4)}
    return {_renamed(key, chunks): tensor for key, tensor in weights.items()}


def _renamed(key: str, starts: dict[str, str]) -> str:
    start = next((old for old in starts if key.startswith(old)), None)
    return key if start is None else starts[start] + key.removeprefix(start)


def _formula(weights: dict[str, Tensor], height: int, width: int, registers: int) -> Tensor:
    """[class token, registers, patches] as the repository puts them, without the registers in the end."""
    patches, table = patch_tokens(_pixels(height, width), weights), weights["pos_embed"].double()
    maps = table[:, 1:].reshape(1, GRID, GRID, 32).permute(0, 3, 1, 2)
    size = (height // 14, width // 14)
    resized = torch.nn.functional.interpolate(maps, size=size, mode="bicubic", antialias=registers > 0)
    patches = patches + resized.flatten(2).transpose(1, 2)
    token = (weights["cls_token"].double() + table[:, :1]).expand(2, -1, -1)
    extra = [weights["register_tokens"].double().expand(2, -1, -1)] if registers else []
    tokens = blocks(torch.cat([token, *extra, patches], dim=1), weights, heads=4)
    tokens = layer_norm(tokens, weights, "norm")
    return torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)


@pytest.mark.parametrize("registers", [0, 3])
def test_original_layout(registers: int) -> None:
    weights = _original(registers)
    model, report = _converted(weights, {"num_attention_heads": 4})
    assert report.format == ("DINOv2 with registers (original)" if registers else "DINOv2 (original)")
    for height, width in INPUTS:
        with torch.no_grad():
            found = model(pixel_values=_pixels(height, width)).last_hidden_state.double()
        torch.testing.assert_close(found, _formula(weights, height, width, registers), **TOLERANCE)


def test_teacher_of_a_training_with_chunks_and_heads() -> None:
    inner = {f"backbone.{key}": tensor for key, tensor in _original(chunked=True).items()}
    heads = {"dino_head.mlp.0.weight": torch.ones(4, 32), "ibot_head.last_layer.weight_v": torch.ones(4, 8)}
    model, report = _converted({"teacher": inner | heads}, {"num_attention_heads": 4})
    assert set(heads) <= set(report.ignored)
    plain, _ = _converted(_original(), {"num_attention_heads": 4})
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.parametrize("sharing", ["separate", "shared"])
@pytest.mark.parametrize("registers", [False, True])
def test_rgb_and_depth_start_from_it(registers: bool, sharing: str, tmp_path: Path) -> None:
    theirs = _theirs(registers)
    theirs.save_pretrained(tmp_path)
    checkpoint = load_foreign(tmp_path)
    modalities = [rgb_modality(), depth_modality()]
    fields = {**config_for(checkpoint), "modalities": modalities, "encoder_sharing": sharing, "image_size": 56}
    model = M33DForPreTraining(M33DConfig(**fields)).eval()
    report = convert_state_dict(checkpoint, model)
    assert all(name.startswith("decoder.") for name in report.new)
    _assert_same(model.m33d, theirs)
    # Depth in all three colours of a picture is that picture: its patch kernel is the sum of theirs.
    depth = torch.randn(2, 1, 42, 56)
    with torch.no_grad():
        found = model.m33d(depth_values=depth).last_hidden_state
        expected = theirs(depth.expand(-1, 3, -1, -1)).last_hidden_state
    kept = [0, *range(1 + model.config.num_register_tokens, expected.shape[1])]
    torch.testing.assert_close(found, expected[:, kept], **TOLERANCE)


def test_a_still_clip_is_its_picture_twice() -> None:
    weights = _original()
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    fields = {**config_for(checkpoint), "num_frames": 4, "tubelet_size": 2, "position_grid": [2, GRID, GRID]}
    model = M33DModel(M33DConfig(**fields)).eval()
    report = convert_state_dict(checkpoint, model, ConversionOptions(inflate="average"))
    assert "no time" in report.filled["positions.temporal"]
    still = _pixels(70, 70)[:, None].expand(-1, 4, -1, -1, -1)
    with torch.no_grad():
        found = model(pixel_values=still).last_hidden_state
    placed = torch.cat([weights["cls_token"].double().expand(2, -1, -1), patch_tokens(_pixels(70, 70), weights)], dim=1)
    placed = placed + weights["pos_embed"].double()
    expected = layer_norm(blocks(torch.cat([placed, placed[:, 1:]], dim=1), weights, heads=4), weights, "norm")
    torch.testing.assert_close(found.double(), expected, **TOLERANCE)


@pytest.mark.parametrize("layout", ["transformers", "memory", "original"])
def test_the_giant_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    if layout == "original":
        swapped = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for key, t in _original().items()}
        checkpoint = from_state_dict(swapped)
    elif layout == "memory":
        checkpoint = from_state_dict(dict(_theirs(use_swiglu_ffn=True).state_dict()))
    else:
        _theirs(use_swiglu_ffn=True).save_pretrained(tmp_path)
        checkpoint = load_foreign(tmp_path)
    with pytest.raises(ConversionError, match=r"SwiGLU.*giant.*small, base or large"):
        config_for(checkpoint)


def _without(weights: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: _without(w, "blocks.2.ls1.gamma"), r"blocks\.2\.ls1\.gamma is missing"),
        (lambda w: w | {"blocks.1.ls2.gamma": torch.ones(31)}, "cannot scale"),
        (lambda w: w | {"blocks.1.attn.rope": torch.ones(3)}, r"'blocks\.1\.attn\.rope'"),
        (lambda w: _without(w, "pos_embed"), "no position table|no tensor tells image_size"),
    ],
)
def test_damaged_files_are_refused(change: Any, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        _converted(change(_original()), {"num_attention_heads": 4})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_type": "sincos_2d"}, "position_embedding_type='learned'"),
        ({"num_register_tokens": 0}, r"num_register_tokens=4 \(the model has 0\)"),
        ({"position_grid": [1, 4, 4]}, r"position_grid=\[1, 5, 5\]"),
        ({"patch_size": 10, "image_size": 50}, r"patch_size=\(14, 14\)"),
    ],
)
def test_models_that_it_does_not_fit_are_told_what_to_set(fields: dict[str, Any], words: str) -> None:
    checkpoint = from_state_dict(dict(_theirs(registers=True).state_dict()), stated={"num_attention_heads": 4})
    model = M33DModel(M33DConfig(**{**config_for(checkpoint), **fields}))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConversionError, match=words):
        convert_state_dict(checkpoint, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_another_way_of_resizing_is_noted() -> None:
    checkpoint = from_state_dict(dict(_theirs(registers=True).state_dict()), stated={"num_attention_heads": 4})
    model = M33DModel(M33DConfig(**{**config_for(checkpoint), "position_embedding_resize": "interpolate"}))
    notes = convert_state_dict(checkpoint, model).notes
    assert any("'antialias', this model as 'interpolate'" in note for note in notes)


def test_released_sizes_need_no_statement() -> None:
    """Heads by width, layers and patch; those of L are left out for their size."""
    for width, layers, heads in ((384, 12, 6), (768, 12, 12)):
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        with torch.device("meta"):
            theirs = Dinov2Model(Dinov2Config(**sizes, image_size=518, patch_size=14))
            shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
        weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
        found = config_for(from_state_dict(weights))
        assert (found["num_attention_heads"], found["image_size"], found["position_grid"]) == (heads, 518, [1, 37, 37])
