# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""From pixels to encoded tokens: patch embedding of the visible patches, positions, encoder stacks."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from .configuration_m33d import M33DConfig, ModalitySpec
from .errors_m33d import DataError
from .layers_m33d import M33DLayer, rows_at
from .patches_m33d import (
    Grid,
    gather_patches,
    has_symbols,
    interpolate_table,
    position_table,
    position_table_of_symbols,
)


def as_clip(pixels: torch.Tensor, spec: ModalitySpec, config: M33DConfig) -> torch.Tensor:
    """Bring (B, C, H, W) or (B, T, C, H, W) to (B, T, C, H, W); an image (or a clip of one frame) becomes one tubelet
    of repeated frames.

    Raises:
        DataError: integers, an empty batch, or a wrong number of dimensions or channels.
        ConfigError: frames or sides do not fit tubelet and patch.
    """
    if not pixels.is_floating_point():
        raise DataError(
            f"{spec.input_name} is {pixels.dtype}, but the model requires normalised floats: use the processor, or, "
            "for "
            "batches of a loader, m33d_hf.training.tasks.base.to_device."
        )
    if pixels.ndim == 4:
        pixels = pixels[:, None]
    if pixels.ndim == 5 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, config.tubelet_size, -1, -1, -1)
    if pixels.ndim != 5:
        raise DataError(f"{spec.input_name} has shape {tuple(pixels.shape)}; expected (B, C, H, W) or (B, T, C, H, W).")
    if pixels.shape[2] != spec.channels:
        raise DataError(
            f"{spec.input_name} has {pixels.shape[2]} channels, but modality {spec.name!r} has {spec.channels}; "
            "expected (B, C, H, W) or (B, T, C, H, W)."
        )
    if pixels.shape[0] == 0:
        raise DataError(
            f"{spec.input_name} has shape {tuple(pixels.shape)}: the batch is empty; pass at least one sample."
        )
    config.grid_for(pixels.shape[1], *pixels.shape[-2:])
    return pixels


def gather_tokens(tokens_ND: torch.Tensor, index_BK: torch.Tensor | None) -> torch.Tensor:
    """Rows of a shared (N, D) table per sample: (B, K, D), or (1, N, D) without an index."""
    return tokens_ND[None] if index_BK is None else rows_at(tokens_ND, index_BK)


def hiding_mask(seen_BN: torch.Tensor, tokens_BND: torch.Tensor, queries: int | None = None) -> torch.Tensor:
    """(B, 1, K, N) to add to scores, so that only seen tokens are attended to; K queries, None as many as tokens.

    Of a sample without a seen token all are attended to alike, which is finite.
    """
    length = seen_BN.shape[1]
    hidden = torch.zeros(seen_BN.shape, dtype=tokens_BND.dtype, device=tokens_BND.device)
    hidden = hidden.masked_fill(~seen_BN, torch.finfo(hidden.dtype).min)
    return hidden[:, None, None].expand(-1, 1, length if queries is None else queries, -1)


# Tables of other grids that are kept, of all models together: some megabytes each.
_TABLES_KEPT = 8


def _on_grid(grid: Grid, table_ND: torch.Tensor, kind: str, base_grid: Grid, resize: str, mode: str) -> torch.Tensor:
    """The table of a grid from that of the configured one, see `M33DPositions`."""
    # A table over the flattened index has no time axis to interpolate: other numbers of slots count anew.
    if resize == "rebuild" or grid[0] != base_grid[0]:
        return position_table(kind, grid, table_ND.shape[-1]).to(table_ND)
    return interpolate_table(table_ND, base_grid, grid, mode, resize == "antialias")


