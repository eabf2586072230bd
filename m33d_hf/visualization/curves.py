"""Learning curves from logged numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m33d_hf.visualization.canvas import COLORS, GREY, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curve:
    """One line: x and y of equal length; a `group` shares a colour, `variant` chooses the dashes."""

    x: Sequence[float]
    y: Sequence[float]
    group: str
    variant: int = 0


def curves_figure(
    panels: Mapping[str, Sequence[Curve]],
    x_label: str = "step",
    levels: Mapping[str, tuple[str, float]] | None = None,
    groups: Sequence[str] | None = None,
    y_labels: Mapping[str, str] | None = None,
) -> Figure:
    """Panels side by side, a legend of groups below.

    Args:
        panels: title -> curves. A panel without curves says so.
        levels: panel title -> (name, y) of a horizontal line, such as a trivial floor.
        groups: order of the groups, which fixes their colours; by default the order of appearance.
        y_labels: panel title -> what y is.
    """
    order = list(groups or dict.fromkeys(curve.group for curves in panels.values() for curve in curves))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(order)}
    figure, axes = new_figure(min(11.0, 3.7 * len(panels)), 3.0, 1, max(1, len(panels)))
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        plain(axis)
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_xlabel(x_label, fontsize=8, color=GREY)
        axis.set_ylabel((y_labels or {}).get(title, ""), fontsize=8, color=GREY)
        if not curves:
            axis.text(0.5, 0.5, "nothing logged", ha="center", va="center", transform=axis.transAxes, color=GREY)
        for curve in curves:
            style = STYLES[curve.variant % len(STYLES)]
            marker = "o" if len(curve.x) == 1 else None  # a line of one point shows nothing
            axis.plot(curve.x, curve.y, style, color=colors[curve.group], linewidth=1.3, alpha=0.9, marker=marker)
        if levels and title in levels:
            name, value = levels[title]
            axis.axhline(value, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
            axis.annotate(
                name,
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=7,
                color=GREY,
            )
    drawn = {curve.group for curves in panels.values() for curve in curves}
    _legend(figure, [name for name in order if name in drawn], colors)
    return figure


def _legend(figure: Figure, order: Sequence[str], colors: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colors[name], label=name) for name in order]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Trailing mean over up to `window` values, for noisy losses; the length is kept."""
    result = []
    for i in range(len(values)):
        part = values[max(0, i + 1 - window) : i + 1]
        result.append(sum(part) / len(part))
    return result
