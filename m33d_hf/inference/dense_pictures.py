"""Pictures of what segmentation and depth runs predict, several checkpoints beside the truth (the paper's Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from m33d_hf.acceleration import place
from m33d_hf.data.plural import plural
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.inference.label_curves import shortest_ends
from m33d_hf.inference.reconstruction_pictures import run_arguments
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_dataset
from m33d_hf.training.run.reporting import METRICS, read_rows
from m33d_hf.training.tasks.base import build_task, to_device
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.dense import JUDGED, DenseTask
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.dense import depth_error_figure, depth_figure, iou_figure, segmentation_figure
from m33d_hf.weights.files import whole_weights

DENSE_TASKS = ("semantic_segmentation", "depth_estimation")
_IOU = "eval/iou/"


@torch.no_grad()
def save_dense_pictures(
    folders: Sequence[Path], output: Path, count: int, root: str | None = None, split: str | None = None
) -> list[Path]:
    """Write PNGs of the first `count` evaluation samples of the first run, with the predictions of all runs.

    Segmentation: predictions.png, and iou_by_class.png of each run's own last evaluation. Depth: predictions.png, and
    depth_errors.png in metres. Columns are named after the folders.

    Args:
        folders: output folders of one task, whose models see pictures of one size and know the same classes.
        output: folder of the pictures.
        count: number of samples.
        root: data folder to read instead of the recorded one.
        split: split to read instead of the one that evaluated the first run.

    Raises:
        CheckpointError: a folder without a finished run.
        ConfigError: runs that cannot be compared.
        DataError: none of the samples can be read.
    """
    if len(set(_names(folders))) < len(folders):
        raise ConfigError("two of the folders are the same; name each once.")
    runs = [run_arguments(folder, root, split, DENSE_TASKS) for folder in folders]
    first = runs[0]
    task = build_task(first.task)
    _refuse_others(task)
    models = {name: _model(folder, task) for name, folder in zip(_names(folders), folders, strict=True)}
    _check_comparable(folders, runs, list(models.values()))
    images, labels, inputs = _samples(task, first, next(iter(models.values())), count)
    predictions: dict[str, Sequence[np.ndarray]] = {name: _predicted(model, inputs) for name, model in models.items()}
    title = f"{first.data.source}, {first.data.eval_split or first.data.train_split}"
    if first.task == "depth_estimation":
        figures = {
            "predictions": depth_figure(images, labels, predictions, title),
            "depth_errors": depth_error_figure(labels, predictions, title),
        }
    else:
        id2label = cast("dict[int, str]", config_of(next(iter(models.values()))).id2label)
        names = [id2label[number] for number in range(len(id2label))]
        figures = {"predictions": segmentation_figure(images, labels, predictions, names, title)}
        ious = {name: _last_ious(folder) for name, folder in zip(models, folders, strict=True)}
        if ious := {name: found for name, found in ious.items() if found}:
            figures["iou_by_class"] = iou_figure(ious, names, f"{title}: last evaluation of each run")
    return [save_figure(figure, output / f"{name}.png") for name, figure in figures.items()]


def _refuse_others(task: Any) -> None:
    """Refuse a task without a prediction per pixel.

    Raises:
        ConfigError: as said.
    """
    if not isinstance(task, DenseTask):
        raise ConfigError(f"{type(task).__name__} predicts nothing per pixel; give runs of {', '.join(DENSE_TASKS)}.")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with those above them where two are called alike."""
    ends = shortest_ends(list(dict.fromkeys(folder.resolve() for folder in folders)))
    return [ends[folder.resolve()] for folder in folders]


def _model(folder: Path, task: Any) -> Any:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no model (config.json); the run has not finished.")
    with whole_weights(folder):
        return place(task.model_class.from_pretrained(folder), "cpu").eval()


def _check_comparable(folders: Sequence[Path], runs: Sequence[RunArguments], models: Sequence[Any]) -> None:
    """One task, one size of pictures placed in one way, the same classes."""
    for folder, args, model in zip(folders, runs, models, strict=True):
        config, other = config_of(model), config_of(models[0])
        facts: dict[str, tuple[Any, Any]] = {
            "task": (args.task, runs[0].task),
            "image_size": (tuple(config.image_height_width), tuple(other.image_height_width)),
            "transforms.eval_crop": (args.transforms.eval_crop, runs[0].transforms.eval_crop),
        }
        if runs[0].task == "semantic_segmentation":
            facts["classes"] = (config.id2label, other.id2label)
        for name, (here, there) in facts.items():
            if here != there:
                both = f"{name} is {here} here and {there} there"
                raise ConfigError(f"{folder} cannot stand beside {folders[0]}: {both}.")


def _samples(
    task: Any, args: RunArguments, model: Any, count: int
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, torch.Tensor]]:
    """RGB (H, W, 3) uint8, truth (H, W) and the model's inputs of the first samples."""
    config = config_of(model)
    train = args.data.eval_split is None and args.data.eval_root is None
    dataset = build_dataset(args, config, train, maps=task.maps(config))
    drawn = [dataset[(0, index)] for index in range(min(count, len(dataset)))]
    samples = [view for sample in drawn for view in (sample if isinstance(sample, list) else [sample])]
    args.evaluation.depth_protocol = None  # a picture shows what the model sees
    batch = task.build_collator(args, model, train=False)(samples)
    keys = batch["meta"]["keys"]
    if not keys:
        reasons = "; ".join(f"{file.path}: {file.reason}" for file in batch["meta"]["skipped"][:3])
        raise DataError(f"none of the first {plural(len(samples), 'sample')} can be read ({reasons})")
    pictures: dict[str, Any] = {sample.key: sample.rgb for sample in samples if hasattr(sample, "rgb")}
    inputs = to_device(batch, torch.device("cpu"))
    inputs.pop(JUDGED, None)
    truth = inputs.pop("labels")
    images = [pictures[key][0].permute(1, 2, 0).numpy() for key in keys]
    return images, list(truth.numpy()), inputs


def _predicted(model: Any, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    output = model(**inputs)
    if isinstance(model, M33DForDepthEstimation):
        return list(output.predicted_depth.float().numpy())
    if not isinstance(model, M33DForSemanticSegmentation):
        raise ConfigError(f"{type(model).__name__} predicts nothing per pixel.")
    size = tuple(next(iter(inputs.values())).shape[-2:])
    logits = output.logits.float()
    if tuple(logits.shape[-2:]) != size:
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return list(logits.argmax(1).numpy())


def _last_ious(folder: Path) -> dict[str, float]:
    """Class -> IoU of the run's last evaluation; empty where there was none."""
    rows = [row for row in read_rows(folder / METRICS) if row.get("kind") == "eval"]
    last = rows[-1] if rows else {}
    return {name.removeprefix(_IOU): float(value) for name, value in last.items() if name.startswith(_IOU)}
