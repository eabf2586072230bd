"""Confusion matrices, readable with a handful of classes and with hundreds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.visualization.canvas import GREY, INK, INVALID, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Up to this many classes every cell carries its percentage; beyond MOST_TICKS only every n-th class is named.
MOST_NUMBERS = 16
MOST_TICKS = 110
WORST = 6


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """(L, L) counts, rows the truth, to shares of each row in float64; NaN in the rows of classes without a sample."""
    totals = matrix.sum(axis=1, keepdims=True).astype(np.float64)
    return np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)


def worst_confusions(matrix: np.ndarray, count: int = WORST) -> list[tuple[int, int, float]]:
    """(true class, predicted class, share of the true class) of the largest shares off the diagonal, largest first."""
    shares = np.nan_to_num(row_shares(matrix))
    np.fill_diagonal(shares, 0.0)
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    pairs = [(int(at // len(shares)), int(at % len(shares))) for at in order]
    return [
        (true, predicted, float(shares[true, predicted])) for true, predicted in pairs if shares[true, predicted] > 0
    ]


def confusion_figure(
    matrix: np.ndarray, names: Sequence[str], path: Path | None = None, title: str | None = None
) -> Figure:
    """Shares of each true class (a row) over the predicted ones; rows of classes without a sample are grey.

    Args:
        matrix: (L, L) counts, row = truth, column = prediction.
        names: of the L classes, in id order.
        path: PNG to write; None writes nothing.
        title: heading; by default the accuracy and its mean over the classes.

    Raises:
        ConfigError: a matrix that is not square, or another number of names.
        MissingDependencyError: matplotlib is not installed.
    """
    matrix = np.asarray(matrix)
    count = len(names)
    if matrix.shape != (count, count) or count == 0:
        raise ConfigError(
            f"a confusion matrix of shape {matrix.shape} for {count} class names; it must be (L, L) for L names"
        )
    shares = row_shares(matrix)
    side = float(np.clip(2.2 + 0.42 * count, 4.2, 6.5) if count <= MOST_NUMBERS else np.clip(0.105 * count, 6.5, 12.0))
    longest = max(len(name) for name in names)
    figure, axes = new_figure(side + min(0.06 * longest, 2.0), side + min(0.06 * longest, 2.0))
    axis = axes[0, 0]
    axis.set_facecolor(INVALID)
    _draw_shares(figure, axis, shares)
    _name_axes(axis, names)
    if count <= MOST_NUMBERS:
        _write_numbers(axis, shares)
    axis.set_title(_heading(matrix, shares) if title is None else title, fontsize=9.5, color=INK)
    if count > MOST_NUMBERS:
        worst = [f"{names[true]} taken for {names[got]}: {share:.0%}" for true, got, share in worst_confusions(matrix)]
        figure.supxlabel("Largest confusions\n" + "\n".join(worst) if worst else "", fontsize=8, color=INK)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw_shares(figure: Figure, axis: Axes, shares: np.ndarray) -> None:
    from matplotlib.colors import PowerNorm

    few = len(shares) <= MOST_NUMBERS
    # Among many classes a confusion is a few percent of a row: the square root makes it visible.
    norm = PowerNorm(1.0 if few else 0.5, vmin=0, vmax=100)
    image = axis.imshow(np.ma.masked_invalid(100 * shares), cmap="Blues", norm=norm, interpolation="nearest")
    ticks = [0, 20, 40, 60, 80, 100] if few else [0, 1, 5, 10, 20, 40, 60, 80, 100]
    bar = figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01, ticks=ticks, format="%d")
    bar.minorticks_off()
    bar.set_label("share of the true class, %", fontsize=7.5)
    bar.ax.tick_params(labelsize=7)


def _heading(matrix: np.ndarray, shares: np.ndarray) -> str:
    present = np.isfinite(shares.diagonal())
    total = int(matrix.sum())
    if not total:
        return "no samples"
    absent = f", {int((~present).sum())} absent (grey)" if not present.all() else ""
    accuracy, mean = matrix.trace() / total, shares.diagonal()[present].mean()
    return f"accuracy {accuracy:.1%}, mean over classes {mean:.1%}\n{total:,} samples of {len(shares)} classes{absent}"


def _name_axes(axis: Axes, names: Sequence[str]) -> None:
    step = -(-len(names) // MOST_TICKS)
    ticks = list(range(0, len(names), step))
    size = 8.0 if len(names) <= MOST_NUMBERS else max(5.0, 8.0 - 0.03 * len(ticks))
    shown = [names[tick] if step == 1 else f"{tick} {names[tick]}" for tick in ticks]
    axis.set_xticks(ticks, shown, rotation=90, fontsize=size)
    axis.set_yticks(ticks, shown, fontsize=size)
    axis.tick_params(length=1.5, colors=GREY, labelcolor=INK)
    every = "" if step == 1 else f" (one in {step} is named)"
    axis.set_xlabel(f"predicted{every}", fontsize=8, color=GREY)
    axis.set_ylabel(f"true{every}", fontsize=8, color=GREY)


def _write_numbers(axis: Axes, shares: np.ndarray) -> None:
    for row, column in np.ndindex(*shares.shape):
        share = shares[row, column]
        if np.isfinite(share) and share > 0:
            ink = "white" if share > 0.55 else INK
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=ink)


def write_confusion_figure(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw the confusion of an evaluation into a file; without matplotlib none is written, which stderr says.

    Args:
        matrix, names: see `confusion_figure`.
        path: the file.
    """
    try:
        confusion_figure(matrix, names, path)
    except MissingDependencyError as error:
        print(f"no {path.name}: {error}", file=sys.stderr, flush=True)