@lru_cache(maxsize=_TABLES_KEPT)
def _kept_table(
    grid: Grid, kind: str, base_grid: Grid, width: int, resize: str, mode: str, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """`_on_grid`, computed once: fixed tables depend on nothing else. Part of no module, which would save it."""
    with torch.inference_mode(False):  # a table made for a prediction serves a training as well
        table = position_table(kind, base_grid, width).to(device, dtype)
        return _on_grid(grid, table, kind, base_grid, resize, mode)


def _can_be_kept(table: torch.Tensor) -> bool:
    """Whether tables outlive this pass: not while a graph is traced, nor without data (estimates, sharded tensors)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return type(table) is torch.Tensor and type(table.new_empty(0)) is torch.Tensor and table.device.type != "meta"


class M33DPositions(nn.Module):
    """The fixed position table on the configured grid; other grids interpolate it or build their own.

    Those are kept: pictures of one size, and clips of one length, have the same one in every pass.

    Beside an encoder with learned positions (`M33DLearnedPositions`), whose grid may be that of another model's
    training, a decoder has the fixed table that goes by default with its frames, built for every grid anew.

    Args:
        config: the model.
        width: channels of a position.
        mode: how other grids interpolate the table, see `interpolate_table`.
    """

    table: torch.Tensor

    def __init__(self, config: M33DConfig, width: int, mode: str = "bicubic") -> None:
        super().__init__()
        self.mode = mode
        self.kind, self.resize = str(config.position_embedding_type), config.position_embedding_resize
        slots, rows, columns = config.position_grid or config.grid
        if self.kind == "learned":
            self.kind, self.resize = config.fixed_positions, "rebuild"
            slots, rows, columns = config.grid
        self.base_grid: Grid = (int(slots), int(rows), int(columns))
        self.width = width
        self.register_buffer("table", self.build(), persistent=False)

    def build(self) -> torch.Tensor:
        """Compute the (N, D) table on the CPU, whatever the default device is."""
        with torch.device("cpu"):
            return position_table(self.kind, self.base_grid, self.width)

    def forward(self, grid: Grid) -> torch.Tensor:
        """Return the (N, D) table of a grid."""
        if has_symbols(grid):
            return self._of_symbols(grid)
        if grid == self.base_grid:
            return self.table
        if not _can_be_kept(self.table):
            return _on_grid(grid, self.table, self.kind, self.base_grid, self.resize, self.mode)
        facts = (self.kind, self.base_grid, self.width, self.resize, self.mode)
        return _kept_table(grid, *facts, self.table.device, self.table.dtype)

    def _of_symbols(self, grid: Grid) -> torch.Tensor:
        """The table in a graph for any height and width: interpolated even to its own grid, which gives it back."""
        if self.resize == "rebuild" or grid[0] != self.base_grid[0]:
            return position_table_of_symbols(self.kind, grid, self.width, self.table.device).to(self.table)
        return interpolate_table(self.table, self.base_grid, grid, self.mode, self.resize == "antialias")


class M33DEmbeddings(nn.Module):
    """Patch embedding of one modality; projects only the visible patches, keeps a convolution's weights on disk."""

    linear = staticmethod(nn.functional.linear)  # may be exchanged for a faster one

    def __init__(self, config: M33DConfig, spec: ModalitySpec) -> None:
        super().__init__()
        self.tubelet = config.tubelet_size
        self.patch = config.patch_height_width
        self.projection: nn.Conv2d | nn.Conv3d
        if config.is_clip_model:
            kernel = (self.tubelet, *self.patch)
            self.projection = nn.Conv3d(spec.channels, config.hidden_size, kernel_size=kernel, stride=kernel)
        else:
            self.projection = nn.Conv2d(spec.channels, config.hidden_size, kernel_size=self.patch, stride=self.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.use_cls_token else None

    def forward(
        self, pixels_BTCHW: torch.Tensor, keep_BV: torch.Tensor | None, positions_ND: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed the patches at `keep_BV` (all when None), add positions (none when None), prepend the class token."""
        patches = gather_patches(pixels_BTCHW, self.tubelet, self.patch, keep_BV).flatten(2)
        weight = self.projection.weight.flatten(1)
        tokens = self.linear(patches.to(weight.dtype), weight, self.projection.bias)
        if positions_ND is not None:
            tokens = tokens + gather_tokens(positions_ND, keep_BV).to(tokens.dtype)
        if self.cls_token is not None:
            # MAE's position row of the class token is zero, so nothing is added to it.
            tokens = torch.cat([self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens


class M33DEncoder(nn.Module):
    """A stack of pre-norm blocks with an optional final norm.

    Register tokens (DINOv2 with registers) stand behind the tokens of every sequence while it passes the blocks, have
    no position, and are no part of what comes out.
    """

    def __init__(self, config: M33DConfig, final_norm: bool) -> None:
        super().__init__()
        depth = config.num_hidden_layers
        self.layers = nn.ModuleList(
            M33DLayer(
                config,
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                drop_path=config.drop_path_rate * index / max(depth - 1, 1),
            )
            for index in range(depth)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if final_norm else None
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, config.hidden_size)) if registers else None

    def registered(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """(B, N + R, D), the register tokens behind the others."""
        if self.register_tokens is None:
            return tokens_BND
        registers = self.register_tokens.to(tokens_BND.dtype).expand(tokens_BND.shape[0], -1, -1)
        return torch.cat([tokens_BND, registers], dim=1)

    def unregistered(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """(B, N, D), without the register tokens."""
        return tokens_BND if self.register_tokens is None else tokens_BND[:, : -self.register_tokens.shape[1]]

    def forward(self, tokens_BND: torch.Tensor, seen_BN: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D) to (B, N, D), normed when the encoder has a final norm; no token attends to those that `seen_BN`
        leaves out, at least one of a sample being seen.
        """
        mask = self.attention_mask(tokens_BND, seen_BN)
        tokens_BND = self.registered(tokens_BND)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND) if mask is None else layer(tokens_BND, mask=mask)
        return self.normed(self.unregistered(tokens_BND))

    def attention_mask(self, tokens_BND: torch.Tensor, seen_BN: torch.Tensor | None) -> torch.Tensor | None:
        """What blocks add to their scores, (B, 1, N + R, N + R); None where every token is seen. Registers are."""
        if seen_BN is None:
            return None
        registers = 0 if self.register_tokens is None else self.register_tokens.shape[1]
        return hiding_mask(nn.functional.pad(seen_BN, (0, registers), value=True), tokens_BND)

    def intermediates(self, tokens_BND: torch.Tensor, layers: list[int]) -> list[torch.Tensor]:
        """Raw outputs (no final norm) of the blocks listed, 0-based; -1 is what the first block reads."""
        outputs = {-1: tokens_BND}
        tokens_BND = self.registered(tokens_BND)
        for index, layer in enumerate(self.layers[: max(layers) + 1]):
            tokens_BND = layer(tokens_BND)
            if index in layers:
                outputs[index] = self.unregistered(tokens_BND)
        return [outputs[index] for index in layers]

    def normed(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Apply the final norm where there is one."""
        return tokens_BND if self.layernorm is None else self.layernorm(tokens_BND)
