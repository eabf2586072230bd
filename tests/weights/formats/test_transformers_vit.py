"""ViTs of transformers with learned positions -> our models, against transformers' own forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DeiTConfig,
    DeiTModel,
    IJepaConfig,
    IJepaModel,
    ViTConfig,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTModel,
    ViTMSNConfig,
    ViTMSNModel,
)

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.weights import ConversionReport, config_for, convert_state_dict, from_state_dict, load_foreign

SIZES: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 56},
    **{"image_size": 32, "patch_size": 8},
}


def _theirs(kind: Any = ViTModel, config: Any = ViTConfig, **changes: Any) -> Any:
    model = kind(config(**{**SIZES, **changes})).eval()
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = 0.2 * torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(1 + noise if "norm" in name and name.endswith("weight") else noise)
    return model


def _pixels(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def _ours(checkpoint: Any, kind: Any = M33DModel, **overrides: Any) -> tuple[Any, ConversionReport]:
    torch.manual_seed(1)
    model = kind(M33DConfig(**{**config_for(checkpoint), **overrides})).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) == set(checkpoint.tensors)
    assert not set(report.used) & set(report.ignored)
    return model, report


def _saved(theirs: nn.Module, names: str, folder: Path) -> Any:
    """On disk (the names of version 4, which version 5 still writes), or in the memory of version 5."""
    if names == "disk":
        theirs.save_pretrained(folder)
        checkpoint = load_foreign(folder)
        assert any(".attention.attention.query.weight" in key for key in checkpoint.tensors)
        return checkpoint
    state = dict(theirs.state_dict())
    assert any(".attention.q_proj.weight" in key for key in state)
    return from_state_dict(state, config=theirs.config.to_dict())


@pytest.mark.parametrize("names", ["disk", "memory"])
@pytest.mark.parametrize("pooler", [True, False])
def test_last_hidden_states(tmp_path: Path, names: str, pooler: bool) -> None:
    """transformers' eps of 1e-12 comes from config.json; DINO (v1) on the Hub is this class too."""
    theirs = _theirs(lambda config: ViTModel(config, add_pooling_layer=pooler))
    checkpoint = _saved(theirs, names, tmp_path)
    assert checkpoint.format == "transformers_vit"
    model, report = _ours(checkpoint)
    assert not report.new and model.config.layer_norm_eps == 1e-12
    assert set(report.ignored) == ({"pooler.dense.weight", "pooler.dense.bias"} if pooler else set())
    with torch.no_grad():
        found, expected = model(_pixels()).last_hidden_state, theirs(_pixels()).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_other_sizes_interpolate_as_transformers_does(tmp_path: Path) -> None:
    theirs = _theirs()
    model, _ = _ours(_saved(theirs, "disk", tmp_path))
    for height, width in ((48, 24), (16, 40)):
        with torch.no_grad():
            expected = theirs(_pixels(height, width), interpolate_pos_encoding=True).last_hidden_state
            found = model(_pixels(height, width)).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_picture_that_is_no_square(tmp_path: Path) -> None:
    theirs = _theirs(image_size=(24, 48))
    model, _ = _ours(_saved(theirs, "disk", tmp_path))
    assert model.config.position_grid == [1, 3, 6]
    with torch.no_grad():
        expected, found = theirs(_pixels(24, 48)).last_hidden_state, model(_pixels(24, 48)).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", ["disk", "memory"])
def test_a_classifier_of_the_class_token_is_left_out(tmp_path: Path, names: str) -> None:
    theirs = _theirs(ViTForImageClassification, num_labels=5)
    checkpoint = _saved(theirs, names, tmp_path)
    model, report = _ours(checkpoint)
    assert not report.new and set(report.ignored) == {"classifier.weight", "classifier.bias"}
    with torch.no_grad():
        found, expected = model(_pixels()).last_hidden_state, theirs.vit(_pixels()).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    _, report = _ours(checkpoint, M33DForVideoClassification, num_labels=5)
    assert "reads one token" in report.ignored["classifier.weight"]


@pytest.mark.parametrize("kind", ["masked", "msn", "ijepa"])
def test_relatives_with_the_same_encoder(tmp_path: Path, kind: str) -> None:
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "masked": (ViTForMaskedImageModeling, ViTConfig, {"encoder_stride": 8}),
        "msn": (ViTMSNModel, ViTMSNConfig, {}),
        "ijepa": (lambda config: IJepaModel(config, add_pooling_layer=False), IJepaConfig, {}),
    }
    cls, config, changes = kinds[kind]
    theirs = _theirs(cls, config, **changes)
    theirs.save_pretrained(tmp_path)
    model, report = _ours(load_foreign(tmp_path))
    assert not report.new and model.config.use_cls_token == (kind != "ijepa")
    assert len(report.ignored) == (3 if kind == "masked" else 0)
    encoder = theirs.vit if kind == "masked" else theirs
    with torch.no_grad():
        found, expected = model(_pixels()).last_hidden_state, encoder(_pixels()).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_a_config_the_library_s_epsilon_is_assumed(tmp_path: Path) -> None:
    weights = dict(_theirs().state_dict())
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    assert config_for(checkpoint)["layer_norm_eps"] == 1e-12
    _, report = _ours(checkpoint)
    assert any(line.startswith("assumed: layer_norm_eps 1e-12") for line in report.facts)


def test_a_distilled_deit_is_refused(tmp_path: Path) -> None:
    _theirs(DeiTModel, DeiTConfig).save_pretrained(tmp_path)
    with pytest.raises(ConversionError, match=r"DeiT with distillation.*a second token"):
        load_foreign(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.layer.1.layernorm_after.bias": None}, "1 weight of the model is not in"),
        ({"encoder.layer.1.gate.weight": torch.zeros(3)}, r"1 of \d+ keys cannot be explained.*gate"),
        ({"encoder.layer.1.output.dense.bias": torch.zeros(31)}, r"\(32,\) in the model but \(31,\)"),
        ({"embeddings.position_embeddings": torch.zeros(1, 17, 31) + 1}, r"31 wide, but the class .* \(1, 1, 32\)"),
    ],
)
def test_missing_surplus_and_misshapen_keys(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    theirs = _theirs()
    theirs.save_pretrained(tmp_path)
    weights = {key: t for key, t in {**load_foreign(tmp_path).tensors, **change}.items() if t is not None}
    checkpoint = from_state_dict(weights, config=theirs.config.to_dict())
    with pytest.raises(ConversionError, match=message):
        _ours(checkpoint)
