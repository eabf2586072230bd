"""What two runs' arguments have in common: may one continue the other, and may their evaluations be compared?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.training.recipe.arguments import RunArguments, evaluation_batch
from m33d_hf.training.recipe.recipes import merge
from m33d_hf.training.recipe.task_names import PRETRAINING

# May differ between a run and its continuation: they change where and how it is computed and told, not what.
# Batch, accumulation and processes may be traded against each other: their product is compared instead.
FREE = (
    "output_dir",
    "resume",
    "replay",
    "dry_run",
    "recipe",
    "method",
    "num_processes",
    "cpu",
    "cpu_threads",
    "data.root",
    "data.eval_",
    "data.max_eval_samples",
    "data.num_workers",
    "data.prefetch_factor",
    "data.keep_decoded_gb",
    "data.cache_dir",
    "data.max_bad_fraction",
    "features.dir",
    "features.format",
    "train.batch_size",
    "train.accumulation",
    "train.compile",
    "train.compile_mode",
    "train.compile_backend",
    "train.grad_checkpointing",
    "train.sharding",
    "evaluation.",
    "checkpoint.",
    "logging.",
    "hub.",
)
# A resumed run may be evaluated on other data or by another protocol; its figures are then not those of before.
_JUDGING = ("data.eval_", "data.max_eval_samples", "evaluation.")
_DEPTH = "depth_estimation"
# Of these, what decides when and what is evaluated besides, not what an evaluation finds.
_CADENCE = (
    "evaluation.every_",
    "evaluation.at_end",
    "evaluation.floor",
    "evaluation.diagnostics",
    "evaluation.inputs",
    "evaluation.metric",
    "evaluation.greater_is_better",
)


def free_between_evaluations(args: Mapping[str, Any]) -> list[str]:
    """Arguments, or beginnings of their names, that may differ between runs whose evaluations are compared; `args` are
    those of one of them, as nested dicts."""
    free = [*(key for key in FREE if key not in _JUDGING), *_CADENCE]
    return free if _batches_decide(args) else [*free, "evaluation.batch_size"]


def _batches_decide(args: Mapping[str, Any]) -> bool:
    """Whether the metric that judges a run depends on which samples an evaluation puts into one batch."""
    if args.get("task") != _DEPTH:
        return args.get("task") == PRETRAINING  # whose negatives and mismatched pairs are samples of the batch
    evaluation, model = args.get("evaluation") or {}, args.get("model") or {}
    if evaluation.get("metric") in ("loss", "eval/loss"):
        return bool(model.get("depth_loss", M33DConfig.depth_loss) == "berhu")  # its threshold is that of the batch
    return bool(evaluation.get("depth_protocol") == "exact_multimae")  # a mean over batches


def recipe_differences(before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str] = FREE) -> list[str]:
    """Lines "key: before -> now" for every argument outside `free` that differs; arguments as nested dicts.

    Fields that the arguments, or an entry of `model.modalities`, leave out have their defaults, so that checkpoints
    older than a field can be resumed; `evaluation.batch_size` is what null stands for.
    """
    old, new = flatten(_spelt_out(before)), flatten(_spelt_out(now))
    absent = "(absent)"
    return [
        f"{key}: {old.get(key, absent)} -> {new.get(key, absent)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
        and not _named(key, free)
        and not any(_only_free(key, *pair, free) for pair in ((old, new), (new, old)))
    ]


def _only_free(key: str, one: Mapping[str, Any], other: Mapping[str, Any], free: Sequence[str]) -> bool:
    """Whether `key` is an empty dict in `one`, and its entries in `other` are all free."""
    entries = [name for name in other if name.startswith(f"{key}.")]
    return one.get(key) == "{}" and bool(entries) and all(_named(name, free) for name in entries)


def _spelt_out(given: Mapping[str, Any]) -> Mapping[str, Any]:
    args = merge(RunArguments().to_dict(), dict(given))
    model, evaluation, train = args["model"], args["evaluation"], args["train"]
    if isinstance(evaluation, Mapping) and isinstance(train, Mapping):  # else no run has written them
        batch = evaluation_batch(args["task"], evaluation["batch_size"], train["batch_size"])
        args = {**args, "evaluation": {**evaluation, "batch_size": batch}}
    if not isinstance(model, Mapping) or not isinstance(model.get("modalities"), list):
        return args
    fields = dataclasses.fields(ModalitySpec)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    entries = [dict(sorted({**defaults, **entry}.items())) for entry in model["modalities"]]
    return {**args, "model": {**model, "modalities": entries}}


def _named(key: str, names: Sequence[str]) -> bool:
    return any(key == name or (name[-1] in "._" and key.startswith(name)) for name in names)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict to dotted keys; values that trackers cannot hold become text.

    Keys that are no text (`label_map: {0: 0}`) are written as JSON writes them, so that a tree and what a file has
    kept of it are equal.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = prefix + (name if isinstance(name, str) else json.dumps(name))
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{key}."))
        else:
            plain = isinstance(value, int | float | str | bool)
            flat[key] = value if plain else json.dumps(value, default=str)
    return flat
