"""Pictures and maps in a table: a row per sample under its name, a column per thing, colour bars with units."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from m33d_hf.errors import ConfigError
from m33d_hf.visualization.canvas import GREY, INK, INVALID, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float]
DEPTH_COLOURS, ERROR_COLOURS = "viridis", "magma"
_MOST_CLASSES = 40  # in a legend
_TALLEST, _WIDEST = 1.5, 8.0  # height of a tile over its width, and the other way round
_LETTERS_PER_INCH = 15
_BAR_INCHES = 0.5


@dataclass(frozen=True)
class Tile:
    """One image of the table.

    Attributes:
        image: (H, W, 3) in [0, 1] or uint8: a picture; (H, W), NaN where there is no value (grey): a map.
        limits: values of the first and the last colour of a map; None for a picture.
        unit: of a map, beside its colour bar.
        colours: matplotlib's name of a map's colours.
        open_ended: whether a map has values above its limits, which the colour bar then shows by an arrow.
    """

    image: np.ndarray
    limits: tuple[float, float] | None = None
    unit: str = ""
    colours: str = DEPTH_COLOURS
    open_ended: bool = False


@dataclass(frozen=True)
class TileRow:
    """One sample.

    Attributes:
        title: its name (key), above the row.
        tiles: column -> tile; columns may be missing.
        note: what a reader should know of it (label, prediction, errors), below the title.
    """

    title: str
    tiles: Mapping[str, Tile] = field(default_factory=dict)
    note: str = ""


def value_limits(*maps: np.ndarray, low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """Two percentiles of the finite values of all maps, apart from each other; (0, 1) where there are none."""
    values = np.concatenate([map_[np.isfinite(map_)].ravel() for map_ in maps] or [np.zeros(0)])
    if not values.size:
        return 0.0, 1.0
    least, most = (float(each) for each in np.percentile(values, (low, high)))
    return least, most if most > least else least + max(1e-6, 1e-3 * abs(least))


def overlay(image: np.ndarray, map_HW: np.ndarray, limits: tuple[float, float], share: float = 0.6) -> np.ndarray:
    """The colours of a map over a greyscale picture, (H, W, 3) in [0, 1]; the picture alone where it has no value.

    Args:
        image: (H, W, 3) in [0, 1] or uint8.
        map_HW: (H, W), NaN where there is no value.
        limits: values of the first and the last colour.
        share: of the map in the mixture.
    """
    from matplotlib import colormaps

    picture = _unit(image).mean(-1, keepdims=True).repeat(3, -1)
    scaled = (map_HW - limits[0]) / (limits[1] - limits[0])
    colours = colormaps[DEPTH_COLOURS](np.clip(np.nan_to_num(scaled), 0, 1))[..., :3]
    return np.where(np.isfinite(map_HW)[..., None], share * colours + (1 - share) * picture, picture)


def label_overlay(image: np.ndarray, colours_HW3: np.ndarray, known_HW: np.ndarray, share: float = 0.55) -> np.ndarray:
    """Class colours over a greyscale picture, (H, W, 3) in [0, 1]; the picture alone where nothing is `known_HW`."""
    picture = _unit(image).mean(-1, keepdims=True).repeat(3, -1)
    return np.where(known_HW[..., None], share * colours_HW3 + (1 - share) * picture, picture)


def strip(images: Sequence[np.ndarray], gap: int = 2) -> np.ndarray:
    """Images or maps of one size side by side, `gap` pixels apart: one axis instead of many, which take seconds.

    Args:
        images: (H, W, 3) in [0, 1] or uint8, or maps (H, W), at least one.
        gap: of white pixels; in maps without a value.
    """
    parts: list[np.ndarray] = []
    for image in images:
        values = image if image.ndim == 2 else _unit(image)
        between = np.full((len(values), gap, *values.shape[2:]), np.nan if values.ndim == 2 else 1.0)
        parts += [between, values] if parts else [values]
    return np.concatenate(parts, axis=1)


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)


def tiles_figure(
    rows: Sequence[TileRow],
    title: str,
    legend: Mapping[str, Colour] | None = None,
    caption: str = "",
    width: float = 1.75,
) -> Figure:
    """The table of tiles.

    Args:
        rows: samples, in which the same columns have the same meaning; at least one with a tile.
        title: heading.
        legend: class name -> (r, g, b) in [0, 1], shown below.
        caption: a sentence below.
        width: of a tile, inches.

    Raises:
        ConfigError: no tile at all.
        MissingDependencyError: matplotlib is not installed.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row.tiles))
    if not columns:
        raise ConfigError("there is nothing to draw: no row has a tile")
    shape = next(iter(next(row for row in rows if row.tiles).tiles.values())).image.shape
    tall = float(np.clip(shape[0] / shape[1], 1 / _WIDEST, _TALLEST))
    barred = any(tile.limits is not None for row in rows for tile in row.tiles.values())
    inches = len(columns) * (width + (_BAR_INCHES if barred else 0.0)) + 0.2
    letters = int(inches * _LETTERS_PER_INCH)
    notes = max(len(_wrapped(row, letters)) for row in rows)
    shown = dict(list((legend or {}).items())[:_MOST_CLASSES])
    ncols = max(1, min(len(shown), int(inches / (0.35 + 0.075 * max(map(len, shown), default=1)))))
    height = len(rows) * (width * tall + 0.16 * notes + 0.12) + 0.5
    height += 0.19 * -(-len(shown) // ncols) + (0.3 if caption else 0.0)
    figure, axes = new_figure(max(inches, 3.2), height, len(rows), len(columns))
    for line, (row, cells) in enumerate(zip(rows, axes, strict=True)):
        for axis, name in zip(cells, columns, strict=True):
            _draw(figure, axis, row.tiles.get(name))
            if line == len(rows) - 1 or name not in rows[line + 1].tiles:
                below = textwrap.fill(name, int(width * _LETTERS_PER_INCH))
                axis.set_xlabel(below, fontsize=7.5, color=INK, labelpad=3)
        cells[0].set_title("\n".join(_wrapped(row, letters)), fontsize=7.5, loc="left", color=INK)
    if shown:
        _legend(figure, shown, ncols, len(legend or {}) - len(shown))
    if caption and shown:  # below, the two would lie upon each other
        title, caption = f"{title}\n{textwrap.fill(caption, letters)}", ""
    if caption:
        figure.supxlabel(textwrap.fill(caption, letters), fontsize=7.5, color=GREY)
    figure.suptitle(title, fontsize=9, color=INK)
    return figure


def _wrapped(row: TileRow, letters: int) -> list[str]:
    name = row.title if len(row.title) <= letters else f"...{row.title[3 - letters :]}"
    return [name, *(line for part in row.note.splitlines() for line in textwrap.wrap(part, letters))]


def _draw(figure: Figure, axis: Axes, tile: Tile | None) -> None:
    bare(axis)
    if tile is None:
        axis.set_axis_off()
        return
    axis.set_anchor("W")  # a colour bar takes room beside some rows and not beside others
    if tile.limits is None:
        axis.imshow(tile.image, interpolation="nearest")
        return
    axis.set_facecolor(INVALID)
    low, high = tile.limits
    values = np.ma.masked_invalid(tile.image)
    shown = axis.imshow(values, cmap=tile.colours, vmin=low, vmax=high, interpolation="nearest")
    extend = "max" if tile.open_ended else "neither"
    bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02, extend=extend, panchor=False)
    bar.set_label(tile.unit, fontsize=7)
    bar.ax.tick_params(labelsize=6.5)


def _legend(figure: Figure, shown: Mapping[str, Colour], columns: int, more: int) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=name) for name, colour in shown.items()]
    if more > 0:
        handles.append(Patch(facecolor="white", label=f"and {more} more"))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5)
