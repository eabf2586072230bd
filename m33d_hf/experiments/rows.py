"""What the training jobs do in their worker processes; every function returns a JSON dict, the row."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.acceleration import place
from m33d_hf.data.files.parenthood import end_with
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import M33DError
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.evaluation.loss_floors import constant_floors, loss_floors
from m33d_hf.experiments.collected import kept
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.prior.choosing import with_prior_weight
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments, resolve
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.run.resume import make_room
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import Task, to_device
from m33d_hf.training.tasks.dense import DenseTask
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask
from m33d_hf.training.tasks.task_inputs import can_be_fused
from m33d_hf.training.tasks.video_classification import VideoClassificationTask
from m33d_hf.visualization.reconstruction import output_views, rgb_image

Row = dict[str, Any]
# Of an encoder, beside the sizes of its pictures and patches.
ENCODER = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_frames", "tubelet_size")
DENSE: dict[str, type[DenseTask]] = {task.name: task for task in (DepthEstimationTask, SemanticSegmentationTask)}
OTHERS: tuple[type[Task], ...] = (PretrainingTask, VideoClassificationTask, ActionDetectionTask)
TASKS: dict[str, type[Task]] = {**DENSE, **{task.name: task for task in OTHERS}}
FLOOR_SAMPLES = 400  # of the evaluation data, at most, from which the floors of losses are told
# The one metric of a dense task that its tables show.
METRICS = {"depth_estimation": "delta1", "semantic_segmentation": "miou"}


def start_worker(parent: int) -> None:
    """Once per worker: one thread, freed memory kept for all that follows, and an end when the parent is gone.

    `parent` is told, not asked for: it may be gone before this is called.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    end_with(parent)


def pretrain(
    argv: Sequence[str],
    output_dir: str,
    steps: int,
    picture: str | None = None,
    folder: str = "",
    pictures: int = 0,
) -> Row:
    """One stage of a pre-training, evaluated at its end on the split of its command (losses and diagnostics)."""
    args = parse_arguments([*argv, "--output_dir", output_dir], "pretraining")
    result, seconds = _timed_training(args)
    model = M33DForPreTraining.from_pretrained(output_dir)
    batch = args.train.batch_size * args.train.accumulation
    floors = constant_floors(model, _first_batch(model, PretrainingTask(), args, FLOOR_SAMPLES))
    if picture:
        _save_reconstructions(model, PretrainingTask(), args, pictures, Path(folder) / picture)
    return {
        **_cost(args, seconds, flops_per_sample(model.config, "pretraining", batch_size=batch)),
        "stage": args.stage,
        "curve": _loss_curves(result.history),
        "diagnostics": _plain(result.metrics),
        "loss_floors": {**floors, **loss_floors(model.config)},
        "encoder_parameters": _rgb_parameters(model),
        "image_size": list(model.config.image_height_width),
        "picture": picture,
        "headline": f"{args.data.eval_split} loss {result.metrics['eval/loss']:.3f}",
    }


def dense(
    task: str,
    argv: Sequence[str],
    test_argv: Sequence[str],
    output_dir: str,
    steps: int,
    picture: str | None = None,
    folder: str = "",
    pictures: int = 0,
    inputs: Sequence[Sequence[str]] | None = None,
) -> Row:
    """One fine-tuning: validated while training for the curve, its last weights evaluated once on test.

    With `inputs` they are evaluated with each of these input sets that the model has, and "metrics" also holds
    "rgb+depth/miou" and so on.
    """
    args, name = parse_arguments([*argv, "--output_dir", output_dir], task), METRICS[task]
    result, seconds = _timed_training(args)
    model = DENSE[task].model_class.from_pretrained(output_dir).eval()
    metrics, test_args = _tested(test_argv, output_dir, task, inputs)
    if picture:
        _save_predictions(model, TASKS[task](), test_args, pictures, Path(folder) / picture)
    validation = [row for row in result.history if row["kind"] == "eval"]
    return {
        **_cost(args, seconds, flops_per_sample(model.config, task)),
        "metric": name,
        "value": metrics[name],
        "metrics": metrics,
        "curve": [[row["step"], row[f"eval/{name}"]] for row in validation],
        "picture": picture,
        "headline": f"{test_args.data.eval_split} {name} {100 * metrics[name]:.1f} %",
    }


