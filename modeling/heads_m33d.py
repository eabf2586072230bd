# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Dense heads on the raw block outputs of the RGB encoder: ConvNeXt segmentation head and DPT depth head.

Shapes of both are those of the MultiMAE fine-tuning models, which the paper uses;
every width follows the encoder, so that a tiny encoder gets a tiny head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_m33d import M33DConfig
from .errors_m33d import ConfigError

DPT_LEVELS = 4
LARGE_MAP = 1 << 18
"""Values of maps for each thread of a CPU, above which `ConvNeXtSegmentationHead` takes no more pictures at once."""


def evenly_spaced_layers(num_hidden_layers: int, levels: int = DPT_LEVELS) -> list[int]:
    """Return `levels` block indices (0-based) ending at the last block: 12 blocks give [2, 5, 8, 11]."""
    return [math.ceil(num_hidden_layers * level / levels) - 1 for level in range(1, levels + 1)]


def scaled_stem_channels(hidden_size: int) -> list[int]:
    """Return the channels of the four DPT levels: [96, 192, 384, 768] at width 768, in proportion elsewhere."""
    return [max(1, hidden_size // 2**level) for level in (3, 2, 1, 0)]


def tokens_to_map(tokens_BND: Tensor, grid: Sequence[int]) -> Tensor:
    """Return (B, N, D) tokens in row-major order as a (B, D, h, w) map; `grid` is (h, w)."""
    height, width = grid
    return tokens_BND.transpose(1, 2).reshape(tokens_BND.shape[0], tokens_BND.shape[2], height, width)


def _never(values: Tensor) -> bool:
    return False


def _mark_initialisation(head: nn.Module) -> None:
    """Ask M33DPreTrainedModel for the originals' initialisation: linear truncated normal, convolutions
    torch's.
    """
    for module in head.modules():
        if isinstance(module, nn.Linear):
            module.m33d_init = "trunc_normal"  # type: ignore[assignment]
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.m33d_init = "default"  # type: ignore[assignment]


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, MLP of ratio 4, residual; no layer scale, no drop path. (B, C, h, w) to the
    same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return the refined map."""
        hidden = self.norm(self.depthwise(map_BCHW).permute(0, 2, 3, 1))
        return map_BCHW + self.fc2(F.gelu(self.fc1(hidden))).permute(0, 3, 1, 2)


class ConvNeXtSegmentationHead(nn.Module):
    """Every token becomes upscale x upscale pixels of `width` channels, refined by ConvNeXt blocks.

    On a CPU and without gradients, large maps go through it a few pictures at a time, or one by one: those of a whole
    batch do not stay in the cache from one operation to the next (benchmarks/README.md), nor need they all be held.
    Logits are the same but for the rounding of products of other shapes; hooks on parts of the head see a few pictures
    at a time, too.

    Args:
        hidden_size: D of the tokens.
        num_labels: L.
        width: channels of the map.
        depth: number of ConvNeXt blocks.
        upscale: sub-positions per side of a token.
    """

    prefers_channels_last = staticmethod(_never)  # of maps in memory; may be exchanged for a machine's answer

    def __init__(self, hidden_size: int, num_labels: int, width: int, depth: int, upscale: int) -> None:
        super().__init__()
        self.width, self.upscale = width, upscale
        self.projection = nn.Linear(hidden_size, width * upscale**2)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width) for _ in range(depth))
        self.classifier = nn.Conv2d(width, num_labels, kernel_size=1)
        _mark_initialisation(self)

    def forward(self, tokens_BND: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
        """Return logits (B, L, H, W) for tokens of a (h, w) `grid` at the image `size` (H, W)."""
        few = self._pictures_at_once(tokens_BND, grid)
        if few is None:
            return self._logits(tokens_BND, grid, size)
        parts = tokens_BND.split(few)
        first = self._logits(parts[0], grid, size)
        logits = first.new_empty(len(tokens_BND), *first.shape[1:])
        logits[:few] = first
        for number, part in enumerate(parts[1:], start=1):  # into place: a list of parts would hold all of them twice
            logits[number * few : (number + 1) * few] = self._logits(part, grid, size)
        return logits

    def _pictures_at_once(self, tokens_BND: Tensor, grid: Sequence[int]) -> int | None:
        """How many pictures to predict together; None: the whole batch."""
        if (
            torch.compiler.is_compiling()  # first: nothing after it is to be traced
            or torch.jit.is_tracing()
            or torch.is_grad_enabled()
            or tokens_BND.device.type != "cpu"
            or type(tokens_BND.shape[0]) is not int  # a graph for any number of pictures
        ):
            return None
        values = grid[0] * grid[1] * self.upscale**2 * self.width
        if values < LARGE_MAP:
            return None
        few = max(LARGE_MAP * torch.get_num_threads() // values, 1)
        return few if few < tokens_BND.shape[0] else None

    def _logits(self, tokens_BND: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
        (height, width), up = grid, self.upscale
        # A token's values are sub-position slow, channel fast; the sub-position is row * upscale + column.
        pieces = self.projection(tokens_BND).reshape(-1, height, width, up, up, self.width)
        if self.prefers_channels_last(pieces):
            rows_BHWC = pieces.permute(0, 1, 3, 2, 4, 5).reshape(-1, height * up, width * up, self.width)
            map_BCHW = rows_BHWC.permute(0, 3, 1, 2)
        else:
            map_BCHW = pieces.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.width, height * up, width * up)
        for block in self.blocks:
            map_BCHW = block(map_BCHW)
        coarse = self.classifier(map_BCHW).contiguous()  # logits lie as they always do
        return F.interpolate(coarse, size=tuple(size), mode="bilinear", align_corners=False)


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus the input. (B, C, h, w) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return the refined map."""
        return map_BCHW + self.conv2(F.relu(self.conv1(F.relu(map_BCHW))))


class FusionBlock(nn.Module):
    """Add a refined finer map, refine the sum, resize it, mix its channels (1x1).

    The coarsest block has nothing to add: `skip_unit` is absent there. (The original carries an idle unit in
    that place, 2 * (9 C^2 + C) weights that nothing reads; data-parallel training would wait for their
    gradient.)
    """

    def __init__(self, channels: int, has_skip: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(channels) if has_skip else None
        self.unit = ResidualUnit(channels)
        self.projection = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, map_BCHW: Tensor, skip_BCHW: Tensor | None, size: Sequence[int]) -> Tensor:
        """Return (B, C, *size) of the fused map and its finer `skip_BCHW` (None at the coarsest level)."""
        if self.skip_unit is not None and skip_BCHW is not None:
            map_BCHW = map_BCHW + self.skip_unit(skip_BCHW)
        map_BCHW = self.unit(map_BCHW)
        if not torch.is_grad_enabled():
            # The same but for rounding, at a quarter of the pixels: weights of an interpolation sum to one. Training
            # keeps the order of the original, whose losses it repeats to the last digit.
            return _enlarged(self.projection(map_BCHW), size)
        return self.projection(_enlarged(map_BCHW, size))


def _enlarged(map_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(map_BCHW, size=tuple(size), mode="bilinear", align_corners=True)


class DPTDepthHead(nn.Module):
    """Four block outputs brought to 4x, 2x, 1x and 1/2 of the token grid and fused coarse to fine.

    Every fusion resizes to the next finer map's own size, so that odd and non-square grids work. The last one
    ends at half the image (8x the grid at the usual patch of 16), so that small patches do not pay for maps
    larger than the image.

    Args:
        hidden_size: D of the tokens.
        width: channels of the fused maps.
        stem_channels: channels of the four levels, finest first.
    """

    prefers_channels_last = staticmethod(_never)  # of maps in memory; may be exchanged for a machine's answer

    def __init__(self, hidden_size: int, width: int, stem_channels: Sequence[int]) -> None:
        super().__init__()
        if len(stem_channels) != DPT_LEVELS:
            raise ConfigError(f"depth_head_stem_channels must have {DPT_LEVELS} values, got {list(stem_channels)}")
        fine, middle, same, coarse = stem_channels
        self.stems = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(hidden_size, fine, 1), nn.ConvTranspose2d(fine, fine, kernel_size=4, stride=4)),
                nn.Sequential(
                    nn.Conv2d(hidden_size, middle, 1), nn.ConvTranspose2d(middle, middle, kernel_size=2, stride=2)
                ),
                nn.Sequential(nn.Conv2d(hidden_size, same, 1)),
                nn.Sequential(nn.Conv2d(hidden_size, coarse, 1), nn.Conv2d(coarse, coarse, 3, stride=2, padding=1)),
            ]
        )
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in stem_channels)
        self.fusions = nn.ModuleList(FusionBlock(width, has_skip=level < 3) for level in range(DPT_LEVELS))
        self.reduce = nn.Conv2d(width, max(1, width // 2), 3, padding=1)
        self.refine = nn.Conv2d(max(1, width // 2), max(1, width // 8), 3, padding=1)
        self.predict = nn.Conv2d(max(1, width // 8), 1, kernel_size=1)
        _mark_initialisation(self)

    def forward(self, tokens: Sequence[Tensor], grid: Sequence[int], size: Sequence[int]) -> Tensor:
        """Return the standardised depth (B, H, W) at the image `size`.

        Args:
            tokens: four (B, N, D) block outputs, shallow to deep.
            grid: (h, w) of the tokens.
            size: (H, W) of the image.
        """
        maps = [
            lateral(self._arranged(stem(tokens_to_map(level, grid))))
            for level, stem, lateral in zip(tokens, self.stems, self.laterals)
        ]
        fused = self.fusions[3](maps[3], None, maps[2].shape[-2:])
        fused = self.fusions[2](fused, maps[2], maps[1].shape[-2:])
        fused = self.fusions[1](fused, maps[1], maps[0].shape[-2:])
        fused = self.fusions[0](fused, maps[0], [max(side // 2, 1) for side in size])
        fused = _enlarged(self.reduce(fused), size)
        return self.predict(F.relu(self.refine(fused))).squeeze(1)

    def _arranged(self, map_BCHW: Tensor) -> Tensor:
        if self.prefers_channels_last(map_BCHW):
            return map_BCHW.contiguous(memory_format=torch.channels_last)
        return map_BCHW


class M33DContrastiveHead(nn.Module):
    """Temperature and optional projections of the contrastive term."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        names = ["rgb", *(spec.name for spec in config.paired_specs)]
        dim = config.contrastive_projection_dim
        self.projections = nn.ModuleDict({n: nn.Linear(config.hidden_size, dim) for n in names} if dim else {})
        self.temperature = config.contrastive_temperature
        self.log_temperature = (
            nn.Parameter(torch.tensor(self.temperature).log()) if config.contrastive_learnable_temperature else None
        )

    def project(self, name: str, features_BVD: torch.Tensor) -> torch.Tensor:
        """Map features to the contrasted space (identity without projection)."""
        return self.projections[name](features_BVD) if name in self.projections else features_BVD

    def current_temperature(self) -> float | torch.Tensor:
        """tau of Eq. 3."""
        return self.temperature if self.log_temperature is None else self.log_temperature.exp()


__all__ = [
    "ConvNeXtBlock",
    "ConvNeXtSegmentationHead",
    "DPTDepthHead",
    "M33DContrastiveHead",
    "evenly_spaced_layers",
    "scaled_stem_channels",
    "tokens_to_map",
]
