"""Foreign position tables are never loaded: they are either shown to equal the table that our models rebuild,
or refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.patches_m33d import interpolate_table, position_table

# A table computed in float64 elsewhere and rounded once differs by one unit in the last place of float32.
FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-3
# Sides of the grids from which a table may have been interpolated when a model was fine-tuned at another size.
_SMALLEST_SIDE, _LARGEST_SIDE = 2, 64

Sides = tuple[int, int]


@dataclass(frozen=True)
class TableGrid:
    """What a position table is: of `sides` (h, w), built on `base` (h, w) and interpolated where they differ."""

    sides: Sides
    base: Sides
    difference: float

    @property
    def words(self) -> str:
        """For reports: width x height."""
        grid = f"grid {self.sides[0]} x {self.sides[1]}"
        return grid if self.base == self.sides else f"{grid}, interpolated from {self.base[0]} x {self.base[1]}"


def find_grid(table: Tensor, kind: str, candidates: Sequence[Sides]) -> TableGrid | None:
    """Find the grid on which a table (N, D), or (h, w, D) where its sides are known, was built.

    Args:
        table: rows in row-major order.
        kind: of the fixed table, see `position_table`.
        candidates: sides to try beside the square for (N, D).

    Returns:
        None when it is not a fixed table, and no bicubic interpolation of one of another size.
    """
    tolerance = FLOAT32_TOLERANCE if table.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    given = table.reshape(-1, table.shape[-1]).cpu().double()
    for sides in _possible_sides(table, candidates):
        if (difference := _difference(given, kind, sides, sides)) <= tolerance:
            return TableGrid(sides, sides, difference)
    if kind != "sincos_2d":
        return None
    for sides in _possible_sides(table, candidates):
        for side in range(_SMALLEST_SIDE, _LARGEST_SIDE + 1):
            base = (side, side)
            # The channels of the highest frequency first, which tell all sides apart.
            if _difference(_fastest(given), kind, base, sides) > tolerance:
                continue
            if (difference := _difference(given, kind, base, sides)) <= tolerance:
                return TableGrid(sides, base, difference)
    return None


def _difference(given: Tensor, kind: str, base: Sides, sides: Sides) -> float:
    """The largest deviation of rows (N, D) from the table built on `base` and brought to `sides`."""
    rebuilt = interpolate_table(position_table(kind, (1, *base), given.shape[-1]), (1, *base), (1, *sides))
    return float((given - rebuilt.double()).abs().max())


def _fastest(rows_ND: Tensor) -> Tensor:
    """Sine and cosine of the column and of the row at frequency 1: the table of width 4."""
    return rows_ND[:, :: max(1, rows_ND.shape[1] // 4)]


def _possible_sides(table: Tensor, candidates: Sequence[Sides]) -> list[Sides]:
    if table.ndim == 3:
        return [(table.shape[0], table.shape[1])]
    length = table.shape[0]
    side = math.isqrt(length)
    squares = [(side, side)] if side * side == length else []
    return list(dict.fromkeys([*squares, *((h, w) for h, w in candidates if h * w == length)]))


def split_class_row(table: Tensor, cls_row: bool) -> tuple[Tensor, Tensor | None]:
    """(N, D) or (h, w, D) without the class token's row, and that row (D,) where there is one."""
    rows = table.reshape(table.shape[-3:]) if table.ndim == 4 else table.reshape(-1, table.shape[-1])
    return (rows[1:], rows[0]) if cls_row else (rows, None)


def verify_table(key: str, table: Tensor, kind: str, cls_row: bool, config: M33DConfig) -> tuple[str, TableGrid]:
    """Compare a foreign table (1, N or 1 + N, D), or (1, h, w, D), with the one rebuilt on the same grid.

    Returns the reason under which `key` is ignored, and the grid.
    Raises `ConversionError` when the tables differ: learned positions cannot be carried by our models.
    """
    patches, _ = split_class_row(table, cls_row)
    candidates = [(grid[-2], grid[-1]) for grid in (config.position_grid, config.grid) if grid is not None]
    found = find_grid(patches, kind, candidates) if table.shape[-1] % 4 == 0 else None
    if found is not None:
        return f"rebuilt, identical ({found.words}, largest difference {found.difference:.1e})", found
    if not bool(patches.any()):
        raise ConversionError(
            f"{key!r} is all zeros. transformers does this in a ViTMAE built from a config instead of"
            f" released weights; our models have the fixed {kind} table, so features would differ."
        )
    raise ConversionError(
        f"{key!r}, shape {tuple(table.shape)}, is not the fixed {kind} table{_how_far(patches, kind, candidates)}."
        " Our models rebuild that table, so learned or fine-tuned positions would be lost;"
        " convert the pre-training checkpoint instead."
    )


def _how_far(patches: Tensor, kind: str, candidates: Sequence[Sides]) -> str:
    sides = _possible_sides(patches, candidates)
    if not sides or patches.shape[-1] % 4:
        return ""
    given = patches.reshape(-1, patches.shape[-1]).cpu().double()
    return f" (off by up to {min(_difference(given, kind, each, each) for each in sides):.3g})"


def grid_note(found: TableGrid, config: M33DConfig) -> str | None:
    """What happens to the positions of a checkpoint trained on another grid than the model's, or None."""
    assumed = tuple(config.position_grid or config.grid)[-2:]
    height, width = found.base
    if found.base == assumed:
        return None
    note = (
        f"positions were trained on {height} x {width} tokens,"
        f" but the model's table is built on {assumed[0]} x {assumed[1]}"
    )
    if config.position_embedding_resize == "interpolate":
        note += f"; set position_grid=[{config.grid[0]}, {height}, {width}] to interpolate it as MAE does"
    return note
