"""Pictures of the cost curves: measured points and the line that the formula gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cost_fits import lines_of

from m33d_hf.visualization.canvas import COLORS, GREY, INK, new_figure, plain, save_figure

AXES = {
    "tokens": "visible tokens per sample (mask ratio .95 to .01)",
    "frames": "frames per clip",
    "batch": "batch size",
    "modalities": "modalities",
}
DECODERS = ("joint", "fused", "cross")
MARKERS = {"joint": "o", "fused": "s", "cross": "^"}
KINDS = ("matmul", "attention", "elementwise", "gelu", "norm", "copies", "optimizer", "other")


def _panels(rows: Sequence[dict[str, Any]], curve: str) -> list[tuple[str, list[dict[str, Any]]]]:
    lines = lines_of(rows)
    return [(name, lines[f"{curve}/{name}"]) for name in DECODERS if f"{curve}/{name}" in lines]


def _dress(axis: Any, title: str, curve: str, ylabel: str, bottom: float | None = 0.0) -> None:
    plain(axis)
    axis.set_title(title, fontsize=9, color=INK)
    axis.set_xlabel(AXES[curve], fontsize=8, color=GREY)
    axis.set_ylabel(ylabel, fontsize=8, color=GREY)
    if bottom is not None:
        axis.set_ylim(bottom=bottom)
    if curve in ("frames", "batch"):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if curve == "modalities":
        axis.set_xticks([1, 2, 3])


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLORS[i], marker=MARKERS[name], linestyle="none", label=f"{name} decoder, measured")
        for i, name in enumerate(DECODERS)
    ]
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="formula"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def curves_picture(rows: Sequence[dict[str, Any]], fits: dict[str, Any], path: Path, unit: str = "CPU s") -> Path:
    """Time, achieved rate and peak memory (rows) over tokens, frames, batch and modalities (columns)."""
    figure, axes = new_figure(14.0, 9.0, 3, len(AXES))
    for column, curve in enumerate(AXES):
        time, rate, memory = (axes[row][column] for row in range(3))
        for name, line in _panels(rows, curve):
            color, marker = COLORS[DECODERS.index(name)], MARKERS[name]
            x = [row["x"] for row in line]
            fit = fits[f"{curve}/{name}"]
            time.plot(x, [fit["a"] + fit["b"] * row["flops"] for row in line], "--", color=color, linewidth=1.1)
            time.plot(x, [row["seconds"] for row in line], marker, color=color, markersize=5)
            rate.plot(x, [row["flops"] / row["seconds"] / 1e9 for row in line], "-", color=color, linewidth=0.8)
            rate.plot(x, [row["flops"] / row["seconds"] / 1e9 for row in line], marker, color=color, markersize=5)
            if all("peak" in row for row in line):
                memory.plot(x, [row["peak_formula"] / 2**20 for row in line], "--", color=color, linewidth=1.1)
                memory.plot(x, [row["peak"] / 2**20 for row in line], marker, color=color, markersize=5)
        logarithmic = curve in ("frames", "batch")
        _dress(time, f"step time over {curve}", curve, f"{unit} per step", None if logarithmic else 0.0)
        _dress(rate, f"achieved rate over {curve}", curve, "GFLOP/s (formula / time)")
        _dress(memory, f"peak memory over {curve}", curve, "MiB")
        if logarithmic:
            time.set_yscale("log", base=2)
            time.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    _legend(figure)
    return save_figure(figure, path)


def shares_picture(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Where the time of a step goes, for the joint decoder."""
    figure, axes = new_figure(14.0, 3.6, 1, len(AXES))
    for axis, curve in zip(axes[0], AXES, strict=True):
        line = dict(_panels(rows, curve))["joint"]
        places = range(len(line))
        floor = [0.0] * len(line)
        for color, kind in zip(COLORS, KINDS, strict=True):
            heights = [100 * row["shares"][kind] for row in line]
            axis.bar(places, heights, bottom=floor, color=color, width=0.8, label=kind)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        plain(axis)
        axis.set_xticks(list(places), [f"{row['x']:g}" for row in line])
        axis.set_xlabel(AXES[curve], fontsize=8, color=GREY)
        axis.set_ylabel("% of the step", fontsize=8, color=GREY)
        axis.set_ylim(0, 100)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(KINDS), frameon=False, fontsize=8)
    figure.suptitle("where the time of a step goes, joint decoder", fontsize=9, color=INK)
    return save_figure(figure, path)
