"""The spatio-temporal MAE in its original layout -> our clip models: tokens and logits of written-out formulas.

Positions of places and of moments are summed; fine-tuned, the mean of the tokens without the class token is normed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.plain_vit import blocks, draw, layer_norm, linear, patch_tokens, random_vit
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.building import starting_config
from m33d_hf.weights import ConversionReport, config_for, convert_state_dict, from_state_dict
from m33d_hf.weights.own import initialise

HEADS, CLASSES, SLOTS, SIDE = 4, 5, 2, 4
STATED: dict[str, Any] = {"num_attention_heads": HEADS}


def _weights(class_token: bool = True) -> dict[str, Tensor]:
    weights = random_vit(patch=(2, 8, 8), rows=0, class_token=class_token, split=True)
    shapes: dict[str, tuple[int, ...]] = {"pos_embed_spatial": (1, SIDE**2, 32), "pos_embed_temporal": (1, SLOTS, 32)}
    return weights | draw(shapes | ({"pos_embed_class": (1, 1, 32)} if class_token else {}), 11)


def _decoder() -> dict[str, Tensor]:
    """Names only: one frame of a tubelet is predicted, with a class token of the decoder's own."""
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, 24), "decoder_cls_token": (1, 1, 24)}
    shapes |= {"decoder_pos_embed_spatial": (1, 16, 24), "decoder_pos_embed_temporal": (1, 2, 24)}
    shapes |= {"decoder_pos_embed_class": (1, 1, 24), "decoder_blocks.0.attn.q.weight": (24, 24)}
    return draw(shapes | {"decoder_embed.weight": (24, 32), "decoder_pred.weight": (192, 24)}, 12)


def _clips(frames: int = 4, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, frames, 3, height, width, generator=torch.Generator().manual_seed(3))


def _formula(weights: dict[str, Tensor], clips: Tensor, grid: tuple[int, int, int] = (SLOTS, SIDE, SIDE)) -> Tensor:
    """Raw outputs of the last block, class token first. Position of a token (t, s): temporal[t] + spatial[s]."""
    tokens = patch_tokens(clips.transpose(1, 2), weights)
    spatial, temporal = weights["pos_embed_spatial"][0].double(), weights["pos_embed_temporal"][0].double()
    place = [temporal[n // (grid[1] * grid[2])] + spatial[n % (grid[1] * grid[2])] for n in range(tokens.shape[1])]
    tokens = tokens + torch.stack(place)
    if "cls_token" in weights:
        token = (weights["cls_token"] + weights["pos_embed_class"]).double().expand(len(tokens), -1, -1)
        tokens = torch.cat([token, tokens], dim=1)
    return blocks(tokens, weights, HEADS)


def _converted(content: dict[str, Any], kind: Any = M33DModel, **overrides: Any) -> tuple[Any, ConversionReport]:
    torch.manual_seed(1)
    checkpoint = from_state_dict(content, stated=STATED)
    model = kind(M33DConfig(**{**config_for(checkpoint), **overrides})).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) == set(checkpoint.tensors) | set(checkpoint.ignored)
    assert not set(report.used) & set(report.ignored)
    return model, report


def test_an_image_model_sees_its_still_clips(tmp_path: Path) -> None:
    """Places with the moments interpolated to one, and the class token that it has."""
    weights = _weights()
    torch.save({"model": weights}, tmp_path / "mae_st.pth")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 56}
    words = ["--train.max_steps", "1", "--init_from", str(tmp_path / "mae_st.pth"), "--model.image_size", "32"]
    words += [word for name, value in {**sizes, "patch_size": 8}.items() for word in (f"--model.{name}", str(value))]
    config = starting_config(parse_arguments(words, "depth_estimation"))
    assert (config.num_frames, config.use_cls_token, config.position_grid) == (1, True, [1, SIDE, SIDE])
    model = M33DModel(M33DConfig(**{**config.to_dict(), "modalities": config.modalities[:1]})).eval()
    report = initialise(model, tmp_path / "mae_st.pth")
    assert not report.new and "pos_embed_temporal" in report.used
    moment = weights["pos_embed_temporal"].mean(1, keepdim=True)  # the middle of two slots
    still = weights | {"pos_embed_temporal": moment}
    pictures = _clips()[:, 0]
    with torch.no_grad():
        found = model(pictures).last_hidden_state.double()
    expected = _formula(still, pictures[:, None].expand(-1, 2, -1, -1, -1), (1, SIDE, SIDE))
    torch.testing.assert_close(found, layer_norm(expected, weights, "norm"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["model", "model_state"])
def test_a_pretraining_gives_its_encoder(wrapper: str) -> None:
    weights = _weights()
    arguments = argparse.Namespace(input_size=224, num_frames=16)  # both are told by the tables
    model, report = _converted({wrapper: weights | _decoder(), "args": arguments})
    assert report.format == "MAE-ST (original)" and not report.new
    assert set(report.ignored) == {"args", *_decoder()}
    assert all("one frame of each tubelet" in report.ignored[key] for key in _decoder())
    config = model.config
    assert (config.num_frames, config.tubelet_size, config.image_size) == (4, 2, 32)
    assert (config.position_grid, config.use_cls_token) == ([SLOTS, SIDE, SIDE], True)
    with torch.no_grad():
        found = model(_clips()).last_hidden_state.double()
    expected = layer_norm(_formula(weights, _clips()), weights, "norm")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_a_class_token() -> None:
    weights = _weights(class_token=False)
    model, report = _converted(weights)
    assert not report.new and not report.ignored and not model.config.use_cls_token
    with torch.no_grad():
        found = model(_clips()).last_hidden_state.double()
    expected = layer_norm(_formula(weights, _clips()), weights, "norm")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["head", "head.projection"])
