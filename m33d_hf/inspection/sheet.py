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
from m33d_hf.visualization.tiles import DEPTH_COLOURS, strip

SAMPLES = 8  # per split
COLUMNS = ("RGB", "depth", "depth edges on RGB", "labels")
_INCHES = 2.1  # width of a tile
_SIDE = 256  # pixels that a tile keeps of the longer side
_GAP = 6  # pixels between two tiles
_CLASSES = 256
_EDGE = 0.08  # second difference of inverse depth, relative to it, that is drawn
_EDGE_COLOUR = (1.0, 0.15, 0.1)


class _Row(NamedTuple):
    """One sample: its title, its tiles, all (H, W, 3), by column, and what its depth ranges over, in words."""

    title: str
    tiles: dict[str, np.ndarray]
    depth_range: str


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
    width = _INCHES * len(columns) * len(blocks)
    figure, axes = new_figure(width, height * lines + 0.3, lines, len(blocks))
    for axis in axes.flat:
        axis.set_axis_off()
    for number, rows in enumerate(blocks):
        for line, row in enumerate(rows):
            _draw(axes[line, number], columns, row)
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
    depth_range = ""
    if sample.depth is not None:
        depth = sample.depth[0, 0].numpy()[::step, ::step]
        valid = depth[np.isfinite(depth)]
        low, high = map(float, np.percentile(valid, [1, 99])) if valid.size else (0.0, 1.0)
        tiles["depth"], depth_range = _coloured(depth, low, high), f"{low:.2f} to {high:.2f}{unit}"
        if "RGB" in tiles:
            tiles["depth edges on RGB"] = _with_edges(tiles["RGB"], depth)
    if sample.segmentation is not None:
        tiles["labels"] = color_labels(sample.segmentation[0].numpy()[::step, ::step], _CLASSES - 1)
    return _Row(title, tiles, depth_range)


def _coloured(depth_HW: np.ndarray, low: float, high: float) -> np.ndarray:
    """Depth as colours, (H, W, 3) in [0, 1]; holes are grey."""
    from matplotlib import colormaps

    scaled = np.clip((np.nan_to_num(depth_HW, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return np.where(np.isfinite(depth_HW)[..., None], colormaps[DEPTH_COLOURS](scaled)[..., :3], INVALID)


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


def _draw(axis: Any, columns: Sequence[str], row: _Row) -> None:
    """All tiles of a row as one image: an axis for each would take seconds."""
    axis.set_axis_on()
    bare(axis)
    axis.set_title(row.title if len(row.title) < 44 else f"...{row.title[-40:]}", fontsize=6.5, loc="left")
    blank = np.ones(next(iter(row.tiles.values())).shape)
    tiles = [row.tiles.get(name, blank) for name in columns]
    axis.imshow(strip(tiles, _GAP), interpolation="nearest")
    for number, name in enumerate(columns):
        if name in row.tiles:
            said = f"{name} {row.depth_range}" if name == "depth" else name
            place = ((2 * number + 1) / (2 * len(columns)), 0)
            axis.annotate(said, place, (0, -2), "axes fraction", "offset points", fontsize=6.5, ha="center", va="top")
