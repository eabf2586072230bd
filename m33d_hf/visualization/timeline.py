"""Timelines: which phase a video is in, frame by frame, according to annotation and predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack
from m33d_hf.visualization.canvas import COLORS, GREY, INK, INVALID, new_figure, save_figure
from m33d_hf.visualization.dense import label_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More columns than a picture has pixels would only be averaged into colours that no phase has.
MOST_COLUMNS = 2400
NOT_ANNOTATED = "not annotated"
UNREADABLE = "unreadable or missing"
_HATCH: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 0}
_DISTINCT = tuple(color for color in COLORS if color != GREY)


def phase_colors(count: int) -> np.ndarray:
    """(count, 3) colours in [0, 1]; up to seven can be told apart with the common colour-vision deficiencies."""
    if count > len(_DISTINCT):
        return label_colors(count)
    return np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in _DISTINCT[:count]])


def time_label(seconds: float, hours: bool) -> str:
    """ "m:ss", or "h:mm:ss" on an axis that is longer than an hour."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def timeline_figure(
    rows: Mapping[str, np.ndarray],
    names: Sequence[str],
    fps: float | None = None,
    path: Path | None = None,
    probabilities: np.ndarray | None = None,
    title: str = "",
    times: FrameTimes | None = None,
    unreadable: Sequence[tuple[float, float]] = (),
) -> Figure:
    """A coloured band per row over a common time axis, and optionally the probability of every phase below.

    Args:
        rows: what it is ("ground truth", "clip by clip", "Bi-GRU") -> (T,) phase ids, 255 = not annotated (grey).
        names: of the phases, in id order.
        fps: ids per second, which gives an axis in minutes and seconds (hours from one hour on); None counts frames.
        path: PNG to write; None writes nothing.
        probabilities: (S, L) in [0, 1], evenly spaced over the same time; S need not be T.
        title: heading, such as the video's name.
        times: when each of the T ids holds, which replaces `fps`.
        unreadable: stretches without data, in seconds (in frames without a rate), drawn hatched; one that ends after
            the ids extends the axis.

    Raises:
        ConfigError: rows of different length, ids without a name, or probabilities of another number of phases.
        MissingDependencyError: matplotlib is not installed.
    """
    length = _checked_length(rows, names, probabilities)
    rows, probabilities, duration = _in_time(rows, probabilities, times, length, fps)
    whole = max([duration, *(stop for _, stop in unreadable)])
    extra = 0 if probabilities is None else 1
    heatmap = 0.0 if probabilities is None else float(np.clip(0.17 * len(names), 0.8, 5.0))
    legend_columns = max(1, min(5, 110 // (max(map(len, [*names, NOT_ANNOTATED])) + 6)))
    legend = 0.19 * -(-(len(names) + 2) // legend_columns)
    heights = [0.36] * len(rows) + [heatmap] * extra
    figure, axes = new_figure(
        9.0, sum(heights) + 0.9 + legend, len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    colors = np.vstack([phase_colors(len(names)), INVALID])
    for axis, (name, ids) in zip(axes[:, 0], rows.items()):
        band = np.where(ids == IGNORE_INDEX, len(names), ids).astype(np.int64)
        band = thinned(band, MOST_COLUMNS)
        axis.imshow(colors[band][None], aspect="auto", extent=(0, duration, 0, 1), interpolation="nearest")
        axis.set_yticks([0.5], [name], fontsize=8)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.tick_params(axis="x", bottom=False)
    if probabilities is not None:
        _draw_probabilities(figure, axes[-1, 0], probabilities, names, duration)
    for axis in axes[:, 0]:
        for start, stop in unreadable:
            axis.axvspan(start, stop, zorder=2, **_HATCH)
    _time_axis(axes[-1, 0], whole, fps if times is None else times.fps)
    known = _known(length, duration, unreadable)
    bare = any((_stretched(ids, len(known)) == IGNORE_INDEX)[known].any() for ids in rows.values())
    _legend(figure, names, colors, legend_columns, bare, bool(unreadable))
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    if path is not None:
        save_figure(figure, path)
    return figure


def hatched(
    runs: Sequence[tuple[int, int]], times: FrameTimes | None, lacks: Sequence[Lack] = ()
) -> list[tuple[float, float]]:
    """What `timeline_figure` is to hatch: runs [start, stop) of frames that could not be read, and missing stretches.

    In seconds; in frames where the times are unknown.
    """
    found = [(float(start), float(stop)) for start, stop in runs]
    if times is not None:
        found = [(float(times.at(start)), float(times.at(stop))) for start, stop in runs]
        # What lies before the first frame, or ends nobody knows where, has no place on the axis.
        found += [(lack.start, lack.stop) for lack in lacks if lack.start is not None and lack.stop and lack.start >= 0]
    return found


def _in_time(
    rows: Mapping[str, np.ndarray],
    probabilities: np.ndarray | None,
    times: FrameTimes | None,
    length: int,
    fps: float | None,
) -> tuple[Mapping[str, np.ndarray], np.ndarray | None, float]:
    """Rows and probabilities at even steps of time, and how long they last (seconds, or frames without a rate)."""
    if times is None or times.starts is None:
        rate = fps if times is None else times.fps
        return rows, probabilities, length if rate is None else length / rate
    moments = (np.arange(MOST_COLUMNS) + 0.5) * times.duration / MOST_COLUMNS
    frames = np.searchsorted(times.starts, moments, side="right") - 1
    if probabilities is not None:
        probabilities = probabilities[frames * len(probabilities) // length]
    return {name: ids[frames] for name, ids in rows.items()}, probabilities, times.duration


def _known(length: int, duration: float, unreadable: Sequence[tuple[float, float]]) -> np.ndarray:
    """(N,) bool: which of N even steps of time lie outside the unreadable stretches."""
    count = min(length, MOST_COLUMNS)
    moments = (np.arange(count) + 0.5) * duration / count
    inside = [(start <= moments) & (moments < stop) for start, stop in unreadable]
    return ~np.any(inside, axis=0) if inside else np.ones(count, bool)


def _stretched(ids: np.ndarray, count: int) -> np.ndarray:
    return ids[(np.arange(count) * len(ids)) // count]


def thinned(ids: np.ndarray, most: int) -> np.ndarray:
    """At most `most` ids, each the commonest of its stretch; where two are equally common, the lower one."""
    if len(ids) <= most:
        return ids
    edges = np.linspace(0, len(ids), most + 1).astype(np.int64)
    return np.array([np.bincount(ids[start:stop]).argmax() for start, stop in itertools.pairwise(edges)])


def _checked_length(rows: Mapping[str, np.ndarray], names: Sequence[str], probabilities: np.ndarray | None) -> int:
    lengths = {name: len(ids) for name, ids in rows.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items()) or "none"
        raise ConfigError(f"the rows of a timeline must have the same length, at least 1; ids per row: {listed}")
    for name, ids in rows.items():
        known = (ids >= 0) & (ids < len(names)) | (ids == IGNORE_INDEX)
        if not known.all():
            wrong = int(ids[~known][0])
            raise ConfigError(f"timeline row {name!r}: phase id {wrong}, but there are names for 0 to {len(names) - 1}")
    if probabilities is not None and (probabilities.ndim != 2 or probabilities.shape[1] != len(names)):
        raise ConfigError(
            f"probabilities of shape {probabilities.shape}; they must be (S, {len(names)}) for these names"
        )
    return next(iter(lengths.values()))


def _draw_probabilities(
    figure: Figure, axis: Axes, probabilities: np.ndarray, names: Sequence[str], duration: float
) -> None:
    count = len(names)
    shown: Any = axis.imshow(
        probabilities.T,
        aspect="auto",
        extent=(0, duration, count, 0),
        cmap="Greys",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    step = -(-count // 30)
    ticks = list(range(0, count, step))
    axis.set_yticks([tick + 0.5 for tick in ticks], [names[tick] for tick in ticks], fontsize=7)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    bar = figure.colorbar(shown, ax=axis, fraction=0.015, pad=0.005)
    bar.set_label("probability", fontsize=7)
    bar.ax.tick_params(labelsize=6.5)


def _time_axis(axis: Axes, duration: float, fps: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_xlim(0, duration)
    axis.tick_params(axis="x", bottom=True, labelsize=7.5, colors=GREY)
    if fps is None:
        axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axis.set_xlabel("frame", fontsize=8, color=GREY)
        return
    hours = duration >= 3600
    # Steps that people count time in; 1, 2, 5, 10 would put ticks at 3:20 and 6:40.
    steps = [s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200) if duration / s <= 12]
    step = steps[0] if steps else 3600 * -(-duration // (12 * 3600))
    axis.set_xticks(np.arange(0, duration + 1e-9, step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda at, _: time_label(at, hours)))
    axis.set_xlabel("time, h:mm:ss" if hours else "time, m:ss", fontsize=8, color=GREY)


def _legend(
    figure: Figure, names: Sequence[str], colors: np.ndarray, columns: int, unknown: bool, unreadable: bool
) -> None:
    from matplotlib.patches import Patch

    entries = [*names, NOT_ANNOTATED] if unknown else list(names)
    handles = [Patch(facecolor=tuple(color), label=name) for name, color in zip(entries, colors)]
    if unreadable:
        handles.append(Patch(label=UNREADABLE, **_HATCH))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5)
