# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Tubelets to pixels and back, and the fixed sine-cosine position tables: pure functions.

Letters: B batch, T frames, C channels, H W pixels, N tokens, V visible, P values per patch, D width;
a grid is (t, h, w) tokens and positions are flattened in that order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

Grid = tuple[int, int, int]


def has_symbols(grid: Grid) -> bool:
    """Whether a side is known only when an exported graph runs; a comparison would bind the graph to one size."""
    return any(isinstance(side, torch.SymInt) for side in grid)


def patch_view(pixels_BTCHW: torch.Tensor, tubelet: int, patch: tuple[int, int]) -> torch.Tensor:
    """View pixels as patches without copying.

    Returns:
        (B, t, h, w, C, pt, ph, pw), a strided view: indexing it copies only the patches that are asked for.
    """
    batch, frames, channels, height, width = pixels_BTCHW.shape
    patch_h, patch_w = patch
    split = pixels_BTCHW.view(
        batch, frames // tubelet, tubelet, channels, height // patch_h, patch_h, width // patch_w, patch_w
    )
    return split.permute(0, 1, 4, 6, 3, 2, 5, 7)


def gather_patches(
    pixels_BTCHW: torch.Tensor, tubelet: int, patch: tuple[int, int], index_BK: torch.Tensor | None
) -> torch.Tensor:
    """Copy the patches at `index_BK` (all of them when None).

    Returns:
        (B, K, C, pt, ph, pw), the order of a convolution kernel.
    """
    view = patch_view(pixels_BTCHW.contiguous(), tubelet, patch)
    batch, t, h, w = view.shape[:4]
    if index_BK is None:
        return view.reshape(batch, t * h * w, *view.shape[4:])
    rows = torch.arange(batch, device=index_BK.device)[:, None]
    total = t * h * w
    if 2 * index_BK.shape[1] > total:
        # Most of them: to copy all in one go and then whole rows is faster than to pick values out of the strided view.
        patches = view.reshape(batch * total, *view.shape[4:])
        return patches.index_select(0, (index_BK + rows * total).flatten()).unflatten(0, index_BK.shape)
    return view[rows, index_BK // (h * w), index_BK // w % h, index_BK % w]


def tokens_with_pixels(mask_BTCHW: torch.Tensor, tubelet: int, patch: tuple[int, int]) -> torch.Tensor:
    """(B, N) bool: tokens with at least one pixel of a mask (B, T, 1, H, W)."""
    view = patch_view(mask_BTCHW.contiguous(), tubelet, patch)
    return view.flatten(4).any(dim=-1).flatten(1)


def channels_last_patches(patches_BKCPPP: torch.Tensor) -> torch.Tensor:
    """(B, K, C, pt, ph, pw) to (B, K, P) with channels fastest, the order of MAE and VideoMAE targets."""
    return patches_BKCPPP.permute(0, 1, 3, 4, 5, 2).flatten(2)


def patchify(pixels_BTCHW: torch.Tensor, tubelet: int, patch: tuple[int, int]) -> torch.Tensor:
    """(B, T, C, H, W) to (B, N, P): tokens in (t, h, w) order, values in (frame, row, column, channel) order."""
    return channels_last_patches(gather_patches(pixels_BTCHW, tubelet, patch, None))


def unpatchify(patches_BNP: torch.Tensor, grid: Grid, tubelet: int, patch: tuple[int, int]) -> torch.Tensor:
    """Invert `patchify`: (B, N, P) to (B, T, C, H, W)."""
    batch = patches_BNP.shape[0]
    t, h, w = grid
    patch_h, patch_w = patch
    split = patches_BNP.reshape(batch, t, h, w, tubelet, patch_h, patch_w, -1)
    return split.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(batch, t * tubelet, -1, h * patch_h, w * patch_w)


@lru_cache(maxsize=32)
def _sincos_2d(height: int, width: int, dim: int) -> np.ndarray:
    # MAE's layout: the first half of the channels encodes the column, the second half the row.
    frequencies = 10000.0 ** (-np.arange(dim // 4, dtype=np.float64) / (dim / 4))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    parts = []
    for coordinate in (columns, rows):
        angles = coordinate.reshape(-1, 1) * frequencies
        parts += [np.sin(angles), np.cos(angles)]
    return np.concatenate(parts, axis=1).astype(np.float32)


@lru_cache(maxsize=32)
def _sincos_1d(length: int, dim: int) -> np.ndarray:
    # VideoMAE's layout: sine and cosine interleaved over the flattened position.
    channel = np.arange(dim)
    angles = np.arange(length, dtype=np.float64)[:, None] / 10000.0 ** (2 * (channel // 2) / dim)
    return np.where(channel % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


def position_table(kind: str, grid: Grid, dim: int) -> torch.Tensor:
    """Build the fixed table of a grid, computed in float64.

    Args:
        kind: "sincos_2d" (MAE; any height and width, no time) or "sincos_1d" (VideoMAE; over the flattened index).
        grid: (t, h, w) tokens.
        dim: width D, a multiple of 4.

    Returns:
        (N, D) float32.
    """
    t, h, w = grid
    if kind == "sincos_2d":
        table = np.tile(_sincos_2d(h, w, dim), (t, 1))
    else:
        table = _sincos_1d(t * h * w, dim)
    # Copied, because the cached array must not be written through the tensor.
    return torch.from_numpy(table.copy())


def position_table_of_symbols(kind: str, grid: Grid, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """`position_table` in torch operations, for a grid whose sides an exported graph learns only when it runs.

    Computed in float64 as well, so that both agree but for the last bit.

    Args:
        kind: "sincos_2d" or "sincos_1d".
        grid: (t, h, w) tokens, symbols or numbers.
        dim: width D, a multiple of 4.
        device: where.

    Returns:
        (N, D) float32.
    """
    t, h, w = grid
    if kind == "sincos_1d":
        channel = torch.arange(dim, device=device)
        position = torch.arange(t * h * w, dtype=torch.float64, device=device)
        angles = position[:, None] / 10000.0 ** (2 * (channel // 2).double() / dim)
        return torch.where(channel % 2 == 0, angles.sin(), angles.cos()).float()
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64, device=device) / (dim / 4))
    sides = [torch.arange(side, dtype=torch.float64, device=device)[:, None] * frequencies for side in (h, w)]
    rows, columns = (torch.cat([angles.sin(), angles.cos()], dim=-1) for angles in sides)
    both = [columns[None].expand(h, w, dim // 2), rows[:, None].expand(h, w, dim // 2)]
    return torch.cat(both, dim=-1).float().expand(t, h, w, dim).reshape(t * h * w, dim)


def interpolate_table(
    table_ND: torch.Tensor, source: Grid, target: Grid, mode: str = "bicubic", antialias: bool = False
) -> torch.Tensor:
    """Resample a table to other heights and widths, slot by slot, align_corners False.

    Args:
        table_ND: the table of the grid `source`.
        source: (t, h, w) tokens.
        target: (t, h, w) tokens.
        mode: "bicubic" (MAE; MultiMAE's encoder) or "bilinear" (MultiMAE's decoders).
        antialias: smooth before shrinking (DINOv2 with registers).

    Returns:
        (N', D) in the dtype of the table.
    """
    if not has_symbols(target) and source == target:
        return table_ND
    dim = table_ND.shape[-1]
    maps = table_ND.float().reshape(*source, dim).permute(0, 3, 1, 2)
    maps = functional.interpolate(maps, size=target[1:], mode=mode, align_corners=False, antialias=antialias)
    return maps.permute(0, 2, 3, 1).reshape(-1, dim).to(table_ND.dtype)
