"""What the demo's jobs do in their worker processes; every function returns a JSON dict, the row."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.acceleration import place
from m33d_hf.data.files.parenthood import end_with
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import build_source
from m33d_hf.errors import M33DError
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics
from m33d_hf.experiments.results import METRICS
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.run.preparation import build_eval_feed
from m33d_hf.training.tasks.base import Task, to_device
from m33d_hf.training.tasks.dense import DenseTask
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask
from m33d_hf.visualization.reconstruction import output_views, rgb_image

Row = dict[str, Any]
FLOOR_FRAMES = 1000


def start_worker(parent: int) -> None:
    """Once per worker: one thread, freed memory kept for all that follows, and an end when the parent is gone.

    `parent` is told, not asked for: it may be gone before this is called.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    end_with(parent)


def render(frames: Mapping[str, int], cache_dir: str | None, options: Mapping[str, Any] | None = None) -> Row:
    """Render all splits into the cache; `options` are those of the source (image_size, device, seed)."""
    started = time.perf_counter()
    digests = {}
    names: Sequence[str] = ()
    for split, count in frames.items():
        source = _rooms(split, count, cache_dir, options)
        digests[split], names = source.digest(), source.class_names or ()
    seconds = time.perf_counter() - started
    total = sum(frames.values())
    return {
        "seconds": seconds,
        "digests": digests,
        "class_names": list(names),
        "headline": f"{total} frames, {total / max(seconds, 1e-9):.0f} frames/s",
    }


def _rooms(split: str, count: int, cache_dir: str | None, options: Mapping[str, Any] | None) -> Any:
    return build_source("rooms", split=split, num_frames=count, cache_dir=cache_dir, **(options or {}))


def pretrain(
    argv: Sequence[str],
    output_dir: str,
    steps: int,
    picture: str | None = None,
    folder: str = "",
    pictures: int = 0,
) -> Row:
    """One stage of a pre-training, evaluated at its end on the test split (losses and diagnostics)."""
    args = parse_arguments([*argv, "--output_dir", output_dir], "pretraining")
    task = PretrainingTask()
    result, seconds = _timed_training(args, task)
    model = M33DForPreTraining.from_pretrained(output_dir)
    batch = args.train.batch_size * args.train.accumulation
    if picture:
        _save_reconstructions(model, task, args, pictures, Path(folder) / picture)
    return {
        **_cost(args, seconds, flops_per_sample(model.config, "pretraining", batch_size=batch)),
        "stage": args.stage,
        "curve": _loss_curves(result.history),
        "diagnostics": {name.removeprefix("eval/"): value for name, value in result.metrics.items()},
        "encoder_parameters": _rgb_parameters(model),
        "image_size": list(model.config.image_height_width),
        "picture": picture,
        "headline": f"test loss {result.metrics['eval/loss']:.3f}",
    }


def finetune(
    task: str,
    argv: Sequence[str],
    test_argv: Sequence[str],
    output_dir: str,
    steps: int,
    picture: str | None = None,
    folder: str = "",
    pictures: int = 0,
) -> Row:
    """One fine-tuning from RGB: validated while training for the curve, its last weights evaluated once on test."""
    args = parse_arguments([*argv, "--output_dir", output_dir], task)
    worker = _finetuning_task(task)
    result, seconds = _timed_training(args, worker)
    test_args = parse_arguments([*test_argv, "--output_dir", output_dir], task)
    model = worker.model_class.from_pretrained(output_dir).eval()
    metrics = _evaluate(model, worker, test_args)
    name = METRICS[task]
    if picture:
        _save_predictions(model, worker, test_args, pictures, Path(folder) / picture)
    validation = [row for row in result.history if row["kind"] == "eval"]
    return {
        **_cost(args, seconds, flops_per_sample(model.config, task)),
        "metric": name,
        "value": metrics[name],
        "metrics": metrics,
        "curve": [[row["step"], row[f"eval/{name}"]] for row in validation],
        "picture": picture,
        "headline": f"test {name} {100 * metrics[name]:.1f} %",
    }


def _finetuning_task(name: str) -> DenseTask:
    tasks = {task.name: task for task in (DepthEstimationTask, SemanticSegmentationTask)}
    return tasks[name]()


def _timed_training(args: RunArguments, task: Task) -> tuple[TrainResult, float]:
    started = time.perf_counter()
    result = train(args, task)
    if result.interrupted_by is not None:
        raise M33DError(f"stopped by signal {result.interrupted_by} at step {result.step}; run again to continue")
    return result, time.perf_counter() - started


def _cost(args: RunArguments, seconds: float, flops: float) -> Row:
    steps = args.train.max_steps or 0
    batch = args.train.batch_size * args.train.accumulation
    return {"steps": steps, "batch_size": batch, "seconds": seconds, "flops": flops * batch * steps}


