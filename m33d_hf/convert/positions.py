"""Foreign position tables are never loaded: they are shown to equal the table our models rebuild, or
refused."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.patches_m33d import position_table

# A table computed in float64 elsewhere and rounded once differs by one unit in the last place of float32.
FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-3


def verify_table(key: str, table: Tensor, kind: str, cls_row: bool, config: M33DConfig) -> tuple[str, Tensor | None]:
    """Compare a foreign table (1, N or 1 + N, D) with the one rebuilt on the same grid.

    Returns the reason under which `key` is ignored, and the class-token row (D,) or None.
    Raises `ConversionError` when the tables differ: learned positions cannot be carried by our models.
    """
    rows = table.reshape(-1, table.shape[-1])
    cls = rows[0] if cls_row else None
    patches = rows[1:] if cls_row else rows
    tolerance = FLOAT32_TOLERANCE if table.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    given, smallest = patches.cpu().double(), math.inf
    for grid in _possible_grids(patches.shape[0], config):
        rebuilt = position_table(kind, grid, table.shape[-1])
        difference = float((given - rebuilt.double()).abs().max())
        if difference <= tolerance:
            return (
                f"rebuilt, identical (grid {grid[1]} x {grid[2]}, largest difference {difference:.1e})",
                cls,
            )
        smallest = min(smallest, difference)
    if not bool(patches.any()):
        raise ConversionError(
            f"{key!r} is all zeros. transformers 5 leaves it so in a ViTMAE built from a config instead of from"
            f" released weights; our models have the fixed {kind} table, so features would differ."
        )
    raise ConversionError(
        f"{key!r}, shape {tuple(table.shape)}, is not the fixed {kind} table (off by up to {smallest:.3g})."
        " Our models rebuild that table, so learned or fine-tuned positions would be lost;"
        " convert the pre-training checkpoint instead."
    )


def table_side(table: Tensor, cls_row: bool) -> tuple[int, int] | None:
    """(h, w) of a square table, None when its length is no square."""
    length = table.reshape(-1, table.shape[-1]).shape[0] - int(cls_row)
    side = math.isqrt(length)
    return (side, side) if side * side == length else None


def grid_note(table: Tensor, cls_row: bool, config: M33DConfig) -> str | None:
    """What happens to the positions of a checkpoint trained on another grid than the model's, or None."""
    side = table_side(table, cls_row)
    assumed = tuple(config.position_grid or config.grid)[-2:]
    if side is None or side == assumed:
        return None
    note = (
        f"positions were trained on {side[0]} x {side[1]} tokens,"
        f" the model's table is built on {assumed[0]} x {assumed[1]}"
    )
    if config.position_embedding_resize == "interpolate":
        note += f"; set position_grid=[{config.grid[0]}, {side[0]}, {side[1]}] to interpolate it as MAE does"
    return note


def _possible_grids(length: int, config: M33DConfig) -> list[tuple[int, int, int]]:
    grids: list[tuple[int, int, int]] = []
    side = math.isqrt(length)
    if side * side == length:
        grids.append((1, side, side))
    for candidate in (config.position_grid, config.grid):
        if candidate is None:
            continue
        _, h, w = candidate
        if h * w == length and (1, h, w) not in grids:
            grids.append((1, h, w))
    return grids
