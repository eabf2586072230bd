"""The dry run: prints configuration, sizes and costs of a run, and checks the first samples."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.measuring.first_look import describe_look, first_look
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.plural import plural
from m33d_hf.errors import DataError
from m33d_hf.evaluation.flops import TASKS as COUNTED
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import visible_count
from m33d_hf.training.processes.checkpoints import find_checkpoints
from m33d_hf.training.processes.guards import refuse_in_use
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.recipes import leaves
from m33d_hf.training.run.evaluation_run import as_trained, check_all_loaded, known_data, refuse_to_overwrite
from m33d_hf.training.run.loaders import overlap_lines
from m33d_hf.training.run.memory import estimate_memory
from m33d_hf.training.run.metric_names import check_metric
from m33d_hf.training.run.plan import RunPlan, plan_run
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.run.resume import compared_facts, look_ahead, refuse_used_folder, run_facts
from m33d_hf.training.run.stepping import loss_weights
from m33d_hf.training.run.trial import measured_cost
from m33d_hf.training.settling.settle import shorter
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.input_rounds import evaluation_rounds

SAMPLES_COLLATED = 2
GIB = 1024**3


def dry_run(
    args: RunArguments, task: Task, origins: dict[str, str] | None = None, left: Collection[str] = frozenset()
) -> str:
    """Describe the run and check its first samples; does not train and writes nothing to output_dir.

    Args:
        args: the resolved arguments.
        task: what would be trained.
        origins: dotted key -> layer that set it, printed beside the value.
        left: dotted keys that a trial run before this one would decide; its steps are part of the cost.

    Raises:
        ConfigError, DataError, CheckpointError: any error that would stop the run at its start.
    """
    if args.eval_only:
        return _lines(_evaluation_sections(args, task, origins or {}))
    refuse_in_use(args.output_dir)
    refuse_used_folder(args)
    model = build_model(args, task)
    config = config_of(model)
    check_metric(args, task, model)
    train_set, eval_set = task.build_datasets(args, model)
    world = args.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
    plan = plan_run(args, len(train_set), world)
    sections = {
        "arguments": [
            *_describe_arguments(args, origins or {}),
            *(f"{key}: auto   (chosen by a trial before the run)" for key in sorted(left)),
        ],
        "model": [
            *describe_parameters(model),
            *describe_tokens(config, task.hides_tokens),
            *_describe_operations(config, args),
        ],
        "run": [
            *plan.describe(args, world),
            *task.describe(args, model, train_set),
            *overlap_lines(args, train_set, eval_set),
            *_continued(args, task, model, train_set, plan, world),
        ],
        "training data": check_first_samples(args, task, model, train_set, train=True),
    }
    if eval_set is not None:
        judged = check_first_samples(args, task, model, eval_set, train=False)
        told = {line for line in sections["training data"] if line.startswith("note: ")}  # of files that both share
        sections["evaluation data"] = [line for line in judged if line not in told]
    cost = measured_cost(args, task, model, train_set, eval_set, plan, world)  # last, as it trains the model
    if isinstance(cost, str):
        sections["cost"] = [cost, _estimated_memory(task, model, args, train_set)]
    else:
        sections["cost"] = replace(cost, trial_steps=shorter(plan.total_steps) if left else 0).lines()
    return _lines(sections)


def _continued(
    args: RunArguments, task: Task, model: nn.Module, train_set: SampleDataset, plan: RunPlan, world: int
) -> list[str]:
    """The checkpoint that the run would go on from, if any.

    Raises:
        ResumeError: none can be used, or they are of a run with another recipe.
    """
    folders = find_checkpoints(args.resume, args.output_dir)
    if not folders:
        return []
    known = task.knows_digest(train_set)
    facts = run_facts(args, task.data_digest(train_set) if known else None, plan, world, train_set.indices)
    facts = compared_facts(facts, task.former_digest(train_set) if known else None)
    return [f"continues from {look_ahead(folders, len(loss_weights(model)), facts)}"]


def _evaluation_sections(args: RunArguments, task: Task, origins: dict[str, str]) -> dict[str, list[str]]:
    """What `--eval_only` would judge; training data and plan play no part."""
    refuse_to_overwrite(args)
    args, notes = as_trained(args)
    model = build_model(args, task)
    check_all_loaded(task, args)
    rounds = evaluation_rounds(args, task, model)
    task, dataset = rounds.reader, rounds.datasets(args, model)[rounds.main]
    return {
        "arguments": _describe_arguments(args, origins),
        "model": [*describe_parameters(model), *describe_tokens(config_of(model), task.hides_tokens), *notes],
        "evaluation data": [
            *check_first_samples(args, task, model, dataset, train=False),
            *known_data(args, task, model, dataset),
        ],
    }


def _lines(sections: dict[str, list[str]]) -> str:
    lines = []
    for title, body in sections.items():
        lines += [f"== {title}", *(f"  {line}" for text in body for line in text.splitlines())]
    return "\n".join(lines)


def _describe_arguments(args: RunArguments, origins: dict[str, str]) -> list[str]:
    """Every key with its value, and where it comes from unless it is a default."""
    lines = []
    for key, value in leaves(args.to_dict()):
        if key == "model.modalities":
            for entry in value:
                said = {name: v for name, v in entry.items() if v is not None}
                lines.append(f"modalities.{entry['name']}: {json.dumps(said)}")
            continue
        origin = f"   ({origins[key]})" if key in origins else ""
        lines.append(f"{key}: {json.dumps(value)}{origin}")
    return lines


def describe_parameters(model: nn.Module) -> list[str]:
    """Parameters per part: each encoder and embedding by itself, decoder, heads."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        words = name.removeprefix("m33d.").split(".")
        part = ".".join(words[:2]) if words[0] in ("embeddings", "encoders") else words[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    lines = [f"{part}: {number:,}" for part, number in parts.items()]
    return [f"parameters: {sum(parts.values()):,}", *(f"  {line}" for line in lines)]


def describe_tokens(config: M33DConfig, hidden: bool) -> list[str]:
    """Tokens per modality, visible and masked; where none are `hidden`, those of RGB."""
    frames, height, width = config.grid
    grid = f"{frames} x {height} x {width}"
    if not hidden:
        return [f"tokens: rgb {config.num_tokens} (grid {grid}), all visible"]
    lines = [f"tokens: {config.num_tokens} per modality (grid {grid})"]
    if config.token_budget is not None:
        names = ", ".join(spec.name for spec in config.input_specs)
        targets = ", ".join(spec.name for spec in config.target_specs)
        budget = config.budget_for(config.grid)
        return [
            *lines,
            f"  {budget} visible for {names} together, split differently for every sample; predicted: {targets}",
        ]
    for spec in config.specs:
        visible = visible_count(spec, config.grid)
        fate = "predicted" if spec.is_target else "not predicted"
        lines.append(f"  {spec.name}: {visible} visible, {config.num_tokens - visible} masked and {fate}")
    return lines


def _estimated_memory(task: Task, model: nn.Module, args: RunArguments, dataset: SampleDataset) -> str:
    """Where steps cannot be tried."""
    weights, activations = estimate_memory(task, model, args, getattr(dataset, "longest", 1))
    return (
        f"memory: about {(weights + activations) / GIB:.2g} GiB per process ({weights / GIB:.2g} weights, gradients and"
        f" AdamW, {activations / GIB:.2g} activations of {args.train.batch_size * args.data.num_views} samples; an"
        " estimate)"
    )


def _describe_operations(config: M33DConfig, args: RunArguments) -> list[str]:
    if args.task not in COUNTED:
        return []
    training = flops_per_sample(config, args.task, batch_size=args.train.batch_size)
    forward = flops_per_sample(config, args.task, training=False, batch_size=args.train.batch_size)
    return [f"cost: {training / 1e9:.4g} GFLOP per sample forward and backward, {forward / 1e9:.4g} forward"]


def check_first_samples(
    args: RunArguments, task: Task, model: nn.Module, dataset: SampleDataset, train: bool
) -> list[str]:
    """Read frames across the source, then transform and collate the first samples as training would.

    Raises:
        DataError: the first samples cannot be used.
    """
    patch = min(config_of(model).patch_height_width)
    covered = 1 if dataset.num_frames == 1 else dataset.num_frames * dataset.frame_stride
    subject = Subject("train" if train else "evaluation", dataset.source, len(dataset.source), covered, patch)
    lines = [f"{plural(len(dataset), 'sample')} in use", *describe_look(subject, first_look(subject))]
    rows = [(0, index) for index in range(min(SAMPLES_COLLATED, len(dataset)))]
    batch: dict[str, Any] = task.build_collator(args, model, train)([dataset[row] for row in rows])
    keys = batch.get("meta", {}).get("keys", [])
    if not keys:
        skipped = batch.get("meta", {}).get("skipped", [])
        why = f" The first: {skipped[0].path}: {skipped[0].bare_reason}" if skipped else ""
        raise DataError(
            f"None of the first {plural(len(rows), 'sample')} can be read; check --data.root and the file format.{why}"
        )
    shapes = [f"{name} {tuple(value.shape)}" for name, value in batch.items() if hasattr(value, "shape")]
    first = ", ".join(map(str, dict.fromkeys(keys)))  # views of one video share its key
    return [*lines, f"first batch of {len(keys)}: {', '.join(shapes)}", f"first keys: {first}"]
