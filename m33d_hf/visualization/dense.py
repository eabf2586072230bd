"""Pictures of dense predictions: depth maps and their errors, label maps with a legend, IoU by class."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from m33d_hf.visualization.canvas import COLORS, INVALID, bare, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORE_INDEX = 255
_HEADER_WIDTH = 18  # letters above a column
_MOST_NAMED = 20  # classes that a legend names whether they occur or not
_ENTRY, _LETTER, _LINE = 0.55, 0.06, 0.16  # of a legend at its font size: an entry without its name, inches


def label_colors(count: int) -> np.ndarray:
    """(count, 3) colours in [0, 1], spread over hue and lightness; those of lower ids never change."""
    import colorsys

    golden = 0.61803398875
    return np.array(
        [colorsys.hls_to_rgb((i * golden) % 1.0, (0.45, 0.65, 0.3)[i % 3], (0.75, 0.55)[i % 2]) for i in range(count)]
    )


def color_labels(labels_HW: np.ndarray, count: int) -> np.ndarray:
    """(H, W) class ids to (H, W, 3) colours in [0, 1]; ids outside [0, count), such as 255, become grey."""
    colors = np.vstack([label_colors(count), INVALID])
    known = (labels_HW >= 0) & (labels_HW < count)
    return colors[np.where(known, labels_HW, count).astype(np.int64)]


def segmentation_figure(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predictions: dict[str, Sequence[np.ndarray]],
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """A row per image: RGB, label, then one column per entry of `predictions`; a legend of the classes below (of those
    that occur, where there are many).

    Args:
        images: (H, W, 3) in [0, 1] or uint8.
        labels: (H, W) ids, 255 = ignore.
        predictions: column name -> (H, W) ids per image.
    """
    from matplotlib.patches import Patch

    columns = 2 + len(predictions)
    named = list(range(len(class_names)))
    if len(named) > _MOST_NAMED:
        drawn = chain(labels, *predictions.values())
        occurring = set().union(*(np.unique(map_).tolist() for map_ in drawn))
        named = [number for number in named if number in occurring]
    longest = max((len(class_names[number]) for number in named), default=0)
    width = 1.35 * columns
    entries = max(1, min(5, int(width / (_ENTRY + _LETTER * longest))))
    legend = _LINE * -(-len(named) // entries)
    figure, axes = new_figure(width, 1.35 * len(images) + 0.4 + legend, len(images), columns)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        maps = [image, color_labels(label, len(class_names))]
        maps += [color_labels(prediction[row], len(class_names)) for prediction in predictions.values()]
        for axis, map_ in zip(axes[row], maps, strict=True):
            bare(axis)
            axis.imshow(map_, interpolation="nearest")
    _headers(axes[0], ["RGB", "label", *predictions])
    colors = label_colors(len(class_names))
    handles = [Patch(facecolor=tuple(colors[number]), label=class_names[number]) for number in named]
    figure.legend(handles=handles, loc="outside lower center", ncols=entries, frameon=False, fontsize=7.5)
    figure.suptitle(title, fontsize=10)
    return figure


def depth_figure(
    images: Sequence[np.ndarray],
    depths: Sequence[np.ndarray],
    predictions: dict[str, Sequence[np.ndarray]],
    title: str,
    unit: str = "m",
) -> Figure:
    """A row per image: RGB, true depth (invalid grey), a column per entry of `predictions`, a colour bar.

    Args:
        images: (H, W, 3) in [0, 1] or uint8.
        depths: (H, W) metres, NaN = invalid.
        predictions: column name -> (H, W) metres per image.
    """
    columns = 2 + len(predictions)
    figure, axes = new_figure(1.35 * columns + 0.6, 1.35 * len(images) + 0.4, len(images), columns)
    for row, (image, depth) in enumerate(zip(images, depths, strict=True)):
        valid = depth[np.isfinite(depth)]
        # One scale per row, set by the truth: a prediction outside of it must look wrong.
        low, high = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 1.0)
        bare(axes[row, 0])
        axes[row, 0].imshow(image, interpolation="nearest")
        shown: Any = None
        for axis, map_ in zip(axes[row, 1:], [depth, *(p[row] for p in predictions.values())], strict=True):
            bare(axis)
            axis.set_facecolor(INVALID)
            masked = np.ma.masked_invalid(map_)
            shown = axis.imshow(masked, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        bar = figure.colorbar(shown, ax=list(axes[row]), fraction=0.02, pad=0.01)
        bar.set_label(unit, fontsize=7.5)
        bar.ax.tick_params(labelsize=7)
    _headers(axes[0], ["RGB", "true depth", *predictions])
    figure.suptitle(title, fontsize=10)
    return figure


def depth_error_figure(
    depths: Sequence[np.ndarray], predictions: dict[str, Sequence[np.ndarray]], title: str, unit: str = "m"
) -> Figure:
    """A row per image: true depth (invalid grey), then |prediction - truth| of every entry, each with its colour bar.

    Errors of a row share one scale, from 0 to the 98th percentile of all of them: what is larger has the last colour,
    and the bar ends in an arrow.

    Args:
        depths: (H, W) metres, NaN = invalid.
        predictions: column name -> (H, W) metres per image.
    """
    columns = 1 + len(predictions)
    figure, axes = new_figure(1.6 * columns + 1.0, 1.45 * len(depths) + 0.5, len(depths), columns)
    for row, depth in enumerate(depths):
        errors = [np.abs(maps[row] - depth) for maps in predictions.values()]
        measured = np.concatenate([error[np.isfinite(error)] for error in errors] or [np.zeros(0)])
        most = float(np.percentile(measured, 98)) if measured.size else 1.0
        for axis, map_ in zip(axes[row], [depth, *errors], strict=True):
            bare(axis)
            axis.set_facecolor(INVALID)
            truth = map_ is depth
            limits = {} if truth else {"vmin": 0.0, "vmax": max(most, 1e-6)}
            cmap = "viridis" if truth else "magma"
            shown = axis.imshow(np.ma.masked_invalid(map_), cmap=cmap, interpolation="nearest", **limits)
            if truth or map_ is errors[-1]:
                bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02, extend="neither" if truth else "max")
                bar.set_label(unit if truth else f"|error|, {unit}", fontsize=7)
                bar.ax.tick_params(labelsize=6.5)
    _headers(axes[0], ["true depth", *(f"error of {name}" for name in predictions)])
    figure.suptitle(title, fontsize=10)
    return figure


def iou_figure(ious: Mapping[str, Mapping[str, float]], class_names: Sequence[str], title: str) -> Figure:
    """IoU of every class as bars, one per entry; a class that an entry has no value for (it did not occur) has none.

    Args:
        ious: name of an entry -> class -> IoU in [0, 1].
        class_names: in the order of the rows.
    """
    height = 0.8 / max(1, len(ious))
    figure, axes = new_figure(6.2, 1.1 + (0.12 + 0.13 * len(ious)) * len(class_names))
    axis = axes[0, 0]
    plain(axis)
    axis.grid(visible=False, axis="y")
    for number, (name, values) in enumerate(ious.items()):
        rows = [place for place, known in enumerate(class_names) if known in values]
        places = [place - 0.4 + height * (number + 0.5) for place in rows]
        widths = [100 * values[class_names[place]] for place in rows]
        mean = f", mean {np.mean(widths):.1f}" if widths else ""
        axis.barh(places, widths, 0.9 * height, color=COLORS[number % len(COLORS)], label=f"{name}{mean}")
    axis.set_yticks(range(len(class_names)), class_names, fontsize=8)
    axis.set_ylim(len(class_names) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xlabel("IoU, %", fontsize=8)
    axis.set_title(title, fontsize=9.5)
    figure.legend(loc="outside lower center", ncols=min(2, max(1, len(ious))), frameon=False, fontsize=8)
    return figure


def _headers(axes: Sequence[Any], names: Sequence[str]) -> None:
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(textwrap.fill(name, _HEADER_WIDTH), fontsize=8)
