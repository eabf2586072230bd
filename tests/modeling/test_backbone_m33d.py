"""M33DBackbone: feature maps of any M33D checkpoint, and what the dense models of transformers make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoBackbone, DPTConfig, Mask2FormerConfig, UperNetConfig, UperNetForSemanticSegmentation

import m33d_hf
from helpers.tiny import CLIP, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.backbone_m33d import M33DBackbone
from m33d_hf.modeling.configuration_m33d import M33DConfig

SIZES = {"num_hidden_layers": 4, "segmentation_head_width": 16, "segmentation_head_depth": 1, "depth_head_width": 16}
MODELS = [
    "M33DModel",
    "M33DForPreTraining",
    "M33DForSemanticSegmentation",
    "M33DForDepthEstimation",
    "M33DForVideoClassification",
    "M33DForVideoActionDetection",
]


def config(**overrides: Any) -> M33DConfig:
    return tiny_config(**{**SIZES, **overrides})


def pixels(*lead: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.randn(*(lead or (2,)), 3, height, width, generator=torch.Generator().manual_seed(0))


def by_hand(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """(B, 1 + N, D) of the stem and after every block, from the parts of an RGB encoder."""
    encoder = model.m33d.encoders["rgb" if "rgb" in model.m33d.encoders else "shared"]
    projection = model.m33d.embeddings["rgb"].projection
    tokens = projection(images).flatten(2).transpose(1, 2)
    grid = (1, images.shape[-2] // 8, images.shape[-1] // 8)
    tokens = tokens + model.m33d.positions(grid)
    cls = model.m33d.embeddings["rgb"].cls_token.expand(len(images), -1, -1)
    states = [torch.cat([cls, tokens], dim=1)]
    for layer in encoder.layers:
        states.append(layer(states[-1]))
    return states


@pytest.mark.parametrize("head_norm", [False, True])
def test_maps_are_the_outputs_of_the_blocks(head_norm: bool) -> None:
    torch.manual_seed(0)
    model = M33DBackbone(config(head_norm=head_norm, out_features=["stem", "stage2", "stage4"])).eval()
    with torch.no_grad():
        maps = model(pixels()).feature_maps
        states = [by_hand(model, pixels())[number] for number in (0, 2, 4)]
    if head_norm:
        norm = model.m33d.encoders["rgb"].layernorm
        states = [norm(state) for state in states]
    assert len(maps) == 3 and model.channels == [32, 32, 32]
    for found, state in zip(maps, states):
        assert found.shape == (2, 32, 4, 6)
        torch.testing.assert_close(found[:, :, 1, 2], state[:, 1 + 1 * 6 + 2])
        torch.testing.assert_close(found, state[:, 1:].transpose(1, 2).reshape(2, 32, 4, 6))


def test_sequences_keep_the_class_token() -> None:
    torch.manual_seed(0)
    model = M33DBackbone(config(out_indices=[1, 4], reshape_hidden_states=False)).eval()
    with torch.no_grad():
        for found, wanted in zip(model(pixels()).feature_maps, by_hand(model, pixels())[1::3]):
            torch.testing.assert_close(found, wanted)


def test_stages_by_name_and_by_number() -> None:
    assert config().stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert M33DBackbone(config()).out_features == ["stage4"]
    assert M33DBackbone(config(out_indices=[0, -1])).out_features == ["stem", "stage4"]
    model = M33DBackbone(config(out_features=["stage1"]))
    model.out_indices = [2, 3]
    assert model.out_features == ["stage2", "stage3"] and len(model(pixels()).feature_maps) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"out_features": ["stage9"]}, "out_features must be a subset of stage_names"),
        ({"out_features": ["stage2", "stage1"]}, "same order as stage_names"),
        ({"out_indices": [7]}, "out_indices must be valid indices"),
        ({"out_indices": "all"}, "out_indices must be a list"),
        ({"reshape_hidden_states": "no"}, "reshape_hidden_states is 'no'; it must be True or False"),
        ({"out_feature": ["stage1"]}, "no field 'out_feature'"),
    ],
)
def test_stages_that_are_not_there(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**fields)


def test_a_configuration_says_nothing_of_a_backbone_until_it_has_one(tmp_path: Path) -> None:
    config().save_pretrained(tmp_path)
    names = {"out_features", "out_indices", "reshape_hidden_states", "stage_names"}
    assert not names & set(json.loads((tmp_path / "config.json").read_text()))
    chosen = config(out_indices=[1, 4], reshape_hidden_states=False)
    chosen.save_pretrained(tmp_path)
    for again in (M33DConfig.from_pretrained(tmp_path), M33DConfig.from_dict(chosen.to_dict())):
        assert again.out_features == ["stage1", "stage4"] and again.out_indices == [1, 4]
        assert again.reshape_hidden_states is False
    other = M33DConfig.from_pretrained(tmp_path, out_indices=[2])
    assert other.out_features == ["stage2"]


@pytest.mark.parametrize("name", MODELS)
def test_any_checkpoint_gives_its_rgb_encoder(name: str, tmp_path: Path) -> None:
    clip = CLIP if "Video" in name else {}
    torch.manual_seed(0)
    whole = getattr(m33d_hf, name)(config(**clip)).eval()
    whole.save_pretrained(tmp_path)
    model, report = M33DBackbone.from_pretrained(tmp_path, out_indices=[2, 4], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    base = whole if name == "M33DModel" else whole.m33d
    with torch.no_grad():
        states, _ = base.forward_intermediates(pixels(), [1, 3])
        for found, wanted in zip(model(pixels()).feature_maps, states):
            torch.testing.assert_close(found.flatten(2).transpose(1, 2), wanted)


def test_a_weight_under_another_name_is_reported(tmp_path: Path) -> None:
    whole = m33d_hf.M33DForDepthEstimation(config())
    weights = {**whole.state_dict(), "depth_head.predictt.weight": torch.zeros(1)}
    whole.save_pretrained(tmp_path, state_dict=weights)
    _, report = M33DBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"depth_head.predictt.weight"}


def test_states_attentions_and_gradients() -> None:
    model = M33DBackbone(config(out_indices=[1, 4]))
    model.set_attn_implementation("eager")
    output = model(pixels(), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 5 and len(output.attentions) == 4
    assert model(pixels()).hidden_states is None
    sum(each.square().mean() for each in output.feature_maps).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_what_it_does_not_take() -> None:
    model = M33DBackbone(config(**CLIP))
    assert model(pixels(2, 1)).feature_maps[0].shape == (2, 32, 4, 6)
    with pytest.raises(DataError, match="4 frames, but M33DBackbone reads images"):
        model(pixels(2, 4))
    with pytest.raises(ConfigError, match="requires 'pixel_values'"):
        model()
    with pytest.raises(ConfigError, match="no argument 'pixel_value'"):
        model(pixel_value=pixels())


def test_auto_backbone_builds_it() -> None:
    model = AutoBackbone.from_config(config(out_indices=[1, 2]))
    assert type(model) is M33DBackbone and model.out_features == ["stage1", "stage2"]


UPERNET: dict[str, Any] = {"hidden_size": 16, "auxiliary_channels": 8, "auxiliary_in_channels": 32, "num_labels": 3}


def test_upernet_learns_on_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = config(out_indices=[1, 2, 3, 4])
    model = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **UPERNET))
    trained = M33DBackbone(config())
    trained.save_pretrained(tmp_path / "trained")
    model.backbone.load_state_dict(M33DBackbone.from_pretrained(tmp_path / "trained").state_dict())
    labels = torch.arange(48).div(16, rounding_mode="floor").expand(2, 32, 48)  # three stripes
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        output = model(pixels(), labels=labels)
        assert output.logits.shape == (2, 3, 32, 48)
        output.loss.backward()
        losses.append(float(output.loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    moved, before = (each.m33d.embeddings["rgb"].projection.weight for each in (model.backbone, trained))
    assert not torch.equal(moved, before)
    model.eval().save_pretrained(tmp_path / "upernet")
    again = UperNetForSemanticSegmentation.from_pretrained(tmp_path / "upernet").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(pixels()).logits, model(pixels()).logits)


def test_dpt_reads_sequences_with_a_class_token() -> None:
    """DPTForDepthEstimation; transformers' DPTForSemanticSegmentation takes no backbone, nor does either train."""
    backbone = config(out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    sizes = {"hidden_size": 32, "fusion_hidden_size": 8, "neck_hidden_sizes": [4, 8, 16, 32]}
    model = transformers.DPTForDepthEstimation(DPTConfig(backbone_config=backbone, **sizes))
    output = model(pixels())
    assert output.predicted_depth.shape[0] == 2 and type(model.backbone) is M33DBackbone
    output.predicted_depth.mean().backward()
    assert model.backbone.m33d.embeddings["rgb"].projection.weight.grad.abs().sum() > 0


def test_mask2former_says_that_it_supports_swin_only(caplog: pytest.LogCaptureFixture) -> None:
    """It builds and runs nonetheless: docs/loading.md says so."""
    transformers.logging.enable_propagation()
    caplog.set_level("WARNING", logger="transformers")  # another test may have asked for less
    transformers.utils.logging.warning_once.cache_clear()  # and may have been told already
    settings = Mask2FormerConfig(
        backbone_config=config(out_indices=[1, 2, 3, 4]), feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        num_queries=5, num_labels=3,
    )  # fmt: skip
    transformers.logging.disable_propagation()
    assert any("m33d is not a supported model" in record.getMessage() for record in caplog.records)
    output = transformers.Mask2FormerForUniversalSegmentation(settings)(pixels())
    assert output.class_queries_logits.shape == (2, 5, 4)
