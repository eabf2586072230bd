# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""From the tokens of two encoders to one token per position, for task models that see RGB and depth.

Ours, not the paper's, which fine-tunes on RGB alone. A position without depth gets nothing from it, so that what a
model computes of a picture whose depth is missing is what it computes of the picture alone.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_m33d import M33DConfig
from .encoder_m33d import hiding_mask
from .errors_m33d import ConfigError
from .layers_m33d import M33DAttention

__all__ = ["M33DTaskFusion"]


class M33DTaskFusion(nn.Module):
    """Fuses RGB and depth tokens as `config.task_fusion` says; fresh, it gives the RGB tokens as they are.

    With r the RGB token and d the depth token of a position, 0 where the depth is missing:

    - "sum": r + s * d, s a learned factor per channel that starts at 0.
    - "concatenation": W [r, d] + b, a linear layer that starts as [identity, 0] and 0.
    - "cross_attention": r + Attention(norm(r), norm(d)), every RGB token looking at all depth tokens that are not
      missing; the projection of its output starts at 0.

    Args:
        config: the model.

    Attributes:
        scale: (D,) the factor s of "sum"; None otherwise.
    """

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        width, self.kind = config.hidden_size, config.task_fusion or "sum"
        self.scale = nn.Parameter(torch.zeros(width)) if self.kind == "sum" else None
        if self.kind == "concatenation":
            self.mixing = nn.Linear(2 * width, width)
            self.mixing.m33d_init = "first"  # type: ignore[assignment]
        elif self.kind == "cross_attention":
            self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
            self.context_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
            self.attention = M33DAttention(config, width, config.num_attention_heads)
            self.attention.proj.m33d_init = "zeros"  # type: ignore[assignment]

    def forward(self, rgb_BND: Tensor | None, depth_BND: Tensor | None, seen_BN: Tensor | None) -> Tensor:
        """Fuse; one of the two may be missing altogether.

        Args:
            rgb_BND, depth_BND: tokens of the same positions, or None.
            seen_BN: bool, positions whose depth is not missing; None: all of them.

        Returns:
            (B, N, D).

        Raises:
            ConfigError: cross attention without RGB, which asks the questions.
        """
        if self.kind == "cross_attention":
            return self._attended(rgb_BND, depth_BND, seen_BN)
        if depth_BND is not None and seen_BN is not None:
            depth_BND = depth_BND * seen_BN[..., None].to(depth_BND.dtype)
        if self.scale is not None:
            added = None if depth_BND is None else depth_BND * self.scale
            return cast(Tensor, added if rgb_BND is None else rgb_BND if added is None else rgb_BND + added)
        width = self.mixing.out_features
        if rgb_BND is not None and depth_BND is not None:
            return cast(Tensor, self.mixing(torch.cat([rgb_BND, depth_BND], dim=-1)))
        part = self.mixing.weight[:, :width] if depth_BND is None else self.mixing.weight[:, width:]
        return F.linear(cast(Tensor, rgb_BND if depth_BND is None else depth_BND), part, self.mixing.bias)

    def _attended(self, rgb_BND: Tensor | None, depth_BND: Tensor | None, seen_BN: Tensor | None) -> Tensor:
        if rgb_BND is None:
            raise ConfigError(
                "task_fusion 'cross_attention' needs RGB, whose tokens look at those of depth; pass pixel_values, or "
                "fine-tune a model with task_inputs [depth]."
            )
        if depth_BND is None:
            return rgb_BND
        mask = None if seen_BN is None else hiding_mask(seen_BN, rgb_BND, rgb_BND.shape[1])
        found, _ = self.attention(self.context_norm(depth_BND), self.query_norm(rgb_BND), mask=mask)
        if seen_BN is not None:
            found = found * seen_BN.any(dim=1)[:, None, None].to(found.dtype)
        return rgb_BND + found