def trained(task: str, argv: Sequence[str], output_dir: str, steps: int) -> Row:
    """One run of any one-stage task by a user's own command, with the metrics of its last evaluation."""
    result, seconds = _by_command(task, argv, output_dir)
    told = json.loads((Path(output_dir) / "train_config.json").read_text(encoding="utf-8"))
    found: Row = {"steps": steps, "seconds": seconds, "metrics": _plain(result.metrics), **_seen(output_dir)}
    if task == PretrainingTask.name:
        config = M33DForPreTraining.from_pretrained(output_dir).config
        batch = int(told["plan"]["effective_batch"])
        flops = flops_per_sample(config, task, batch_size=batch) * batch * steps
        found |= {"flops": flops, "loss_floors": loss_floors(config)}
    return {**found, "headline": f"{task} done"}


def trained_in_stages(clip_argv: Sequence[str], temporal_argv: Sequence[str], output_dir: str, steps: int) -> Row:
    """Both stages of phase detection by a user's own commands, with the metrics of the second one's last evaluation."""
    clip_dir, temporal_dir = str(Path(output_dir) / "clips"), str(Path(output_dir) / "temporal")
    _, first = _by_command(VideoClassificationTask.name, clip_argv, clip_dir)
    words = [*temporal_argv, "--init_from", clip_dir]
    result, second = _by_command(ActionDetectionTask.name, words, temporal_dir)
    shutil.rmtree(Path(temporal_dir) / "features", ignore_errors=True)  # many rows: keep the disk small
    found: Row = {"steps": steps, "seconds": first + second, "metrics": _plain(result.metrics), **_seen(clip_dir)}
    return {**found, "headline": "phases done"}


def _seen(output_dir: str) -> Row:
    """What a run was trained on, and its encoder: what a comparison of starts and of amounts of labels rests on."""
    data = json.loads((Path(output_dir) / "train_config.json").read_text(encoding="utf-8"))["data"]
    counted = kept(data, "samples", "samples_in_source", "sequences", "videos", "videos_in_source")
    return {"data": counted, "encoder": encoder_facts(M33DConfig.from_pretrained(output_dir))}


def encoder_facts(config: M33DConfig) -> Row:
    """The sizes of an encoder, by which starts are compared."""
    encoder: Row = {name: getattr(config, name) for name in ENCODER}
    return encoder | {"image_size": list(config.image_height_width), "patch_size": list(config.patch_height_width)}


def _by_command(task: str, argv: Sequence[str], output_dir: str) -> tuple[TrainResult, float]:
    """Train as the task's script does: what the recipe leaves to the data and the machine is decided first."""
    settled = settle(resolve([*argv, "--output_dir", output_dir], task))
    make_room(settled.args)  # before the trial, which looks at the folder as the run does
    return _timed_training(with_prior_weight(settled).args)


def actions(
    argv: Sequence[str],
    test_argv: Sequence[str],
    output_dir: str,
    steps: int,
    inputs: Sequence[Sequence[str]] | None = None,
) -> Row:
    """One fine-tuning on motion classes, its last weights evaluated on the test clips; `inputs` as of `dense`."""
    _, seconds = _timed_training(parse_arguments([*argv, "--output_dir", output_dir], "video_classification"))
    metrics, test_args = _tested(test_argv, output_dir, "video_classification", inputs)
    return {
        "steps": steps,
        "seconds": seconds,
        "metrics": metrics,
        "folder": test_args.output_dir,
        "headline": f"{test_args.data.eval_split} top-1 {100 * metrics['top1']:.1f} %",
    }


