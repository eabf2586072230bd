"""MultiMAE as small torch modules: the names of its weights follow from the attributes, its function is written out.

A second source for the converter, which knows names from tables and computes with our own modules. Sizes are free, so
that no two widths of a model are equal by accident. Masks are lists of visible tokens over the inputs side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = {"rgb": 3, "depth": 1, "norm_rgb": 3, "semseg": 7}


def axes_table(side: int, dim: int) -> Tensor:
    """(1, dim, side, side): a quarter of the channels each for sin(row), cos(row), sin(column), cos(column)."""
    table = torch.zeros(dim, side, side, dtype=torch.float64)
    for k in range(dim // 4):
        rate = 10000 ** (-4 * k / dim)
        for place in range(side):
            table[k, place, :], table[dim // 4 + k, place, :] = math.sin(place * rate), math.cos(place * rate)
            table[dim // 2 + k, :, place] = math.sin(place * rate)
            table[3 * dim // 4 + k, :, place] = math.cos(place * rate)
    return table.float()[None]


class Attention(nn.Module):
    """Self-attention with one projection, or cross-attention with two."""

    def __init__(self, dim: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        if cross:
            self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        else:
            self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, (k, v) = self.q(x), self.kv(context).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(dim), _norm(dim)
        self.attn, self.mlp = Attention(dim, heads, cross=False), MLP(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class InputAdapter(nn.Module):
    def __init__(self, channels: int, dim: int, patch: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)
        self.pos_emb = nn.Parameter(axes_table(side, dim), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.proj(image)
        table = functional.interpolate(self.pos_emb, size=maps.shape[-2:], mode="bicubic", align_corners=False)
        return (maps + table).flatten(2).mT


class SemanticInput(nn.Module):
    """The third input of the released models: names only, our models do not take it."""

    def __init__(self, dim: int, patch: int, side: int) -> None:
        super().__init__()
        self.class_emb = nn.Embedding(CHANNELS["semseg"], 5)
        self.proj = nn.Conv2d(5, dim, patch, patch)
        self.pos_emb = nn.Parameter(axes_table(side, dim), requires_grad=False)


class OutputAdapter(nn.Module):
    """A decoder: cross-attention without residual, MLP, blocks, and one linear layer to the values of a patch."""

    def __init__(self, task: str, names: Sequence[str], sizes: dict[str, int], side: int) -> None:
        super().__init__()
        dim, heads, inner, patch = sizes["small"], sizes["small_heads"], sizes["small_inner"], sizes["patch"]
        self.own, self.patch, self.channels = ("rgb" if task == "norm_rgb" else task), patch, CHANNELS[task]
        self.task_embeddings = nn.ParameterDict({name: nn.Parameter(torch.zeros(1, 1, dim)) for name in names})
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_emb = nn.Parameter(axes_table(side, dim), requires_grad=False)
        self.decoder = Attention(dim, heads, cross=True)
        self.context_norm, self.query_norm, self.out_norm = _norm(dim), _norm(dim), _norm(dim)
        self.mlp = MLP(dim, inner)
        self.decoder_transformer = nn.Sequential(*(Block(dim, heads, inner) for _ in range(sizes["small_layers"])))
        self.out_proj = nn.Linear(dim, CHANNELS[task] * patch**2)
        self.proj_context = nn.Linear(sizes["dim"], dim)

    def forward(self, encoded: Tensor, inputs: Sequence[str], keep: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """(B, C, H, W)."""
        total = grid[0] * grid[1]
        latents = self.proj_context(encoded)
        visible, globally = latents[:, :-1], latents[:, -1:]
        table = functional.interpolate(self.pos_emb, size=grid, mode="bilinear", align_corners=False)
        places = table.flatten(2).mT
        everything = self.mask_token.expand(len(encoded), total * len(inputs), -1).clone()
        everything[:, list(keep)] = visible
        everything = everything + torch.cat([places + self.task_embeddings[name] for name in inputs], dim=1)
        first = inputs.index(self.own) * total
        queries, seen = everything[:, first : first + total], everything[:, list(keep)]
        x = self.decoder(self.query_norm(queries), self.context_norm(torch.cat([seen, globally], dim=1)))
        x = self.decoder_transformer(x + self.mlp(self.out_norm(x)))
        values = self.out_proj(x).unflatten(-1, (self.channels, self.patch, self.patch))
        pixels = values.unflatten(1, grid).permute(0, 3, 1, 4, 2, 5)
        return pixels.flatten(4).flatten(2, 3)


class MultiMAETwin(nn.Module):
    """Encoder, inputs and decoders of any sizes, every weight drawn at random."""

    SIZES = {  # noqa: RUF012
        **{"dim": 64, "layers": 2, "heads": 4, "inner": 96, "patch": 4, "side": 3},
        **{"small": 48, "small_layers": 2, "small_heads": 6, "small_inner": 80},
    }

    def __init__(
        self, targets: Sequence[str] = ("rgb", "depth", "norm_rgb"), semseg: bool = False, **sizes: int
    ) -> None:
        super().__init__()
        s = self.sizes = {**self.SIZES, **sizes}
        adapters: dict[str, nn.Module] = {
            name: InputAdapter(CHANNELS[name], s["dim"], s["patch"], s["side"]) for name in ("rgb", "depth")
        }
        self.inputs = tuple(adapters)
        if semseg:
            adapters["semseg"] = SemanticInput(s["dim"], s["patch"], s["side"])
        self.input_adapters = nn.ModuleDict(adapters)
        decoded = [*targets, *(["semseg"] if semseg and targets else [])]
        if decoded:
            self.output_adapters = nn.ModuleDict({t: OutputAdapter(t, [*adapters], s, s["side"]) for t in decoded})
        self.global_tokens = nn.Parameter(torch.zeros(1, 1, s["dim"]))
        self.encoder = nn.Sequential(*(Block(s["dim"], s["heads"], s["inner"]) for _ in range(s["layers"])))
        self._draw()

    def _draw(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                noise = 0.2 * torch.randn(weight.shape, generator=generator)
                weight.data.copy_(noise + float(weight.ndim == 1 and name.endswith("weight")))  # norms

    def encode(self, images: dict[str, Tensor], keep: Sequence[int] | None = None) -> Tensor:
        """(B, V + 1, dim): visible tokens of the images in order, the global token last."""
        tokens = torch.cat([self.input_adapters[name](image) for name, image in images.items()], dim=1)
        tokens = tokens if keep is None else tokens[:, list(keep)]
        return self.encoder(torch.cat([tokens, self.global_tokens.expand(len(tokens), -1, -1)], dim=1))

    def predict(self, images: dict[str, Tensor], keep: Sequence[int]) -> dict[str, Tensor]:
        """Pictures (B, C, H, W) by target."""
        patch = self.sizes["patch"]
        height, width = next(iter(images.values())).shape[-2:]
        encoded = self.encode(images, keep)
        return {
            name: adapter(encoded, self.inputs, keep, (height // patch, width // patch))
            for name, adapter in self.output_adapters.items()
            if name != "semseg"
        }


class _Timm(nn.Module):
    """A ViT of timm: what MultiMAE released for users of other repositories."""

    def __init__(self, twin: MultiMAETwin) -> None:
        super().__init__()
        rgb = twin.input_adapters["rgb"]
        self.cls_token = twin.global_tokens
        table = rgb.pos_emb.flatten(2).mT
        self.pos_embed = nn.Parameter(torch.cat([torch.zeros_like(table[:, :1]), table], dim=1), requires_grad=False)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = rgb.proj
        self.blocks = twin.encoder


def timm_layout(twin: MultiMAETwin) -> dict[str, Tensor]:
    """The encoder for RGB under timm's names; positions keep their exchanged axes."""
    return dict(_Timm(twin).state_dict())


