"""Pictures and maps in a table: a row per sample under its name, a column per thing, colour bars with units."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from m33d_hf.errors import ConfigError
from m33d_hf.visualization.canvas import GREY, INK, INVALID, bare, blank_figure, place_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float]
DEPTH_COLOURS, ERROR_COLOURS = "viridis", "magma"
_MOST_CLASSES = 40  # in a legend
_TALLEST, _WIDEST = 1.5, 8.0  # height of a tile over its width, and the other way round
_LETTERS_PER_INCH = 15
# Inches. Everything is placed by its size: a layout engine looks at each text and tick of every axis, for 40 % of the
# time that these pictures took.
_LINE, _LEGEND_LINE, _GAP = 0.15, 0.19, 0.08
_BAR, _BAR_PAD, _BAR_ROOM = 0.08, 0.04, 0.58  # width of a colour bar, room before it, and in all with its numbers


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
    size = (width, width * float(np.clip(shape[0] / shape[1], 1 / _WIDEST, _TALLEST)))
    barred = {name for row in rows for name, tile in row.tiles.items() if tile.limits is not None}
    steps = [width + (_BAR_ROOM if name in barred else _GAP) for name in columns]
    lefts = [_GAP, *(_GAP + right for right in accumulate(steps))][:-1]
    inches = max(sum(steps) + 2 * _GAP, 3.2)
    letters = int(inches * _LETTERS_PER_INCH)
    shown = dict(list((legend or {}).items())[:_MOST_CLASSES])
    ncols = max(1, min(len(shown), int(inches / (0.35 + 0.075 * max(map(len, shown), default=1)))))
    if caption and shown:  # below, the two would lie upon each other
        title, caption = f"{title}\n{textwrap.fill(caption, letters)}", ""
    head = _GAP + 1.15 * _LINE * (title.count("\n") + 1)
    named = [_names_below(rows, line, columns, width) for line in range(len(rows))]
    heights = [_LINE * len(_wrapped(row, letters)) + size[1] for row in rows]
    rooms = [_GAP + _LINE * max((name.count("\n") + 1 for name in names.values()), default=0) for names in named]
    below = textwrap.fill(caption, letters) if caption else ""
    foot = _LINE * (below.count("\n") + 1 if below else 0) + _LEGEND_LINE * (1 + -(-len(shown) // ncols)) * bool(shown)
    figure = blank_figure(inches, head + sum(heights) + sum(rooms) + foot + _GAP)
    top = head
    for row, names, height, room in zip(rows, named, heights, rooms, strict=True):
        top += height
        axes = [place_axes(figure, left, top - size[1], *size) for left in lefts]
        for axis, left, name in zip(axes, lefts, columns, strict=True):
            _draw(figure, axis, row.tiles.get(name), (left, top - size[1], *size))
            axis.set_xlabel(names.get(name, ""), fontsize=7.5, color=INK, labelpad=3)
        axes[0].set_title("\n".join(_wrapped(row, letters)), fontsize=7.5, loc="left", color=INK, pad=3)
        top += room
    if shown:
        _legend(figure, shown, ncols, len(legend or {}) - len(shown))
    if below:
        figure.text(0.5, _GAP / 2 / figure.get_figheight(), below, fontsize=7.5, color=GREY, ha="center", va="bottom")
    figure.suptitle(title, y=1 - _GAP / 2 / figure.get_figheight(), va="top", fontsize=9, color=INK)
    return figure


def _names_below(rows: Sequence[TileRow], line: int, columns: Sequence[str], width: float) -> dict[str, str]:
    """The names of the columns that end in this row: in the last one, or where the next has no such tile."""
    last = line == len(rows) - 1
    ending = [name for name in columns if last or name not in rows[line + 1].tiles]
    return {name: textwrap.fill(name, int(width * _LETTERS_PER_INCH)) for name in ending}


def _wrapped(row: TileRow, letters: int) -> list[str]:
    name = row.title if len(row.title) <= letters else f"...{row.title[3 - letters :]}"
    return [name, *(line for part in row.note.splitlines() for line in textwrap.wrap(part, letters))]


def _draw(figure: Figure, axis: Axes, tile: Tile | None, box: tuple[float, float, float, float]) -> None:
    """A tile in its box (left, top, width, height), with its colour bar right of it."""
    bare(axis)
    if tile is None:
        axis.set_axis_off()
        return
    axis.set_anchor("W")
    if tile.limits is None:
        axis.imshow(tile.image, interpolation="nearest")
        return
    axis.set_facecolor(INVALID)
    low, high = tile.limits
    values = np.ma.masked_invalid(tile.image)
    shown = axis.imshow(values, cmap=tile.colours, vmin=low, vmax=high, interpolation="nearest")
    left, top, width, height = box
    aspect = tile.image.shape[0] / tile.image.shape[1]
    wide, tall = min(width, height / aspect), min(height, width * aspect)
    beside = place_axes(figure, left + wide + _BAR_PAD, top + (height - tall) / 2, _BAR, tall)
    bar = figure.colorbar(shown, cax=beside, extend="max" if tile.open_ended else "neither")
    bar.set_label(tile.unit, fontsize=7)
    bar.ax.tick_params(labelsize=6.5)


def _legend(figure: Figure, shown: Mapping[str, Colour], columns: int, more: int) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=name) for name, colour in shown.items()]
    if more > 0:
        handles.append(Patch(facecolor="white", label=f"and {more} more"))
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=7.5)