def _loss_curves(history: Iterable[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Term -> [[step, unweighted loss], ...]."""
    curves: dict[str, list[list[float]]] = {}
    for row in history:
        if row["kind"] != "train":
            continue
        for key, value in row.items():
            if key.startswith("loss/"):
                curves.setdefault(key.removeprefix("loss/"), []).append([row["step"], value])
    return curves


def _rgb_parameters(model: M33DForPreTraining) -> int:
    """Parameters of the RGB branch, which is what fine-tuning takes."""
    named = model.m33d.named_parameters()
    encoder = model.config.encoder_name(model.config.spec("rgb"))
    return sum(p.numel() for name, p in named if name.startswith(("embeddings.rgb.", f"encoders.{encoder}.")))


def _evaluate(model: Any, task: Task, args: RunArguments) -> dict[str, float]:
    """The task's metrics over the evaluation split of `args`."""
    with open_accelerator(args) as accelerator, torch.no_grad():
        dataset = task.build_datasets(args, model)[1]
        assert dataset is not None, "the demo's rows all have an evaluation split"
        feed = build_eval_feed(args, task, place(model, accelerator.device), dataset, Ranks(accelerator))
        try:
            found = task.evaluate(model, feed, accelerator)
        finally:
            feed.close()
    return {name.removeprefix("eval/"): float(value) for name, value in found.items()}


def _first_batch(model: Any, task: Task, args: RunArguments, count: int) -> dict[str, Any]:
    """The first `count` test frames as forward arguments. A few pictures are drawn on the CPU, whatever trained."""
    dataset: SampleDataset | None = task.build_datasets(args, model)[1]
    assert dataset is not None, "the demo's rows all have an evaluation split"
    samples = [dataset[(0, index)] for index in range(min(count, len(dataset)))]
    return to_device(task.build_collator(args, model, False)(samples), torch.device("cpu"))


@torch.no_grad()
def _save_reconstructions(model: M33DForPreTraining, task: Task, args: RunArguments, count: int, path: Path) -> None:
    """Views of every reconstructed modality for the report."""
    batch = _first_batch(model, task, args, count)
    for drawn in ("hide", "noise"):  # a picture shows what the model is given
        batch.pop(drawn, None)
    output = place(model, "cpu").eval()(**batch, output_reconstruction=True)
    arrays: dict[str, Any] = {"config": np.array(json.dumps(model.config.to_dict()))}
    for name, views in output_views(output, batch, model.config).items():
        for part in ("target", "visible", "reconstruction", "valid"):
            arrays[f"{name}/{part}"] = np.stack([getattr(view, part) for view in views])
        arrays[f"{name}/statistics_from_truth"] = np.array(views[0].statistics_from_truth)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


@torch.no_grad()
def _save_predictions(model: Any, task: Task, args: RunArguments, count: int, path: Path) -> None:
    """RGB, truth and prediction of the first test frames."""
    batch = _first_batch(model, task, args, count)
    output = place(model, "cpu")(pixel_values=batch["pixel_values"])
    depth = args.task == "depth_estimation"
    predictions = output.predicted_depth if depth else output.logits.argmax(1)
    spec = model.config.spec("rgb")
    images = [rgb_image(pixels.numpy(), spec.channel_mean, spec.channel_std) for pixels in batch["pixel_values"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=np.stack(images), labels=batch["labels"].numpy(), predictions=predictions.numpy())


def floors(frames: Mapping[str, int], cache_dir: str | None, options: Mapping[str, Any] | None = None) -> Row:
    """What a model that ignores the image can reach: per pixel the commonest class and the mean depth of train."""
    train, test = (_rooms(split, frames[split], cache_dir, options) for split in ("train", "test"))
    used = min(FLOOR_FRAMES, len(train))
    classes = len(train.class_names)
    votes, total, count = (torch.zeros(()) for _ in range(3))
    for index in range(used):
        sample = train[index].read([0])
        labels, depth = sample.segmentation[0].long(), sample.depth[0, 0]
        votes = votes + torch.nn.functional.one_hot(labels.clamp_max(classes), classes + 1)[..., :classes]
        total = total + depth.nan_to_num(0.0)
        count = count + depth.isfinite()
    majority, mean_depth = votes.argmax(-1), total / count.clamp_min(1)
    confusion, metrics = ConfusionMatrix(classes), DepthMetrics()
    for index in range(len(test)):
        sample = test[index].read([0])
        confusion.update(majority[None], sample.segmentation[:1].long())
        metrics.update(mean_depth[None], sample.depth[:1, 0])
    values = {
        "semantic_segmentation": confusion.compute()["mean_iou"],
        "depth_estimation": metrics.compute()["delta1"],
    }
    how = {
        "semantic_segmentation": f"the commonest class per position over {used} training frames",
        "depth_estimation": f"the mean depth per position over {used} training frames",
    }
    rows = {task: {"metric": METRICS[task], "value": value, "how": how[task]} for task, value in values.items()}
    text = ", ".join(f"{METRICS[task]} {100 * value:.1f} %" for task, value in values.items())
    return {"floors": rows, "headline": text}