def phases(
    clip_argv: Sequence[str],
    temporal_argv: Sequence[str],
    output_dir: str,
    steps: int,
    inputs: Sequence[Sequence[str]] | None = None,
) -> Row:
    """Both stages of phase detection; the second evaluates on the test videos, clip by clip and over the video.

    `inputs` is that of `dense`.
    """
    clip_dir, temporal_dir = str(Path(output_dir) / "clips"), str(Path(output_dir) / "temporal")
    _, first = _timed_training(parse_arguments([*clip_argv, "--output_dir", clip_dir], "video_classification"))
    words = [*temporal_argv, "--init_from", clip_dir, "--output_dir", temporal_dir]
    args = parse_arguments(words, "action_detection")
    result, second = _timed_training(args)
    metrics = _plain(result.metrics)
    if inputs is not None:
        metrics, _ = _tested(temporal_argv, temporal_dir, "action_detection", inputs)
        shutil.rmtree(Path(temporal_dir) / "test" / "features", ignore_errors=True)
    shutil.rmtree(Path(temporal_dir) / "features", ignore_errors=True)  # many rows: keep the disk small
    return {
        "steps": steps,
        "seconds": first + second,
        "metrics": metrics,
        "folder": temporal_dir,
        "headline": f"{args.data.eval_split} mAP {100 * metrics['clipwise/map']:.1f} % by clip,"
        f" {100 * metrics['map']:.1f} % by video",
    }


def probe(argv: Sequence[str], output_dir: str) -> Row:
    """k-NN and linear probe on frozen features."""
    from m33d_hf.training.probes.clips import probe_run

    args = parse_arguments([*argv, "--output_dir", output_dir], "video_classification")
    started = time.perf_counter()
    metrics = probe_run(args)
    headline = f"k-NN {100 * metrics['knn/top1']:.1f} %, linear {100 * metrics['linear/top1']:.1f} %"
    return {"steps": 0, "seconds": time.perf_counter() - started, "metrics": metrics, "headline": headline}


def _timed_training(args: RunArguments) -> tuple[TrainResult, float]:
    started = time.perf_counter()
    # Of a row that was stopped after its training, which left nothing to go on from: it is this row's own, as other
    # settings have another folder (`run_folder`), and is made again.
    make_room(args)
    result = train(args, TASKS[args.task]())
    if result.interrupted_by is not None:
        raise M33DError(
            f"stopped by signal {result.interrupted_by} at step {result.step}; run the same command again to continue"
        )
    return result, time.perf_counter() - started


def _tested(
    argv: Sequence[str], output_dir: str, task: str, inputs: Sequence[Sequence[str]] | None = None
) -> tuple[dict[str, float], RunArguments]:
    """Metrics of the run in `output_dir` on the split of the command, which a user would give.

    With `inputs` also those of every such input set that the model can be given, which begin with its names.
    """
    words = ["--init_from", output_dir, "--eval_only", "true", "--output_dir", str(Path(output_dir) / "test")]
    seen, sets = set(), []
    if inputs is not None:
        config = M33DConfig.from_pretrained(output_dir)
        seen = set(config.task_input_names)
        sets = [list(names) for names in inputs if set(names) <= seen and can_be_fused(names, config)]
    if len(seen) > 1:
        words += ["--evaluation.inputs", json.dumps(sets)]
    args = parse_arguments([*argv, *words], task)
    metrics = _plain(evaluate_run(args, TASKS[task]()))
    if len(seen) == 1:
        return metrics | _named(sets[0], metrics), args
    found = read_sealed_json(Path(args.output_dir) / "eval_results.json")["by_inputs"] if sets else []
    for row in found:
        metrics |= _named(row["inputs"], row["metrics"])
    return metrics, args


def _named(names: Sequence[str], metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{'+'.join(names)}/{name}": float(value) for name, value in metrics.items()}


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics by their own names."""
    return {name.removeprefix("eval/"): float(value) for name, value in metrics.items()}


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


def _first_batch(model: Any, task: Task, args: RunArguments, count: int) -> dict[str, Any]:
    """The first `count` test frames as forward arguments. A few pictures are drawn on the CPU, whatever trained."""
    dataset: SampleDataset | None = task.build_datasets(args, model)[1]
    assert dataset is not None, "floors and pictures require an evaluation split"
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
