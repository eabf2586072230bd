"""The contact sheet: samples of every split with depth, the edges of depth on the picture, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m33d_hf.data.measuring.samples import spread
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import DataError
from m33d_hf.inspection.splits import Split
from m33d_hf.visualization.canvas import INVALID, bare, new_figure, save_figure
from m33d_hf.visualization.dense import color_labels

SAMPLES = 8  # per split
COLUMNS = ("RGB", "depth", "depth edges on RGB", "labels")
_INCHES = 2.1  # width of a tile
_SIDE = 256  # pixels that a tile keeps of the longer side
_CLASSES = 256
_EDGE = 0.08  # second difference of inverse depth, relative to it, that is drawn
_EDGE_COLOUR = (1.0, 0.15, 0.1)


class _Row(NamedTuple):
    """One sample: its title and its tiles, by column."""

    title: str
    tiles: dict[str, np.ndarray]
    depth_range: tuple[float, float]
    unit: str


def write_sheet(splits: Sequence[Split], path: Path) -> Path | None:
    """Write samples spread over each split as a PNG, the splits side by side; samples that cannot be read are left out.
    None if there are none.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    blocks = [rows for split in splits if (rows := _rows_of(split))]
    if not blocks:
        return None
    shown = {name for rows in blocks for row in rows for name in row.tiles}
    columns = [name for name in COLUMNS if name in shown]
    lines = max(map(len, blocks))
    shape = next(iter(blocks[0][0].tiles.values())).shape
    height = _INCHES * min(1.5, shape[0] / shape[1]) + 0.3
    width = len(columns) * len(blocks)
    figure, axes = new_figure(_INCHES * width, height * lines + 0.3, lines, width)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, rows in enumerate(blocks):
        for line, row in enumerate(rows):
            _draw(axes[line, number * len(columns) : (number + 1) * len(columns)], columns, row)
    return save_figure(figure, path, dpi=110)


def _rows_of(split: Split) -> list[_Row]:
    rows = []
    for place in spread(len(split.rows), SAMPLES):
        try:
            handle = split.source[split.rows[place]]
            sample = handle.read([handle.length // 2])
        except (DataError, OSError):
            continue  # counted and listed by the check itself
        spec = split.source.depth_spec
        unit = " m" if spec is not None and spec.kind == "metric" else ""
        rows.append(_row(f"{split.name}: {handle.key}", sample.align(), unit))
    return rows


def _row(title: str, sample: RGBDSample, unit: str) -> _Row:
    step = max(1, -(-max(sample.height, sample.width) // _SIDE))
    tiles: dict[str, np.ndarray] = {}
    if sample.rgb is not None:
        tiles["RGB"] = sample.rgb[0].numpy().transpose(1, 2, 0)[::step, ::step]
    low_high = (0.0, 1.0)
    if sample.depth is not None:
        depth = sample.depth[0, 0].numpy()[::step, ::step]
        valid = depth[np.isfinite(depth)]
        low_high = tuple(map(float, np.percentile(valid, [1, 99]))) if valid.size else low_high  # type: ignore[assignment]
        tiles["depth"] = depth
        if "RGB" in tiles:
            tiles["depth edges on RGB"] = _with_edges(tiles["RGB"], depth)
    if sample.segmentation is not None:
        tiles["labels"] = color_labels(sample.segmentation[0].numpy()[::step, ::step], _CLASSES - 1)
    return _Row(title, tiles, low_high, unit)


def _with_edges(rgb_HW3: np.ndarray, depth_HW: np.ndarray) -> np.ndarray:
    """The picture, paler, with the edges of depth in red; holes have none.

    The inverse depth of a plane is linear in the pixel, so that its second difference shows edges and no slopes.
    """
    picture = 0.35 + 0.65 * rgb_HW3.astype(np.float64) / 255
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inverse = 1 / depth_HW.astype(np.float64)
        edges = np.zeros(depth_HW.shape, dtype=bool)
        edges[:, 1:-1] |= np.abs(np.diff(inverse, 2, axis=1)) > _EDGE * inverse[:, 1:-1]
        edges[1:-1] |= np.abs(np.diff(inverse, 2, axis=0)) > _EDGE * inverse[1:-1]
    picture[edges] = _EDGE_COLOUR
    return picture


def _draw(axes: Any, columns: Sequence[str], row: _Row) -> None:
    axes[0].set_title(row.title if len(row.title) < 44 else f"...{row.title[-40:]}", fontsize=6.5, loc="left")
    for axis, name in zip(axes, columns, strict=True):
        tile = row.tiles.get(name)
        if tile is None:
            continue
        axis.set_axis_on()
        bare(axis)
        if name == "depth":
            axis.set_facecolor(INVALID)
            low, high = row.depth_range
            axis.imshow(np.ma.masked_invalid(tile), cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
            axis.set_xlabel(f"{low:.2f} to {high:.2f}{row.unit}", fontsize=6.5, labelpad=1)
        else:
            axis.imshow(tile, interpolation="nearest")
            axis.set_xlabel(name, fontsize=6.5, labelpad=1)
