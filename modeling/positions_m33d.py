# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Learned positions, for encoders that start from DINOv2, MAE-ST, timm's ViT or DINO."""

from __future__ import annotations

import torch
from torch import nn

from .configuration_m33d import M33DConfig
from .encoder_m33d import M33DPositions
from .patches_m33d import Grid, interpolate_table


class M33DLearnedPositions(nn.Module):
    """Learned positions in space and, in clip models, in time; the position of a token is their sum.

    Two tables, as in MAE-ST, instead of one over (t, h, w): the table of an image model fits clips too. A class token
    has no row here: a checkpoint's position of it is added to the token when the checkpoint is converted.

    Attributes:
        spatial: (h * w, D) parameter over rows and columns of the position grid, row by row.
        temporal: (t, D) parameter over its tubelets; None if the grid has only one.

    Args:
        config: the model; `position_grid` is the grid of the tables.
        width: channels D of a position.
    """

    spatial: nn.Parameter
    temporal: nn.Parameter | None

    def __init__(self, config: M33DConfig, width: int) -> None:
        super().__init__()
        slots, rows, columns = config.position_grid or config.grid
        self.base_grid: Grid = (int(slots), int(rows), int(columns))
        self.antialias = config.position_embedding_resize == "antialias"
        self.spatial = nn.Parameter(torch.zeros(rows * columns, width))
        self.temporal = nn.Parameter(torch.zeros(slots, width)) if slots > 1 else None

    def forward(self, grid: Grid) -> torch.Tensor:
        """Return the (N, D) table of a grid: bicubic in space (as DINOv2), linear in time, computed in float32."""
        slots, rows, columns = self.base_grid
        t, h, w = grid
        spatial = interpolate_table(self.spatial, (1, rows, columns), (1, h, w), antialias=self.antialias)
        if self.temporal is None:
            return spatial.repeat(t, 1) if t > 1 else spatial
        temporal: torch.Tensor = self.temporal
        if t != slots:
            steps = nn.functional.interpolate(temporal.float().t()[None], size=t, mode="linear", align_corners=False)
            temporal = steps[0].t().to(temporal.dtype)
        return (temporal[:, None] + spatial[None]).flatten(0, 1)


def encoder_positions(config: M33DConfig) -> M33DPositions | M33DLearnedPositions:
    """The positions of the encoders, by `config.position_embedding_type`; those of decoders are always fixed."""
    if config.position_embedding_type == "learned":
        return M33DLearnedPositions(config, config.hidden_size)
    return M33DPositions(config, config.hidden_size)
