"""Clips frame by frame: visible tokens of motion masking, and reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep, motion_scores
from m33d_hf.visualization.canvas import INK, INVALID, bare, new_figure
from m33d_hf.visualization.reconstruction import ReconstructionViews, color_range, rgb_image, show_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Segment = tuple[tuple[float, float], tuple[float, float]]

MARK = "#e69f00"
DIM = 0.35
MOST_FRAMES = 8


def spread_frames(total: int, most: int = MOST_FRAMES, step: int = 1) -> list[int]:
    """At most `most` of the frames 0, step, 2 step, ..., evenly spread, the first and the last of them included."""
    frames = list(range(0, total, step))
    if len(frames) <= most:
        return frames
    return [frames[round(i * (len(frames) - 1) / (most - 1))] for i in range(most)] if most > 1 else frames[:1]


def dim_masked(image: np.ndarray, visible_hw: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Darken and desaturate masked patches; visible patches stay unchanged.

    Args:
        image: (H, W, 3) in [0, 1].
        visible_hw: (H / patch height, W / patch width) bool.
        patch: (height, width) of a patch in pixels.
    """
    shown = visible_hw.repeat(patch[0], axis=0).repeat(patch[1], axis=1)
    return np.where(shown[..., None], image, DIM * image.mean(axis=-1, keepdims=True))


def outline(visible_hw: np.ndarray, patch: tuple[int, int]) -> list[Segment]:
    """Lines ((x, y), (x, y)) in pixels of the image around the visible patches, none between two of them."""
    padded = np.pad(visible_hw, 1)
    lines: list[Segment] = []
    # imshow puts the centre of the first pixel at 0.
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        y, x = row * patch[0] - 0.5, column * patch[1] - 0.5
        lines.append(((x, y), (x + patch[1], y)))
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        y, x = row * patch[0] - 0.5, column * patch[1] - 0.5
        lines.append(((x, y), (x, y + patch[0])))
    return lines


def visible_grid(keep_V: torch.Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """(V,) visible token numbers to (t, h, w) bool."""
    flags = np.zeros(grid[0] * grid[1] * grid[2], dtype=bool)
    flags[keep_V.cpu().numpy()] = True
    return flags.reshape(grid)


def motion_mask_figure(
    config: M33DConfig,
    pixels_TCHW: torch.Tensor,
    title: str = "",
    generator: torch.Generator | None = None,
    keep_V: torch.Tensor | None = None,
    most_frames: int = MOST_FRAMES,
) -> Figure:
    """Frames of a clip, their motion scores, and the visible RGB tokens (framed; the rest is dark).

    Args:
        config: of the model; RGB's masking is "motion" unless `keep_V` is given.
        pixels_TCHW: RGB as the model takes it (normalised).
        title: heading.
        generator: of the draw; torch's global one when None.
        keep_V: visible tokens to show instead of drawing them.
        most_frames: columns at most; each shows the first frame of a tubelet.

    Raises:
        ConfigError: another masking and no `keep_V`, or a clip that does not fit the configuration.
        MissingDependencyError: matplotlib is not installed.
    """
    spec, tubelet = config.spec("rgb"), config.tubelet_size
    frames, _, height, width = pixels_TCHW.shape
    grid = config.grid_for(frames, height, width)
    pixels = pixels_TCHW.detach().float().cpu()
    scores = motion_scores(pixels[None], config)
    if keep_V is None:
        if spec.masking != "motion":
            raise ConfigError(
                f"RGB's masking is {spec.masking!r}; set masking to 'motion', or pass the visible tokens (keep_V)"
            )
        keep_V = draw_keep(config, 1, grid, generator, motion=scores)["rgb"][0]
    visible = visible_grid(keep_V, grid)
    heat = scores[0].reshape(grid).numpy()
    columns = spread_frames(frames, most_frames, tubelet)
    patch = config.patch_height_width
    figure, axes = new_figure(1.2 * len(columns) + 0.7, 1.2 * 3 * height / width + 0.5, 3, len(columns))
    from matplotlib.collections import LineCollection

    for column, frame in enumerate(columns):
        slot = frame // tubelet
        image = rgb_image(pixels[frame].numpy(), spec.channel_mean, spec.channel_std)
        for axis in axes[:, column]:
            bare(axis)
        axes[0, column].set_title(f"frame {frame}", fontsize=7.5)
        axes[0, column].imshow(image, interpolation="nearest")
        axes[1, column].imshow(heat[slot], cmap="magma", vmin=0, vmax=float(heat.max()) or 1.0, interpolation="nearest")
        axes[2, column].imshow(dim_masked(image, visible[slot], patch), interpolation="nearest")
        axes[2, column].add_collection(
            LineCollection(outline(visible[slot], patch), colors=MARK, linewidths=0.9, clip_on=False)
        )
    _name_rows(axes, ["frame", "motion", f"visible\n{len(keep_V)} of {visible.size}"])
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK)
    return figure


def clip_reconstruction_figure(
    views: dict[str, ReconstructionViews],
    config: M33DConfig,
    title: str = "",
    frames: Sequence[int] | None = None,
    most_frames: int = MOST_FRAMES,
) -> Figure:
    """Input, visible part and reconstruction of each modality of one clip: rows; its frames: columns.

    One value range per modality holds for all its frames and rows, so that a flickering depth shows as such.

    Args:
        views: modality name -> `reconstruction_views(...)[sample]`; any masking.
        config: of the model.
        title: heading; see `reconstruction.CAPTION` for what a caption has to say.
        frames: which frames; None spreads `most_frames` over the clip.
        most_frames: columns at most.

    Raises:
        ConfigError: no modality of the configuration in `views`.
        MissingDependencyError: matplotlib is not installed.
    """
    names = [spec.name for spec in config.specs if spec.name in views]
    if not names:
        raise ConfigError(f"no view of {', '.join(spec.name for spec in config.specs)} to draw, only {sorted(views)}")
    length, height, width = views[names[0]].valid.shape
    columns = spread_frames(length, most_frames) if frames is None else list(frames)
    rows = 3 * len(names)
    figure, axes = new_figure(1.2 * len(columns) + 0.5, 1.2 * rows * height / width + 0.5, rows, len(columns))
    for number, name in enumerate(names):
        spec, view = config.spec(name), views[name]
        limits = color_range(view)
        for row, which in enumerate(("target", "visible", "reconstruction")):
            for axis, frame in zip(axes[3 * number + row], columns):
                bare(axis)
                axis.set_facecolor(INVALID)
                show_view(axis, view, which, frame, spec, limits)
    for axis, frame in zip(axes[0], columns):
        axis.set_title(f"frame {frame}", fontsize=7.5)
    words = [f"{name}\n{word}" for name in names for word in ("input", "visible", "reconstructed")]
    _name_rows(axes, words)
    if any(views[name].statistics_from_truth for name in names):
        note = "mean and contrast of each reconstructed patch\ncome from the truth where the target is normalised"
        figure.supxlabel(note, fontsize=7.5, color=INK)
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK)
    return figure


def _name_rows(axes: np.ndarray, words: Sequence[str]) -> None:
    for axis, word in zip(axes[:, 0], words):
        axis.set_ylabel(word, fontsize=7.5, rotation=0, ha="right", va="center", labelpad=4)
