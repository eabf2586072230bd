"""Pictures of what a pre-trained model reconstructs and of what its masks leave visible, from its own data."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from m33d_hf.acceleration import place
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import build
from m33d_hf.training.recipe.run_data import build_dataset
from m33d_hf.training.run.reporting import CONFIG
from m33d_hf.training.tasks.base import to_device
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.clips import clip_reconstruction_figure, motion_mask_figure
from m33d_hf.visualization.reconstruction import ReconstructionViews, output_views, reconstruction_figure
from m33d_hf.weights.files import whole_weights

Views = list[dict[str, ReconstructionViews]]


def task_of(folder: Path) -> str:
    """The task of a run, from its train_config.json.

    Raises:
        CheckpointError: no readable train_config.json.
    """
    return str(_recorded(folder)["task"])


def _recorded(folder: Path) -> Any:
    try:
        recorded = read_sealed_json(folder / CONFIG)["args"]
        return {"task": "", **recorded}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not an output folder of a run ({error}).") from error


def run_arguments(
    folder: Path, root: str | None = None, split: str | None = None, tasks: Collection[str] = ("pretraining",)
) -> RunArguments:
    """The arguments that a run was started with, from its train_config.json.

    Args:
        folder: output folder of run_pretrain.py.
        root: data folder to read instead of the recorded one.
        split: split to read instead of the one that evaluated the run.
        tasks: what the run may have been.

    Raises:
        CheckpointError: no readable train_config.json.
        ConfigError: the run was another one.
    """
    args: RunArguments = build(RunArguments, copy.deepcopy(_recorded(folder)), "")
    if args.task not in tasks:
        alone = "only pre-training runs can reconstruct"
        why = alone if len(tasks) == 1 else f"predictions are drawn of {' and '.join(tasks)}"
        raise ConfigError(f"{folder} holds a {args.task} run; {why}.")
    if root is not None:
        args.data.root, args.data.eval_root = root, None
    if split is not None:
        args.data.eval_split = split
    return args


@torch.no_grad()
def save_pictures(folder: Path, output: Path, args: RunArguments, count: int) -> list[Path]:
    """Write PNGs of the first `count` samples of the evaluation data (of the training data where there is none).

    One picture of all samples for image models; per clip a strip of its frames and one of its visible tokens for clip
    models. Masks are those that an evaluation draws.

    Raises:
        CheckpointError: no model in `folder`.
        DataError: none of the samples can be read.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no model (config.json); the run has not finished.")
    with whole_weights(folder):
        model = place(M33DForPreTraining.from_pretrained(folder), "cpu").eval()
    train, maps = args.data.eval_split is None and args.data.eval_root is None, PretrainingTask().maps(model.config)
    dataset = build_dataset(args, model.config, train, maps=maps)
    batch = _batch(model, dataset, args, count)
    keys = batch.pop("meta")["keys"]
    for drawn in ("hide", "noise"):  # a picture shows what the model is given
        batch.pop(drawn, None)
    inputs = to_device(batch, torch.device("cpu"))
    result = model(**inputs, output_reconstruction=True)
    views = _views(model, inputs, result, len(keys))
    if model.config.num_frames == 1:
        figure = reconstruction_figure(views, model.config, folder.name)
        return [save_figure(figure, output / "reconstructions.png")]
    return _clip_pictures(model, inputs, result, views, keys, output)


def _batch(model: M33DForPreTraining, dataset: SampleDataset, args: RunArguments, count: int) -> dict[str, Any]:
    samples = [dataset[(0, index)] for index in range(min(count, len(dataset)))]
    flat = [view for sample in samples for view in (sample if isinstance(sample, list) else [sample])]
    batch = PretrainingTask().build_collator(args, model, train=False)(flat)
    if not batch["meta"]["keys"]:
        reasons = "; ".join(f"{file.path}: {file.reason}" for file in batch["meta"]["skipped"][:3])
        raise DataError(f"none of the first {plural(len(flat), 'sample')} can be read ({reasons})")
    return batch


def _views(model: M33DForPreTraining, inputs: dict[str, Any], result: Any, count: int) -> Views:
    """Per sample: modality name -> views of the reconstructed modalities."""
    views: Views = [{} for _ in range(count)]
    for name, laid in output_views(result, inputs, model.config).items():
        for sample, view in zip(views, laid, strict=True):
            sample[name] = view
    return views


def _clip_pictures(
    model: M33DForPreTraining, inputs: dict[str, Any], result: Any, views: Views, keys: list[str], output: Path
) -> list[Path]:
    paths = []
    for number, (key, view) in enumerate(zip(keys, views, strict=True)):
        if view:
            figure = clip_reconstruction_figure(view, model.config, key)
            paths.append(save_figure(figure, output / f"clip_{number}_reconstruction.png"))
        if "rgb" in result.keep:
            pixels, keep = inputs["pixel_values"][number], result.keep["rgb"][number]
            figure = motion_mask_figure(model.config, pixels, key, keep_V=keep)
            paths.append(save_figure(figure, output / f"clip_{number}_visible.png"))
    return paths
