"""Figures of measurements with a few seeds: a dot per seed, a larger one for the mean or the estimate, and a bar for
its interval where there is one, else from the smallest to the largest seed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m33d_hf.visualization.canvas import COLORS, GREY, GRID, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Without the yellow, which is faint on white: colour and marker change together, so neither has to be told alone.
LINE_COLORS = (*COLORS[:7], INK)
LABEL_WIDTH = 34


@dataclass(frozen=True)
class Seeds:
    """The finished seeds of one row.

    Attributes:
        label: left of the row.
        values: empty = "no result".
        interval: (low, estimate, high), drawn instead of mean and range; None = mean and range.
        heading: a row that only says its label, in bold, above those that follow.
    """

    label: str
    values: Sequence[float]
    interval: tuple[float, float, float] | None = None
    heading: bool = False

    @property
    def mean(self) -> float:
        """NaN without a seed."""
        return float(np.mean(self.values)) if len(self.values) else float("nan")

    @property
    def span(self) -> tuple[float, float, float]:
        """(low, middle, high) that is drawn; of a row with seeds."""
        return self.interval or (min(self.values), self.mean, max(self.values))


def style(index: int) -> tuple[str, str]:
    """Colour and marker of the series number `index`; no pair comes again before the 65th."""
    turn, place = divmod(index, len(LINE_COLORS))
    return LINE_COLORS[place], MARKERS[(place + turn) % len(MARKERS)]


def rows_figure(
    panels: Mapping[str, Sequence[Seeds]],
    x_label: str,
    levels: Mapping[str, tuple[str, float]] | None = None,
    zero: bool = False,
    panel_width: float = 3.1,
    label_width: int = LABEL_WIDTH,
) -> Figure:
    """Panels side by side, the same rows in each, read from top to bottom.

    Args:
        panels: title -> rows; all panels have the same labels in the same order.
        levels: panel title -> (name, x) of a vertical line, such as a trivial floor.
        zero: draw a line at zero, for differences.
        panel_width: inches.
        label_width: letters on a line of a label.
    """
    first = next(iter(panels.values()), [])
    wrapped = [textwrap.fill(row.label, label_width) for row in first]
    lines = sum(text.count("\n") + 1 for text in wrapped)
    width, height = 0.4 + 0.065 * label_width + panel_width * len(panels), 0.95 + 0.16 * lines + 0.08 * len(first)
    figure, axes = new_figure(width, height, 1, max(1, len(panels)), sharey=True)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        _plain_rows(axis, textwrap.fill(title, 38), x_label)
        if zero:
            axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for place, row in enumerate(rows):
            _row(axis, place, row)
        axis.margins(x=0.08)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_yticks(range(len(rows)), wrapped, fontsize=8, color=INK)
        if levels and title in levels:
            _level(axis, *levels[title], np.concatenate([row.values for row in rows] or [[]]))
    for text, row in zip(axes[0, 0].get_yticklabels(), first, strict=True):
        text.set_fontweight("bold" if row.heading else "normal")
    return figure


def _level(axis: Axes, name: str, value: float, data: np.ndarray, vertical: bool = True) -> None:
    """A dashed line where it leaves the data room, else only its value, beside what the axis is."""
    span = float(np.ptp(data)) if data.size else 0.0
    if data.size and not data.min() - 0.6 * span <= value <= data.max() + 0.6 * span:
        beside = axis.xaxis.label if vertical else axis.title
        beside.set_text(f"{beside.get_text()} ({name} {value:.1f})")
        return
    draw = axis.axvline if vertical else axis.axhline
    draw(value, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axis.annotate(
        name,
        (value, 0.005) if vertical else (0.99, value),
        xycoords=("data", "axes fraction") if vertical else ("axes fraction", "data"),
        xytext=(3, 0) if vertical else (0, 1),
        textcoords="offset points",
        ha="left" if vertical else "right",
        va="bottom",
        fontsize=7,
        color=GREY,
    )


def _plain_rows(axis: Axes, title: str, x_label: str) -> None:
    plain(axis)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_title(title, fontsize=9, color=INK)
    axis.set_xlabel(x_label, fontsize=8, color=GREY)


def _row(axis: Axes, place: float, row: Seeds) -> None:
    color = LINE_COLORS[0]
    if row.heading:
        return
    if not len(row.values):
        axis.text(0.5, place, "no result", transform=axis.get_yaxis_transform(), fontsize=7.5, color=GREY,
                  va="center", ha="center", bbox={"color": "white", "pad": 0.5})  # fmt: skip
        return
    low, middle, high = row.span
    axis.plot([low, high], [place, place], color=color, linewidth=1.6, zorder=2)
    axis.plot(row.values, [place] * len(row.values), "o", markersize=4.2, markerfacecolor="white",
              markeredgecolor=color, markeredgewidth=0.9, zorder=3)  # fmt: skip
    axis.plot([middle], [place], "D", markersize=5.5, color=color, markeredgecolor="white", markeredgewidth=0.6,
              zorder=4)  # fmt: skip


def lines_figure(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Seeds]]]],
    x_label: str,
    levels: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """A line per series through the means over a logarithmic x, moved apart a little so that bars do not hide bars.

    Args:
        panels: title -> series -> (x, row) in order; a point without seeds is left out.
        levels: panel title -> (name, y) of a horizontal line.
    """
    order = list(dict.fromkeys(name for series in panels.values() for name in series))
    figure, axes = new_figure(max(6.4, 4.6 * len(panels)), 4.4, 1, max(1, len(panels)))
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        plain(axis)
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_xlabel(x_label, fontsize=8, color=GREY)
        for name, points in series.items():
            shift = 1.022 ** (order.index(name) - (len(order) - 1) / 2)
            _line(axis, [(x * shift, row) for x, row in points if len(row.values)], order.index(name))
        ticks = sorted({x for points in series.values() for x, _ in points})
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.set_xticks([], minor=True)
        if levels and title in levels:
            data = np.concatenate([row.values for points in series.values() for _, row in points])
            _level(axis, *levels[title], data, vertical=False)
    _legend(figure, order)
    return figure


def _line(axis: Axes, points: Sequence[tuple[float, Seeds]], index: int) -> None:
    color, marker = style(index)
    means = [row.span[1] for _, row in points]
    xs = [x for x, _ in points]
    axis.plot(xs, means, marker=marker, markersize=5.5, color=color, linewidth=1.4, markeredgecolor="white",
              markeredgewidth=0.5, zorder=3)  # fmt: skip
    for x, row in points:
        values, (low, _, high) = row.values, row.span
        axis.plot([x, x], [low, high], color=color, linewidth=1, alpha=0.8, zorder=2)
        axis.plot([x] * len(values), values, "_", markersize=5, color=color, markeredgewidth=1, zorder=2)


def scatter_figure(
    panels: Mapping[str, Mapping[str, tuple[float, Seeds]]],
    x_label: str,
) -> Figure:
    """A mark per series at (x, mean) with its bar.

    Args:
        panels: title -> series -> (x, row).
    """
    order = list(dict.fromkeys(name for series in panels.values() for name in series))
    figure, axes = new_figure(max(6.4, 4.2 * len(panels)), 4.2, 1, max(1, len(panels)))
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        plain(axis)
        axis.set_title(textwrap.fill(title, 40), fontsize=9, color=INK)
        axis.set_xlabel(x_label, fontsize=8, color=GREY)
        for name, (x, row) in series.items():
            if len(row.values):
                _line(axis, [(x, row)], order.index(name))
        axis.margins(x=0.08, y=0.1)
    _legend(figure, order)
    return figure


def _legend(figure: Figure, order: Sequence[str]) -> None:
    """Below the panels, in as many columns as the longest name leaves room for."""
    from matplotlib.lines import Line2D

    longest = max((len(name) for name in order), default=1)
    columns = max(1, int(figure.get_figwidth() / (0.5 + 0.062 * longest)))

    handles = []
    for index, name in enumerate(order):
        color, marker = style(index)
        handles.append(Line2D([], [], color=color, marker=marker, markersize=5, linewidth=1.2, label=name))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), frameon=False,
                      fontsize=8)  # fmt: skip


def grid_figure(
    cells: Mapping[tuple[float, float], Sequence[float]], title: str, x_label: str, y_label: str, missing: str = ""
) -> Figure:
    """A heat map of means with their standard deviation; combinations that were not measured stay white.

    Args:
        cells: (y, x) -> seeds.
        missing: what to write where a combination is not among the cells.
    """
    ys, xs = sorted({y for y, _ in cells}), sorted({x for _, x in cells})
    means = np.full((len(ys), len(xs)), np.nan)
    for (y, x), values in cells.items():
        if len(values):
            means[ys.index(y), xs.index(x)] = np.mean(values)
    figure, axes = new_figure(1.9 + 1.25 * len(xs), 1.5 + 0.8 * len(ys), 1, 1)
    axis = axes[0, 0]
    image = axis.imshow(np.ma.masked_invalid(means), cmap="cividis", aspect="auto", origin="lower")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2 if np.isfinite(means).any() else 0.0
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            seeds = cells.get((y, x))
            dark = np.isfinite(means[row, column]) and means[row, column] <= middle
            axis.text(column, row, _grid_text(seeds, missing), ha="center", va="center", fontsize=8.5,
                      color="white" if dark else (INK if seeds is not None else GREY))  # fmt: skip
    axis.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axis.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    axis.set_xlabel(x_label, fontsize=8.5, color=INK)
    axis.set_ylabel(y_label, fontsize=8.5, color=INK)
    axis.set_title(title, fontsize=9, color=INK)
    axis.tick_params(length=0, colors=INK)
    for spine in axis.spines.values():
        spine.set_color(GRID)
    if np.isfinite(means).any():
        figure.colorbar(image, ax=axis, shrink=0.85).ax.tick_params(labelsize=7.5, colors=GREY)
    return figure


def _grid_text(values: Sequence[float] | None, missing: str) -> str:
    if values is None:
        return missing
    if not len(values):
        return "no result"
    spread = f"\n± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"
