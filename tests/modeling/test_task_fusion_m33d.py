"""The fusions of RGB and depth against formulas in float64, and what a position without depth gives to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.tiny import tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.task_fusion_m33d import M33DTaskFusion

FUSIONS = ("sum", "concatenation", "cross_attention")


def _fusion(kind: str, seed: int = 1) -> M33DTaskFusion:
    """One whose weights are anything."""
    torch.manual_seed(seed)
    config = tiny_config(task_fusion=kind, task_inputs=["rgb", "depth"])
    config._attn_implementation = "eager"
    fusion = M33DTaskFusion(config).double()
    with torch.no_grad():
        for weight in fusion.parameters():
            weight.normal_(std=0.5)
    return fusion


def _tokens() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb, depth = (torch.randn(3, 5, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    seen = torch.rand(3, 5, generator=generator) < 0.6
    seen[0], seen[1] = False, True
    return rgb, depth, seen


def _norm(x: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    weight, bias = (each.detach().numpy() for each in (layer.weight, layer.bias))
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps) * weight + bias


def _expected(fusion: M33DTaskFusion, rgb: np.ndarray, depth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    if fusion.kind == "sum":
        return rgb + np.where(seen[..., None], depth, 0) * fusion.scale.detach().numpy()
    if fusion.kind == "concatenation":
        both = np.concatenate([rgb, np.where(seen[..., None], depth, 0)], axis=-1)
        return both @ fusion.mixing.weight.detach().numpy().T + fusion.mixing.bias.detach().numpy()
    attention, result = fusion.attention, rgb.copy()
    weight, bias = attention.qkv.weight.detach().numpy(), attention.qkv.bias.detach().numpy()
    out, shift = attention.proj.weight.detach().numpy(), attention.proj.bias.detach().numpy()
    for row in range(len(rgb)):
        if not seen[row].any():
            continue
        query = _norm(rgb[row], fusion.query_norm) @ weight[:32].T + bias[:32]
        context = _norm(depth[row][seen[row]], fusion.context_norm)  # only what there is
        key, value = context @ weight[32:64].T + bias[32:64], context @ weight[64:].T + bias[64:]
        heads = []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            scores = query[:, part] @ key[:, part].T / np.sqrt(8)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ value[:, part])
        result[row] = rgb[row] + np.concatenate(heads, -1) @ out.T + shift
    return result


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_formula(kind: str) -> None:
    fusion, (rgb, depth, seen) = _fusion(kind), _tokens()
    found = fusion(rgb, depth, seen).detach().numpy()
    np.testing.assert_allclose(found, _expected(fusion, rgb.numpy(), depth.numpy(), seen.numpy()), atol=1e-10)


@pytest.mark.parametrize("kind", FUSIONS)
def test_what_is_not_seen_has_no_part_and_no_gradient(kind: str) -> None:
    fusion, (rgb, depth, seen) = _fusion(kind), _tokens()
    other = torch.where(seen[..., None], depth, depth * -7 + 3).requires_grad_()
    torch.testing.assert_close(fusion(rgb, other, seen), fusion(rgb, depth, seen), rtol=0, atol=1e-12)
    fusion(rgb, other, seen).square().sum().backward()
    assert other.grad is not None and bool(other.grad.isfinite().all())
    assert bool((other.grad[~seen] == 0).all()) and bool((other.grad[seen] != 0).any(-1).all())
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in fusion.parameters())
    alone = fusion(rgb, None, None)
    torch.testing.assert_close(fusion(rgb, depth, torch.zeros_like(seen)), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(fusion(rgb, depth, torch.ones_like(seen)), fusion(rgb, depth, None))


@pytest.mark.parametrize("kind", ["sum", "concatenation"])
def test_depth_alone_is_depth_beside_rgb_of_zeros(kind: str) -> None:
    fusion, (rgb, depth, seen) = _fusion(kind), _tokens()
    torch.testing.assert_close(fusion(None, depth, seen), fusion(torch.zeros_like(rgb), depth, seen))


def test_cross_attention_needs_rgb() -> None:
    fusion, (_, depth, seen) = _fusion("cross_attention"), _tokens()
    with pytest.raises(ConfigError, match="'cross_attention' needs RGB"):
        fusion(None, depth, seen)
