"""MultiMAE's two dense heads as small torch modules: names follow from the attributes, functions are written out.

ConvNeXt for segmentation and DPT for depth, as the original repository's trainers build them, with every scale of the
original (factors of two and four, not the sizes of other maps). `MultiMAEHeadsTwin` puts one on the encoder twin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.multimae_twin import MultiMAETwin


class _ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.dwconv(x).movedim(1, -1))
        return x + self.pwconv2(functional.gelu(self.pwconv1(hidden))).movedim(-1, 1)


class ConvNeXtHead(nn.Module):
    """Each token becomes `per_side` x `per_side` cells of `dim` channels; cell (i, j) has the values from (i, j) on."""

    def __init__(self, width: int, classes: int, dim: int = 6, per_side: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.dim, self.per_side = dim, per_side
        self.proj_dec = nn.Linear(width, dim * per_side**2)
        self.blocks = nn.Sequential(*(_ConvNeXtBlock(dim) for _ in range(depth)))
        self.final_layer = nn.Conv2d(dim, classes, 1)

    def forward(self, tokens: list[Tensor], side: int, size: int) -> Tensor:
        values, k = self.proj_dec(tokens[-1]), self.per_side
        cells = torch.zeros(len(values), self.dim, side * k, side * k)
        for place in range(side * side):
            for cell in range(k * k):
                y, x = place // side * k + cell // k, place % side * k + cell % k
                cells[:, :, y, x] = values[:, place, cell * self.dim : (cell + 1) * self.dim]
        logits = self.final_layer(self.blocks(cells))
        return functional.interpolate(logits, size=(size, size), mode="bilinear")


class _ResidualUnit(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 3, padding=1), nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.relu(self.conv1(functional.relu(x)))) + x


class _Fusion(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(dim, dim, 1)
        self.resConfUnit1, self.resConfUnit2 = _ResidualUnit(dim), _ResidualUnit(dim)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        x = self.resConfUnit2(x if finer is None else x + self.resConfUnit1(finer))
        return self.out_conv(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class DPTHead(nn.Module):
    """Reads four blocks; every layer of a level has a second name in a list, as in the original."""

    def __init__(self, width: int, dims: tuple[int, ...] = (4, 6, 10, 12), dim: int = 256) -> None:
        super().__init__()
        self.scratch = nn.Module()
        for level, channels in enumerate(dims, start=1):
            setattr(self.scratch, f"layer{level}_rn", nn.Conv2d(channels, dim, 3, padding=1, bias=False))
            setattr(self.scratch, f"refinenet{level}", _Fusion(dim))
        self.scratch.layer_rn = nn.ModuleList(getattr(self.scratch, f"layer{level}_rn") for level in (1, 2, 3, 4))
        a, b, c, d = dims
        self.act_1_postprocess = nn.Sequential(nn.Conv2d(width, a, 1), nn.ConvTranspose2d(a, a, 4, stride=4))
        self.act_2_postprocess = nn.Sequential(nn.Conv2d(width, b, 1), nn.ConvTranspose2d(b, b, 2, stride=2))
        self.act_3_postprocess = nn.Sequential(nn.Conv2d(width, c, 1))
        self.act_4_postprocess = nn.Sequential(nn.Conv2d(width, d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1))
        levels = [self.act_1_postprocess, self.act_2_postprocess, self.act_3_postprocess, self.act_4_postprocess]
        self.act_postprocess = nn.ModuleList(levels)
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        half = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.head = nn.Sequential(half, up, nn.Conv2d(dim // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, tokens: list[Tensor], side: int, size: int) -> Tensor:
        maps = [level.mT.unflatten(-1, (side, side)) for level in tokens]
        maps = [self.scratch.layer_rn[n](self.act_postprocess[n](m)) for n, m in enumerate(maps)]
        x = self.scratch.refinenet4(maps[3])
        for level in (3, 2, 1):
            x = getattr(self.scratch, f"refinenet{level}")(x, maps[level - 1])
        return self.head(x)[:, 0]


class MultiMAEHeadsTwin(nn.Module):
    """RGB into the encoder twin (patch 16), its tokens without the global one into a head; one more input for names."""

    def __init__(self, task: str, depth_input: bool = False, **sizes: Any) -> None:
        super().__init__()
        shape = {"patch": 16, "side": 4, "layers": 4, "dim": 32, "inner": 48, **sizes}
        self.base = MultiMAETwin(targets=(), **shape)
        head = ConvNeXtHead(32, classes=5) if task == "semseg" else DPTHead(32)
        generator = torch.Generator().manual_seed(2)
        for name, weight in head.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            fan = max(1, weight[0].numel())
            weight.data.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else noise * fan**-0.5)
        self.output_adapters = nn.ModuleDict({task: head})
        self.depth_input = depth_input

    def weights(self) -> dict[str, Tensor]:
        """The state dict that the original trainer saves."""
        state = {key.removeprefix("base."): tensor for key, tensor in self.state_dict().items()}
        return {k: t for k, t in state.items() if self.depth_input or not k.startswith("input_adapters.depth.")}

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.base.input_adapters["rgb"](pixels)
        x = torch.cat([tokens, self.base.global_tokens.expand(len(tokens), -1, -1)], dim=1)
        states = []
        for layer in self.base.encoder:
            x = layer(x)
            states.append(x[:, :-1])
        side = pixels.shape[-1] // self.base.sizes["patch"]
        return next(iter(self.output_adapters.values()))(states, side, pixels.shape[-1])
