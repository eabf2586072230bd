"""A pre-norm vision transformer as formulas over a state dict of timm's names, in float64: converters' second source.

Written from the papers (ViT, MAE, spatio-temporal MAE): patches by slicing, attention head by head, no module of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
EPS = 1e-6


def random_vit(
    width: int = 32,
    layers: int = 2,
    inner: int = 56,
    patch: tuple[int, ...] = (8, 8),
    rows: int = 17,
    class_token: bool = True,
    split: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Encoder weights of timm's names, all drawn at random.

    `patch` has two or three sides, `rows` of positions may be 0 for none.
    With `split`, query, key and value are layers of their own (spatio-temporal MAE).
    """
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, *patch),
        "patch_embed.proj.bias": (width,),
    }
    shapes |= {"cls_token": (1, 1, width)} if class_token else {}
    shapes |= {"pos_embed": (1, rows, width)} if rows else {}
    for n in range(layers):
        linear = {"attn.proj": (width, width), "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
        linear |= {f"attn.{x}": (width, width) for x in "qkv"} if split else {"attn.qkv": (3 * width, width)}
        for name, shape in linear.items():
            shapes |= {f"blocks.{n}.{name}.weight": shape, f"blocks.{n}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{name}.{leaf}": (width,) for leaf in ("weight", "bias")}
    return draw(shapes, seed) | norm_weights("norm", width, seed + 1)


def norm_weights(name: str, width: int, seed: int) -> dict[str, Tensor]:
    """A norm that is not the identity."""
    return draw({f"{name}.weight": (width,), f"{name}.bias": (width,)}, seed)


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random tensors by name; scales of norms are near one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    scales = [name for name in drawn if "norm" in name and name.endswith(".weight")]
    return drawn | {name: 1 + drawn[name] for name in scales}


def layer_norm(x: Tensor, weights: Weights, name: str, eps: float = EPS) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (spread + eps).sqrt() * weights[f"{name}.weight"].double() + weights[f"{name}.bias"].double()


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()


def patch_tokens(pixels: Tensor, weights: Weights) -> Tensor:
    """(B, C, [T,] H, W) to (B, N, D): one product per patch, rows fastest last."""
    kernel, bias = weights["patch_embed.proj.weight"].double(), weights["patch_embed.proj.bias"].double()
    if kernel.ndim == 4:
        kernel, pixels = kernel[:, :, None], pixels[:, :, None]
    t, p, q = kernel.shape[2:]
    tokens = []
    for f in range(0, pixels.shape[2], t):
        for y in range(0, pixels.shape[3], p):
            for x in range(0, pixels.shape[4], q):
                piece = pixels[:, :, f : f + t, y : y + p, x : x + q].double().flatten(1)
                tokens.append(piece @ kernel.flatten(1).T + bias)
    return torch.stack(tokens, dim=1)


def block(x: Tensor, weights: Weights, name: str, heads: int, eps: float = EPS) -> Tensor:
    """One block; layer scales (`ls1.gamma`, `ls2.gamma`) where the weights have them."""
    normed = layer_norm(x, weights, f"{name}.norm1", eps)
    if f"{name}.attn.qkv.weight" in weights:
        q, k, v = linear(normed, weights, f"{name}.attn.qkv").chunk(3, dim=-1)
    else:
        q, k, v = (linear(normed, weights, f"{name}.attn.{part}") for part in "qkv")
    size = q.shape[-1] // heads
    outputs = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = (q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(size)).softmax(-1)
        outputs.append(scores @ v[..., own])
    attended = linear(torch.cat(outputs, dim=-1), weights, f"{name}.attn.proj")
    x = x + attended * weights.get(f"{name}.ls1.gamma", torch.ones(())).double()
    hidden = linear(layer_norm(x, weights, f"{name}.norm2", eps), weights, f"{name}.mlp.fc1")
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + linear(hidden, weights, f"{name}.mlp.fc2") * weights.get(f"{name}.ls2.gamma", torch.ones(())).double()


def blocks(x: Tensor, weights: Weights, heads: int, eps: float = EPS) -> Tensor:
    """All blocks, no final norm."""
    count = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    for n in range(count):
        x = block(x, weights, f"blocks.{n}", heads, eps)
    return x


def image_tokens(pixels: Tensor, weights: Weights, heads: int, eps: float = EPS) -> Tensor:
    """(B, [1 +] N, D) raw outputs of the last block of an image model; `pos_embed` may lack the class token's row."""
    x, table = patch_tokens(pixels, weights), weights["pos_embed"].double()
    if "cls_token" not in weights:
        return blocks(x + table, weights, heads, eps)
    token = weights["cls_token"].double().expand(len(x), -1, -1)
    if table.shape[1] == x.shape[1]:
        return blocks(torch.cat([token, x + table], dim=1), weights, heads, eps)
    return blocks(torch.cat([token, x], dim=1) + table, weights, heads, eps)