def test_fine_tuned_on_kinetics_gives_its_logits(name: str) -> None:
    weights = _weights()
    head = draw({"head.weight": (CLASSES, 32), "head.bias": (CLASSES,)}, 9)
    saved = weights | {key.replace("head", name): tensor for key, tensor in head.items()}
    model, report = _converted({"model": saved}, M33DForVideoClassification, num_labels=CLASSES)
    assert report.format == "MAE-ST (original, fine-tuned)" and not report.new and not report.ignored
    pooled = _formula(weights, _clips())[:, 1:].mean(1)
    expected = linear(layer_norm(pooled, weights, "norm"), head, "head")
    with torch.no_grad():
        found = model(_clips()).logits.double()
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_mean_that_leaves_a_patch_out_is_not_ours() -> None:
    """Without class token the original still drops the first token."""
    weights = _weights(class_token=False) | draw({"head.weight": (CLASSES, 32), "head.bias": (CLASSES,)}, 9)
    _, report = _converted(weights, M33DForVideoClassification, num_labels=CLASSES)
    assert "leaves out the first token" in report.new["classifier.weight"]
    assert {"head.weight", "head.bias"} == set(report.ignored)


def test_other_sizes_interpolate_places() -> None:
    weights = _weights()
    model, _ = _converted(weights, image_size=[24, 48])
    maps = weights["pos_embed_spatial"].reshape(1, SIDE, SIDE, 32).permute(0, 3, 1, 2)
    maps = torch.nn.functional.interpolate(maps, size=(3, 6), mode="bicubic", align_corners=False)
    expected = weights | {"pos_embed_spatial": maps.flatten(2).mT}
    clips = _clips(height=24, width=48)
    with torch.no_grad():
        found = model(clips).last_hidden_state.double()
    tokens = layer_norm(_formula(expected, clips, (SLOTS, 3, 6)), weights, "norm")
    torch.testing.assert_close(found, tokens, rtol=1e-5, atol=1e-5)


def test_its_pretraining_goes_on_with_a_new_decoder() -> None:
    model, report = _converted(_weights() | _decoder(), M33DForPreTraining)
    assert report.new and all(key.startswith("decoder.") for key in report.new)
    assert torch.isfinite(model(_clips()).loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed_spatial": None}, "no position table"),
        ({"blocks.1.attn.k.bias": None}, "requires q, k and v, but k is missing"),
        ({"pos_embed_temporal": torch.zeros(1, 2, 30)}, r"positions\.temporal.*\(2, 32\).*\(2, 30\)"),
        ({"blocks.1.attn.rel.weight": torch.zeros(3)}, r"blocks\.1\.attn\.rel\.weight"),
        ({"pos_embed": torch.zeros(1, 33, 32)}, "one table over space and time"),
    ],
)
def test_missing_surplus_and_misshapen_keys(change: dict[str, Tensor | None], message: str) -> None:
    weights = {key: tensor for key, tensor in {**_weights(), **change}.items() if tensor is not None}
    with pytest.raises(ConversionError, match=message):
        _converted(weights, image_size=32, position_grid=[SLOTS, SIDE, SIDE])


def test_a_run_starts_from_it_without_further_words(tmp_path: Path) -> None:
    """Positions, their grid and the class token are the checkpoint's; sizes and the model's input are the run's."""
    weights = _weights()
    torch.save({"model": weights}, tmp_path / "mae_st.pth")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 56}
    sizes |= {"image_size": 48, "patch_size": 8, "num_frames": 4, "tubelet_size": 2}
    words = ["--train.max_steps", "1", "--init_from", str(tmp_path / "mae_st.pth")]
    words += [word for name, value in sizes.items() for word in (f"--model.{name}", str(value))]
    config = starting_config(parse_arguments(words, "video_classification"), num_labels=CLASSES)
    assert (config.position_embedding_type, config.use_cls_token) == ("learned", True)
    assert (config.position_grid, config.grid) == ([SLOTS, SIDE, SIDE], (2, 6, 6))
    report = initialise(M33DForVideoClassification(config), tmp_path / "mae_st.pth")
    assert {key.split(".")[0] for key in report.new} == {"fc_norm", "classifier"}
    assert any(line.startswith("image_size: 32 in the checkpoint") for line in report.facts)
