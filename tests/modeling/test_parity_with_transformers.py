"""Our `mae` and `videomae` methods against transformers' ViTMAE and VideoMAE: loss and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.foreign import (
    mae_config,
    original_mae,
    original_videomae,
    tiny_videomae,
    tiny_vitmae,
    videomae_config,
)
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import convert_state_dict, from_state_dict

TOLERANCE = 4e-5


def _gradient(model: nn.Module, name: str) -> Tensor:
    found = model.get_parameter(name).grad
    assert found is not None, f"{name} has no gradient"
    assert float(found.abs().max()) > 0, f"{name} has a zero gradient"
    return found


def _stacked(layer: nn.Module, names: tuple[str, ...]) -> Tensor:
    return torch.cat([_gradient(layer, f"{name}.weight") for name in names])


def _clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    pixels = torch.randn(3, 4, 3, 32, 32, generator=generator)
    masked = torch.ones(3, 16, dtype=torch.bool)
    for sample in masked:
        sample[torch.randperm(16, generator=generator)[:4]] = False
    return pixels, masked.repeat(1, 2)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_videomae_loss_and_gradients(attention: str) -> None:
    theirs = tiny_videomae(seed=5)
    theirs.set_attn_implementation(attention)
    ours = M33DForPreTraining(videomae_config())
    ours.set_attn_implementation(attention)
    convert_state_dict(from_state_dict(original_videomae(theirs)), ours)
    pixels, masked = _clips()
    keep = (~masked).nonzero()[:, 1].reshape(3, -1)
    expected = theirs(pixels, bool_masked_pos=masked).loss
    found = ours(pixels, keep={"rgb": keep}).loss
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    expected.backward()
    found.backward()
    layer = "attention.attention"
    pairs: dict[str, Callable[[], Tensor]] = {
        "m33d.embeddings.rgb.projection.weight": lambda: _gradient(
            theirs, "videomae.embeddings.patch_embeddings.projection.weight"
        ),
        "m33d.encoders.rgb.layers.0.attention.qkv.weight": lambda: _stacked(
            theirs.get_submodule(f"videomae.encoder.layer.0.{layer}"), ("query", "key", "value")
        ),
        "m33d.encoders.rgb.layers.1.layernorm_after.bias": lambda: _gradient(
            theirs, "videomae.encoder.layer.1.layernorm_after.bias"
        ),
        "m33d.encoders.rgb.layers.2.mlp.fc2.weight": lambda: _gradient(
            theirs, "videomae.encoder.layer.2.output.dense.weight"
        ),
        "m33d.encoders.rgb.layernorm.weight": lambda: _gradient(theirs, "videomae.layernorm.weight"),
        "decoder.embed.weight": lambda: _gradient(theirs, "encoder_to_decoder.weight"),
        "decoder.mask_token": lambda: _gradient(theirs, "mask_token"),
        "decoder.layers.1.attention.qkv.weight": lambda: _stacked(
            theirs.get_submodule(f"decoder.decoder_layers.1.{layer}"), ("query", "key", "value")
        ),
        "decoder.heads.rgb.bias": lambda: _gradient(theirs, "decoder.head.bias"),
    }
    _assert_gradients(ours, pairs)
    bias = _gradient(ours, "m33d.encoders.rgb.layers.0.attention.qkv.bias").chunk(3)
    inner = theirs.get_submodule(f"videomae.encoder.layer.0.{layer}")
    torch.testing.assert_close(bias[0], _gradient(inner, "query.bias"), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(bias[2], _gradient(inner, "value.bias"), rtol=TOLERANCE, atol=TOLERANCE)
    # A constant key bias cancels in the softmax: VideoMAE's missing key bias is no difference in training either.
    assert float(bias[1].abs().max()) < 1e-6


def test_mae_loss_and_gradients() -> None:
    theirs = tiny_vitmae(seed=6)
    ours = M33DForPreTraining(mae_config())
    convert_state_dict(from_state_dict(original_mae(theirs)), ours)
    generator = torch.Generator().manual_seed(12)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    noise = torch.rand(3, 16, generator=generator)
    keep = noise.argsort(dim=1)[:, :4].sort(dim=1).values
    expected = theirs(pixels, noise=noise).loss
    found = ours(pixels, keep={"rgb": keep}).loss
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    expected.backward()
    found.backward()
    three = ("q_proj", "k_proj", "v_proj")
    pairs: dict[str, Callable[[], Tensor]] = {
        "m33d.embeddings.rgb.projection.weight": lambda: _gradient(
            theirs, "vit.embeddings.patch_embeddings.projection.weight"
        ),
        "m33d.embeddings.rgb.cls_token": lambda: _gradient(theirs, "vit.embeddings.cls_token"),
        "m33d.encoders.rgb.layers.0.attention.qkv.weight": lambda: _stacked(
            theirs.get_submodule("vit.layers.0.attention"), three
        ),
        "m33d.encoders.rgb.layers.2.mlp.fc1.weight": lambda: _gradient(theirs, "vit.layers.2.mlp.fc1.weight"),
        "decoder.layers.0.attention.qkv.weight": lambda: _stacked(
            theirs.get_submodule("decoder.decoder_layers.0.attention"), three
        ),
        "decoder.mask_token": lambda: _gradient(theirs, "decoder.mask_token"),
        "decoder.heads.rgb.weight": lambda: _gradient(theirs, "decoder.decoder_pred.weight"),
    }
    _assert_gradients(ours, pairs)


def _assert_gradients(ours: nn.Module, pairs: dict[str, Callable[[], Tensor]]) -> None:
    for name, theirs in pairs.items():
        torch.testing.assert_close(
            _gradient(ours, name),
            theirs(),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_videomae_target_follows_per_channel_statistics_of_unit_pixels() -> None:
    """A clip of one colour has patches without variance: there the eps outside the square root decides."""
    theirs: Any = tiny_videomae(seed=9)
    ours = M33DForPreTraining(videomae_config())
    convert_state_dict(from_state_dict(original_videomae(theirs)), ours)
    pixels, masked = _clips()
    flat = pixels.clone()
    flat[0] = 0.3
    keep = (~masked).nonzero()[:, 1].reshape(3, -1)
    with torch.no_grad():
        expected = theirs(flat, bool_masked_pos=masked).loss
        found = ours(flat, keep={"rgb": keep}).loss
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
