"""Masked images: the input, the visible patches, and the reconstruction.

A model trained on normalised patches predicts no brightness and no contrast: to display its output, mean and deviation
of the true patch must be restored, so part of the picture comes from the ground truth. `reconstruction_views` does this
and records it in `statistics_from_truth`; captions must mention it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.modeling.masking_m33d import JOINT, complement, masked_by_budget
from m33d_hf.modeling.outputs_m33d import M33DForPreTrainingOutput
from m33d_hf.modeling.patches_m33d import patchify, unpatchify
from m33d_hf.visualization.canvas import INVALID, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Per modality: input, the visible patches, and the reconstruction with the visible patches kept."
    " Where the target is a normalised patch (norm-pix), mean and deviation of the true patch are put back:"
    " brightness and contrast of those patches come from the ground truth, only their structure is predicted."
)


@dataclass
class ReconstructionViews:
    """One sample and modality, (T, C, H, W) float32 in the units of the model's input.

    Attributes:
        target: what went in.
        visible: the same with NaN where tokens were masked.
        reconstruction: predictions at masked tokens, the input at visible ones.
        valid: (T, H, W) bool, False where the modality has no value (holes of a depth map).
        statistics_from_truth: mean and deviation of the predicted patches were taken from the truth.
    """

    target: np.ndarray
    visible: np.ndarray
    reconstruction: np.ndarray
    valid: np.ndarray
    statistics_from_truth: bool


def undo_target_normalisation(
    prediction_BKP: torch.Tensor, truth_BKP: torch.Tensor, spec: ModalitySpec
) -> torch.Tensor:
    """Put mean and deviation of the true patches back into predicted ones; the inverse of the target's norm.

    Args:
        prediction_BKP: in the space of the loss.
        truth_BKP: the true patches, before normalisation, channels fastest.
    """
    if spec.target_norm == "none":
        return prediction_BKP
    if spec.target_norm == "pooled":
        mean = truth_BKP.mean(-1, keepdim=True)
        return prediction_BKP * (truth_BKP.var(-1, keepdim=True) + spec.target_eps).sqrt() + mean
    truth = truth_BKP.unflatten(-1, (-1, spec.channels))
    scale, mean = truth.std(-2, keepdim=True) + spec.target_eps, truth.mean(-2, keepdim=True)
    return (prediction_BKP.unflatten(-1, (-1, spec.channels)) * scale + mean).flatten(-2)


def _to_target_space(pixels_BTCHW: torch.Tensor, spec: ModalitySpec, back: bool = False) -> torch.Tensor:
    """Normalised input to [0, 1] pixels, or back, for targets in "unit" space."""
    if spec.target_space != "unit" or spec.channel_mean is None or spec.channel_std is None:
        return pixels_BTCHW
    mean = torch.tensor(spec.channel_mean)[:, None, None]
    std = torch.tensor(spec.channel_std)[:, None, None]
    return (pixels_BTCHW - mean) / std if back else pixels_BTCHW * std + mean


def reconstruction_views(
    pixels: torch.Tensor,
    keep_BV: torch.Tensor,
    prediction_BKP: torch.Tensor,
    spec: ModalitySpec,
    config: M33DConfig,
    valid: torch.Tensor | None = None,
) -> list[ReconstructionViews]:
    """Lay predictions back onto the image grid.

    Args:
        pixels: (B, C, H, W) or (B, T, C, H, W), the model's input of this modality.
        keep_BV: visible tokens.
        prediction_BKP: predictions of the masked tokens, ascending, in the space of the loss.
        valid: like `pixels` with one channel, bool; None = all.
    """
    clips = pixels if pixels.dim() == 5 else pixels[:, None]
    clips = clips.detach().float().cpu()
    valid_clips = torch.ones_like(clips[:, :, :1], dtype=torch.bool) if valid is None else valid.bool().cpu()
    valid_clips = valid_clips.reshape(clips.shape[0], clips.shape[1], 1, *clips.shape[-2:])
    grid, tubelet = config.grid, config.tubelet_size
    patch = (clips.shape[-2] // grid[1], clips.shape[-1] // grid[2])
    drop_BK = complement(keep_BV.cpu(), grid[0] * grid[1] * grid[2])
    truth = patchify(_to_target_space(clips, spec), tubelet, patch)
    index = drop_BK[..., None].expand(-1, -1, truth.shape[-1])
    predicted = undo_target_normalisation(prediction_BKP.detach().float().cpu(), truth.gather(1, index), spec)
    filled = unpatchify(truth.scatter(1, index, predicted), grid, tubelet, patch)
    hidden = patchify(clips, tubelet, patch).scatter(1, index, torch.nan)
    visible = unpatchify(hidden, grid, tubelet, patch)
    filled = _to_target_space(filled, spec, back=True)
    return [
        ReconstructionViews(
            clips[i].numpy(),
            visible[i].numpy(),
            filled[i].numpy(),
            valid=valid_clips[i, :, 0].numpy(),
            statistics_from_truth=spec.target_norm != "none",
        )
        for i in range(len(clips))
    ]


def output_views(
    output: M33DForPreTrainingOutput, batch: Mapping[str, Any], config: M33DConfig
) -> dict[str, list[ReconstructionViews]]:
    """Views of every modality that a forward pass with `output_reconstruction` predicted: name -> one per sample.

    Args:
        output: of the model.
        batch: its forward arguments.
        config: of the model.
    """
    views = {}
    predictions, kept = output.reconstructions or {}, output.keep or {}
    for spec in config.specs:
        if spec.name not in predictions:
            continue
        pixels, prediction = batch[spec.input_name], predictions[spec.name]
        valid = batch.get(spec.mask_name) if spec.mask_name else None
        if JOINT in kept:
            views[spec.name] = _budget_views(kept[JOINT], pixels, prediction, spec, config, valid)
            continue
        nothing = torch.empty(len(pixels), 0, dtype=torch.int64)
        keep = kept.get(spec.name, nothing)
        views[spec.name] = reconstruction_views(pixels, keep, prediction, spec, config, valid)
    return views


def _budget_views(
    joint_BV: torch.Tensor,
    pixels: torch.Tensor,
    prediction_BNP: torch.Tensor,
    spec: ModalitySpec,
    config: M33DConfig,
    valid: torch.Tensor | None,
) -> list[ReconstructionViews]:
    """With a token budget: another number of visible tokens in every sample, and all positions predicted."""
    names = [source.name for source in config.input_specs]
    masked = torch.ones(prediction_BNP.shape[:2], dtype=torch.bool)
    if spec.source_name in names:
        every = masked_by_budget(joint_BV.cpu(), len(names), masked.shape[1])
        masked = every[:, names.index(spec.source_name)]
    views = []
    for i, row in enumerate(masked):
        keep, predicted = (~row).nonzero().T, prediction_BNP[i : i + 1].cpu()[:, row]
        holes = None if valid is None else valid[i : i + 1]
        views += reconstruction_views(pixels[i : i + 1], keep, predicted, spec, config, holes)
    return views


def rgb_image(pixels_CHW: np.ndarray, mean: Sequence[float] | None, std: Sequence[float] | None) -> np.ndarray:
    """Normalised (3, H, W) to a displayable (H, W, 3) in [0, 1]; NaN (masked) becomes grey."""
    image = pixels_CHW.transpose(1, 2, 0).astype(np.float64)
    if mean is not None and std is not None:
        image = image * np.asarray(std) + np.asarray(mean)
    masked = ~np.isfinite(image).all(-1, keepdims=True)
    return np.clip(np.where(masked, np.asarray(INVALID), image), 0, 1)


def reconstruction_figure(
    samples: Sequence[dict[str, ReconstructionViews]],
    config: M33DConfig,
    title: str,
    frame: int | None = None,
) -> Figure:
    """A row per sample; input, visible and reconstruction of every modality side by side.

    Args:
        samples: per sample, modality name -> views.
        frame: which frame of a clip; None = the middle one.
    """
    names = [spec.name for spec in config.specs if spec.name in samples[0]]
    figure, axes = new_figure(1.25 * 3 * len(names) + 0.5, 1.25 * len(samples) + 0.55, len(samples), 3 * len(names))
    for row, sample in enumerate(samples):
        for column, name in enumerate(names):
            _draw(
                axes[row, 3 * column : 3 * column + 3],
                sample[name],
                config.spec(name),
                frame,
                header=row == 0,
            )
    figure.suptitle(title, fontsize=10)
    return figure


def value_range(target_TCHW: np.ndarray, valid_THW: np.ndarray) -> tuple[float, float]:
    """First and 99th percentile of the valid values; (0, 1) where nothing is valid."""
    values = np.moveaxis(target_TCHW, 1, -1)[valid_THW]
    low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
    return float(low), float(high)


def color_range(views: ReconstructionViews, frames: slice = slice(None)) -> tuple[float, float]:
    """`value_range` of what went in; where nothing of it is valid, of what is predicted."""
    if views.valid[frames].any():
        return value_range(views.target[frames], views.valid[frames])
    return value_range(views.reconstruction[frames], np.isnan(views.visible[frames, 0]))


def show_view(
    axis: Axes, views: ReconstructionViews, which: str, frame: int, spec: ModalitySpec, limits: tuple[float, float]
) -> None:
    """Draw one frame of `target`, `visible` or `reconstruction`; what is masked or has no value stays background."""
    values = getattr(views, which)[frame]
    if spec.channels == 3:
        axis.imshow(rgb_image(values, spec.channel_mean, spec.channel_std), interpolation="nearest")
        return
    image = values[0].astype(np.float64)
    if which != "reconstruction":
        image = np.where(views.valid[frame], image, np.nan)
    axis.set_facecolor(INVALID)
    low, high = limits
    axis.imshow(np.ma.masked_invalid(image), cmap="viridis", vmin=low, vmax=high, interpolation="nearest")


def _draw(axes: np.ndarray, views: ReconstructionViews, spec: ModalitySpec, frame: int | None, header: bool) -> None:
    shown = views.target.shape[0] // 2 if frame is None else frame
    limits = value_range(views.target[shown : shown + 1], views.valid[shown : shown + 1])
    what = "patch mean and\ncontrast of the truth" if views.statistics_from_truth else f"{spec.name}"
    for axis, which, word in zip(
        axes,
        ("target", "visible", "reconstruction"),
        (f"{spec.name}: input", f"{spec.name}: visible", f"reconstruction\n({what})"),
        strict=True,
    ):
        bare(axis)
        if header:
            axis.set_title(word, fontsize=7.5)
        show_view(axis, views, which, shown, spec, limits)
