"""What the model makes of the same samples at every evaluation: depth with errors, labels, top-5, reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.frames import spread_indices
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.training.showing.inputs import FRAMES, STRIP_INCHES, frames_name
from m33d_hf.training.showing.looks import (
    affine,
    class_legend,
    class_names,
    depth_of,
    label_tile,
    rgb_of,
)
from m33d_hf.training.showing.samples import Chosen
from m33d_hf.training.tasks.base import Batch, Task, to_device
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask
from m33d_hf.training.tasks.video_classification import VideoClassificationTask
from m33d_hf.visualization.clips import spread_frames
from m33d_hf.visualization.reconstruction import ReconstructionViews, output_views, rgb_image
from m33d_hf.visualization.tiles import ERROR_COLOURS, Tile, TileRow, strip, tiles_figure, value_limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In words of the loss, or drawn for training: a picture shows what the model is given and what it says.
_LEFT_OUT = ("hide", "noise")
_SHOWN_INPUTS = ("pixel_values", "depth_values", "depth_mask")
TOP = 5
CLIPS = 2  # whose reconstructions are drawn
Drawing = Callable[[Chosen, Any, M33DConfig, str], "Figure"]


def drawing_of(task: Task) -> Drawing | None:
    """What draws the predictions of a task; None where there is nothing of the kind."""
    known = {
        PretrainingTask: _reconstructions,
        DepthEstimationTask: _depths,
        SemanticSegmentationTask: _segmentations,
        VideoClassificationTask: _classes,
    }
    return next((draw for kind, draw in known.items() if isinstance(task, kind)), None)


@torch.no_grad()
def predictions_figure(task: Task, model: nn.Module, chosen: Chosen, accelerator: Accelerator, title: str) -> Figure:
    """Run the model, which is in evaluation mode, on the samples and draw what it says beside the truth.

    Raises:
        TypeError: a task without pictures (see `drawing_of`).
        MissingDependencyError: matplotlib is not installed.
    """
    draw = drawing_of(task)
    if draw is None:
        raise TypeError(f"{task.name} has no pictures of predictions")
    inputs = to_device(chosen.batch, accelerator.device)
    if isinstance(task, PretrainingTask):
        inputs = {name: value for name, value in inputs.items() if name not in _LEFT_OUT}
        inputs["output_reconstruction"] = True
    else:
        inputs = {name: inputs[name] for name in _SHOWN_INPUTS if name in inputs}
    with accelerator.autocast():
        output = model(**inputs)
    return draw(chosen, output, config_of(model), title)


def _depths(chosen: Chosen, output: Any, config: M33DConfig, title: str) -> Figure:
    predicted = output.predicted_depth.float().cpu().numpy().clip(config.min_depth, config.max_depth)
    rows = []
    for number, (sample, mine) in enumerate(zip(chosen.samples, _firsts(chosen, predicted), strict=True)):
        truth = chosen.batch["labels"][chosen.rows_of(number).start].numpy()
        # One scale, set by the truth: a prediction outside of it must look wrong.
        limits = value_limits(truth) if np.isfinite(truth).any() else value_limits(mine)
        error = np.abs(mine - truth)
        most = value_limits(error, low=0.0, high=98.0)[1]
        tiles = _picture(rgb_of(sample)) | {
            "depth": Tile(truth, limits, "m"),
            "predicted depth": Tile(mine, limits, "m"),
            "|error|": Tile(error, (0.0, most), "m", ERROR_COLOURS, open_ended=True),
        }
        known = error[np.isfinite(error)]
        note = "no valid depth here"
        if known.size:
            rmse = float(np.sqrt(np.square(known).mean()))
            note = f"mean |error| {known.mean():.3g} m, RMSE {rmse:.3g} m, {known.size} valid pixels"
        rows.append(TileRow(sample.key, tiles, note))
    return tiles_figure(rows, title, caption="Truth and prediction share one scale per row. Grey: no valid depth.")


def _segmentations(chosen: Chosen, output: Any, config: M33DConfig, title: str) -> Figure:
    names, size = class_names(config), tuple(chosen.batch["labels"].shape[-2:])
    logits = output.logits.float()
    if tuple(logits.shape[-2:]) != size:
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    predicted = logits.argmax(1).cpu().numpy().astype(np.uint8)
    rows, maps = [], []
    for sample, mine in zip(chosen.samples, _firsts(chosen, predicted), strict=True):
        truth = np.full(size, 255, np.uint8) if sample.segmentation is None else sample.segmentation[0].numpy()
        image, known = rgb_of(sample), truth < len(names)
        wrong = np.where(known, (mine != truth).astype(np.float64), np.nan)
        tiles = (
            _picture(image)
            | _depth_tile(chosen, sample)
            | {
                "labels": label_tile(image, truth, len(names), over=False),
                "predicted labels": label_tile(image, mine, len(names), over=False),
                "predicted over RGB": label_tile(image, mine, len(names)),
                "wrong pixels": Tile(_wrong(image, wrong)),
            }
        )
        right = f"{100 * (1 - np.nanmean(wrong)):.1f} % of {int(known.sum())} annotated pixels right"
        rows.append(TileRow(sample.key, tiles, right if known.any() else "not annotated"))
        maps += [truth, mine]
    return tiles_figure(rows, title, class_legend(maps, names))


def _depth_tile(chosen: Chosen, sample: RGBDSample) -> dict[str, Tile]:
    """Depth where it is an input."""
    depth = depth_of(sample) if "depth_values" in chosen.batch else None
    return {} if depth is None else {"depth": Tile(depth, value_limits(depth))}


def _wrong(image: np.ndarray | None, wrong_HW: np.ndarray) -> np.ndarray:
    """The picture in grey with its wrong pixels in vermilion."""
    grey = np.full((*wrong_HW.shape, 3), 0.85) if image is None else (image / 255.0).mean(-1, keepdims=True)
    return np.where((wrong_HW == 1)[..., None], np.array([0.84, 0.37, 0.0]), grey * np.ones(3))


def _classes(chosen: Chosen, output: Any, config: M33DConfig, title: str) -> Figure:
    names = class_names(config)
    probabilities = output.logits.float().softmax(-1).cpu().numpy()
    rows = []
    for number, sample in enumerate(chosen.samples):
        part = chosen.rows_of(number)
        note = top_words(probabilities[part].mean(0), names, sample.label)
        frames = spread_frames(sample.num_frames, FRAMES)
        images = [image for f in frames if (image := rgb_of(sample, f)) is not None]
        tiles = {frames_name(frames): Tile(strip(images))} if images else {}
        views = part.stop - part.start
        averaged = f"\nmean of {views} views; frames of the first" if views > 1 else ""
        rows.append(TileRow(sample.key, tiles, note + averaged))
    return tiles_figure(rows, title, width=STRIP_INCHES if config.num_frames > 1 else 3.2)


def top_words(probabilities: np.ndarray, names: list[str], label: int | None) -> str:
    """The label, whether it was found, and the most probable classes."""
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    ranked = ", ".join(f"{names[place]} {100 * probabilities[place]:.0f} %" for place in order)
    if label is None or not 0 <= label < len(names):
        return f"not annotated; predicted: {ranked}"
    return f"label: {names[label]} ({'right' if order[0] == label else 'wrong'}); predicted: {ranked}"


def _reconstructions(chosen: Chosen, output: Any, config: M33DConfig, title: str) -> Figure:
    inputs: Batch = {name: value for name, value in chosen.batch.items() if name != "meta"}
    laid = output_views(output, inputs, config)
    if config.num_frames > 1:
        clips = spread_indices(len(chosen.views), CLIPS)
        rows = [row for number in clips for row in _clip_rows(chosen, laid, config, number)]
    else:
        rows = [TileRow(sample.key, _still_tiles(chosen, laid, config, number))
                for number, sample in enumerate(chosen.samples)]  # fmt: skip
    notes = ["Masked patches are grey."]
    if any(views and views[0].statistics_from_truth for views in laid.values()):
        notes.append("Mean and contrast of reconstructed patches come from the truth where targets are normalised.")
    if not laid:
        notes = ["This stage reconstructs nothing."]
        rows = [TileRow(s.key, _picture(rgb_of(s))) for s in chosen.samples]
    return tiles_figure(rows, title, caption=" ".join(notes), width=STRIP_INCHES if config.num_frames > 1 else 1.4)


_WORDS = {"target": "input", "visible": "visible", "reconstruction": "reconstructed"}


def _still_tiles(
    chosen: Chosen, laid: Mapping[str, list[ReconstructionViews]], config: M33DConfig, number: int
) -> dict[str, Tile]:
    tiles: dict[str, Tile] = {}
    for name, views in laid.items():
        for which, word in _WORDS.items():
            tiles[f"{name}: {word}"] = _view_tile(chosen, views, config.spec(name), number, which, 0)
    return tiles


def _clip_rows(
    chosen: Chosen, laid: Mapping[str, list[ReconstructionViews]], config: M33DConfig, number: int
) -> list[TileRow]:
    frames, rows = spread_frames(config.num_frames, FRAMES), []
    for name, views in laid.items():
        for which, word in _WORDS.items():
            parts = [_view_tile(chosen, views, config.spec(name), number, which, frame) for frame in frames]
            tile = replace(parts[0], image=strip([part.image for part in parts]))
            rows.append(TileRow(f"{chosen.samples[number].key}, {name}: {word}", {frames_name(frames): tile}))
    return rows


def _view_tile(
    chosen: Chosen, views: list[ReconstructionViews], spec: ModalitySpec, number: int, which: str, frame: int
) -> Tile:
    """A frame of what went in, was visible, or came out; depth in metres where these give what went in."""
    view = views[chosen.rows_of(number).start]
    values = getattr(view, which)[frame]
    if spec.channels == 3:
        return Tile(rgb_image(values, spec.channel_mean, spec.channel_std))
    target = np.where(view.valid, view.target[:, 0], np.nan)
    image = values[0].astype(np.float64)
    if which != "reconstruction":
        image = np.where(view.valid[frame], image, np.nan)
    unit, metres = "standardised", None
    if spec.name == "depth":
        raw = [map_ for f in range(len(target)) if (map_ := depth_of(chosen.samples[number], f)) is not None]
        metres = affine(target, np.stack(raw)) if len(raw) == len(target) else None
    if metres is not None:
        scale, shift = metres
        image, target, unit = scale * image + shift, scale * target + shift, "m"
    return Tile(image, value_limits(target), unit)


def _picture(image: np.ndarray | None) -> dict[str, Tile]:
    return {} if image is None else {"RGB": Tile(image)}


def _firsts(chosen: Chosen, rows: np.ndarray) -> list[np.ndarray]:
    """Of rows of the batch, those of the first view of every sample."""
    return [rows[chosen.rows_of(number).start] for number in range(len(chosen.views))]
