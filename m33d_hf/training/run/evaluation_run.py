"""`--eval_only`: evaluate a trained model on the evaluation data, with every weight from `init_from`, and stop."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedConfig

from m33d_hf.acceleration import place
from m33d_hf.data.files.markers import file_digest
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.data.files.skips import count_skipped
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.processes.guards import output_lock
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.recipe.differences import flatten
from m33d_hf.training.run.loaders import build_eval_feed, list_left_out
from m33d_hf.training.run.metric_names import eval_name
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.run.reporting import CONFIG, provenance
from m33d_hf.training.run.seen_videos import seen_again
from m33d_hf.training.run.stepping import seed_step
from m33d_hf.training.showing.report import RunStory
from m33d_hf.training.showing.showing import Showing
from m33d_hf.training.showing.stale import remove_shown
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.class_numbers import numbers_changed
from m33d_hf.training.tasks.input_rounds import evaluation_rounds, settle_inputs
from m33d_hf.weights import config_for, load_foreign
from m33d_hf.weights.formats.classes import class_names
from m33d_hf.weights.own import find_own

RESULTS = "eval_results.json"
EVALUATION = "evaluation"  # the folder beside a training for its evaluations, which publishing reads
# What changes how samples look: said where it is not as it was in training.
_LOOKS = (
    "data.source",
    "data.frame_stride",
    "data.clip_sampling",
    "transforms.eval_crop",
    "transforms.resize_mode",
)
# What a trained model is; the rest of its config.json is the library's.
_FIELDS = frozenset(M33DConfig.__dataclass_fields__) - frozenset(PreTrainedConfig.__dataclass_fields__)


def evaluate_run(args: RunArguments, task: Task) -> dict[str, float]:
    """Evaluate the model of `args.init_from`; prints the metrics and writes eval_results.json into `output_dir`.

    The model is the trained one, configuration and classes included; `model` fields given by the arguments take
    precedence, and a line reports those that differ from the trained ones. Works under torchrun and accelerate launch:
    every sample counts once, whatever the number of processes.

    Returns:
        The task's metrics, the same on every rank.

    Raises:
        ConfigError: no `init_from`, no evaluation data, or an `output_dir` that is the folder of a training.
        CheckpointError: `init_from` cannot be read, does not fit, or lacks weights of the model.
        DataError: evaluation data that cannot be used, or too many unusable files.
    """
    refuse_to_overwrite(args)
    with ExitStack() as stack:
        accelerator = stack.enter_context(open_accelerator(args))
        if accelerator.is_main_process:
            stack.enter_context(output_lock(args.output_dir))
        ranks = Ranks(accelerator)
        args, notes = as_trained(args)
        model = build_model(args, task)
        check_all_loaded(task, args)
        rounds = evaluation_rounds(args, task, model)
        datasets = rounds.datasets(args, model)
        dataset = datasets[rounds.main]
        warnings = known_data(args, task, model, dataset)
        ranks.on_main(lambda: print("".join(f"{line}\n" for line in warnings), end="", file=sys.stderr, flush=True))
        ranks.on_main(lambda: list_left_out(args, [dataset]))
        ranks.on_main(lambda: remove_shown(args.output_dir))  # of an evaluation that was here before
        place(model, accelerator.device).eval()
        started = time.perf_counter()
        judges = rounds.judges()
        rows = [
            _judged(args, judge, model, data, ranks, accelerator) for judge, data in zip(judges, datasets, strict=True)
        ]
        task, metrics = judges[rounds.main], rows[rounds.main]
        batch = task.evaluation_batch(args)
        results = _results(args, metrics, len(dataset), batch, ranks.size, time.perf_counter() - started)
        results |= _about(args, accelerator.device) | {"warnings": warnings}
        results |= rounds.results(rows)
        showing = Showing(args, task, model, accelerator, dataset, dataset)
        showing.evaluated(model, 0, last=True)
        logged = [{"kind": "eval", "step": 0, **{eval_name(name): value for name, value in metrics.items()}}]
        told = [*notes, f"{plural(len(dataset), 'sample')}."]
        story = RunStory(args, "evaluated", 0, 0, logged, told, warnings=warnings, by_inputs=rounds.named(rows))
        showing.report(story)
        notes += task.estimates(args, model)
        closing = [*task.closing_lines(metrics), *rounds.lines(rows)]
        ranks.on_main(lambda: _write(results, args, notes, closing))
        return metrics


def beside_training(output_dir: str) -> str | None:
    """Where an evaluation goes that would otherwise be written into the folder of a training; None where it is none."""
    return str(Path(output_dir) / EVALUATION) if (Path(output_dir) / CONFIG).is_file() else None


def refuse_to_overwrite(args: RunArguments) -> None:
    """Keep an evaluation out of the folder of a training, whose report.html and pictures it would replace.

    Raises:
        ConfigError: `output_dir` is such a folder.
    """
    beside = beside_training(args.output_dir)
    if beside is not None:
        raise ConfigError(
            f"--output_dir {args.output_dir} is the folder of a training: an evaluation would replace its report.html "
            f"and its pictures. Pass --output_dir {beside}."
        )


def _judged(
    args: RunArguments, task: Task, model: nn.Module, dataset: SampleDataset, ranks: Ranks, accelerator: Accelerator
) -> dict[str, float]:
    """The metrics of a task over the evaluation data."""
    feed = build_eval_feed(args, task, model, dataset, ranks)
    try:
        seed_step(args.seed, -1, ranks.rank)
        with torch.no_grad():
            found = task.evaluate(model, feed, accelerator)
        feed.check(ranks)
    finally:
        feed.close()
    return {name.removeprefix("eval/"): float(value) for name, value in found.items()}


def as_trained(args: RunArguments) -> tuple[RunArguments, list[str]]:
    """A copy of the arguments whose `model` is completed from the trained one, and lines about differences.

    Raises:
        ConfigError: no `init_from`, or `model.num_labels` that is not the trained model's.
        CheckpointError: `init_from` cannot be read, or does not have an input that is asked for.
    """
    if args.init_from is None:
        raise ConfigError(
            "--eval_only evaluates the weights of --init_from: pass the output folder of a trained model."
        )
    trained, names = _trained(args.init_from, args)
    said = dict(args.model)
    if names is not None:
        if said.pop("num_labels", len(names)) != len(names):
            raise ConfigError(
                f"model.num_labels is {args.model['num_labels']}, but the model of {args.init_from} has "
                f"{plural(len(names), 'class')}; remove --model.num_labels."
            )
        trained |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    notes = [
        f"model.{name} is {value!r} here but {trained[name]!r} in {args.init_from}"
        for name, value in said.items()
        if name in trained and name != "modalities" and not same_setting(trained[name], value)
    ]
    notes += _other_looks(args, trained)
    changed = copy.deepcopy(args)
    changed.model = {**trained, **said}
    settle_inputs(changed, trained)
    return changed, notes


def _trained(init_from: str, args: RunArguments) -> tuple[dict[str, Any], list[str] | None]:
    """Configuration fields of a checkpoint, ours or foreign, and its classes (None where it names none)."""
    own = find_own(init_from)
    if own is not None:
        labels = own.config.get("id2label")
        fields = {name: value for name, value in own.config.items() if name in _FIELDS}
    else:
        foreign = load_foreign(init_from, args.init.stated())
        labels = foreign.config.get("id2label")
        fields = config_for(foreign, init_decoder=False, given=args.model)
    names = class_names(labels)
    if names is None and isinstance(labels, Mapping):
        fields["num_labels"] = len(labels)
    return fields, names


def _other_looks(args: RunArguments, trained: Mapping[str, Any]) -> list[str]:
    """Lines about how the samples differ from those in training, as far as `init_from` tells."""
    folder = Path(str(args.init_from)).expanduser()
    # A checkpoint lies in OUTPUT/checkpoints/NAME.
    config = next((path for path in (folder / CONFIG, folder.parent.parent / CONFIG) if path.is_file()), None)
    before: dict[str, Any] = {}
    if config is not None:
        try:
            before = flatten(read_sealed_json(config)["args"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return [f"{config} cannot be read ({error!r}): it is unknown whether samples are prepared as in training"]
    elif trained.get("num_frames", 1) > 1 and "temporal_frame_stride" in trained:
        before = {"data.frame_stride": trained["temporal_frame_stride"]}
    now = flatten(args.to_dict())
    return [
        f"{key} is {now[key]!r} here but was {before[key]!r} in training"
        for key in _LOOKS
        if key in before and before[key] != now[key]
    ]


def known_data(args: RunArguments, task: Task, model: nn.Module, dataset: SampleDataset) -> list[str]:
    """Warnings about evaluation videos that the model was trained on, and about numbers that mean other classes than in
    training.

    Raises:
        CheckpointError: a file about them beside the model is damaged.
    """
    table = task.class_table(model, dataset)
    other = [] if table is None else numbers_changed(args.init_from, table)
    return seen_again(args.init_from, dataset) + other


def check_all_loaded(task: Task, args: RunArguments) -> None:
    """Refuse to evaluate a model with untrained weights.

    Raises:
        CheckpointError: `init_from` lacks weights of the model; the message gives the reason for each part.
    """
    report = task.load_report
    fresh = {} if report is None else report.new
    if report is not None and not fresh:
        return
    reasons: dict[str, str] = {}
    for name, reason in fresh.items():
        reasons.setdefault(name.split(".")[0] if not name.startswith("m33d.") else name, reason)
    listed = "; ".join(f"{part}: {reason}" for part, reason in list(reasons.items())[:4])
    raise CheckpointError(
        f"{args.init_from} lacks {plural(len(fresh), 'weight')} of the {task.name} model "
        f"({listed or 'nothing was loaded'}). "
        "Untrained weights are never evaluated: set --init_from to the output folder (or checkpoints/best) of a run of "
        f"{task.name}, or train first."
    )


def _results(
    args: RunArguments, metrics: Mapping[str, float], samples: int, batch: int, processes: int, seconds: float
) -> dict[str, Any]:
    data = args.data
    return {
        "task": args.task,
        "init_from": args.init_from,
        "source": data.source,
        "root": data.eval_root or data.root,
        "split": "all" if data.eval_root is not None else data.eval_split,
        "samples": samples,
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "num_segments": args.evaluation.num_segments,
        "num_crops": args.evaluation.num_crops,
        "batch_size": batch,
        "num_processes": processes,
        "seconds": round(seconds, 3),
        **provenance(),
    }


def _about(args: RunArguments, device: torch.device) -> dict[str, Any]:
    """What tells whose numbers these are: seed, protocol, hardware (no name of a machine), digests of the weights."""
    own = find_own(str(args.init_from))
    return {
        "seed": args.seed,
        "eval_crop": args.transforms.eval_crop,
        "depth_protocol": args.evaluation.depth_protocol,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "weights": None if own is None else {path.name: file_digest(path) for path in own.files},
    }


def _write(results: dict[str, Any], args: RunArguments, notes: list[str], closing: list[str]) -> None:
    path = Path(args.output_dir) / RESULTS
    try:
        write_sealed_json(path, results)
    except OSError as error:
        raise CheckpointError(f"Could not write {path}: {error}; free some disk space.") from error
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    listed = count_skipped(args.output_dir)
    if listed:
        print(listed, file=sys.stderr)
    for name, value in results["metrics"].items():
        print(f"{name}: {'nothing to measure' if value is None else format(value, '.4f')}")
    print("".join(f"{line}\n" for line in closing), end="")
    print(f"{plural(results['samples'], 'sample')}; results are in {path}", flush=True)