def fine_tuned(twin: MultiMAETwin, task: str, side: int | None = None) -> dict[str, Tensor]:
    """A fine-tuned model: inputs, encoder and a head in the place of the decoders, positions of `side` x `side`."""
    dim = twin.sizes["dim"]
    heads: dict[str, tuple[str, Any]] = {
        "cls": ("cls", {"norm": _norm(dim), "head": nn.Linear(dim, 5)}),
        "semseg": ("semseg", {"proj_dec": nn.Linear(dim, 32), "final_layer": nn.Conv2d(2, 5, 1)}),
        "depth": (
            "depth",
            {
                "scratch": nn.ModuleDict({"layer1_rn": nn.Conv2d(4, 4, 3, bias=False)}),
                "head": nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1)),
                "act_1_postprocess": nn.Sequential(nn.Conv2d(dim, 4, 1)),
                "act_postprocess": nn.ModuleList([nn.Sequential(nn.Conv2d(dim, 4, 1))]),
            },
        ),
    }
    name, parts = heads[task]
    weights = {k: v for k, v in twin.state_dict().items() if not k.startswith("output_adapters.")}
    head = nn.ModuleDict({"output_adapters": nn.ModuleDict({name: nn.ModuleDict(parts)})})
    weights |= head.state_dict()
    if side is not None:
        for key in [key for key in weights if key.endswith(".pos_emb")]:
            weights[key] = functional.interpolate(weights[key], size=(side, side), mode="bicubic", align_corners=False)
    return weights
