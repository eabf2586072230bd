"""Continuing a run: what must be the same, and putting everything back where it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from m33d_hf.errors import ResumeError
from m33d_hf.modeling.configuration_m33d import ModalitySpec
from m33d_hf.training.checkpoints import read_average, read_optimizer, read_state, read_weights
from m33d_hf.training.ema import WeightAverage
from m33d_hf.training.plan import RunPlan
from m33d_hf.training.reporting import flatten
from m33d_hf.training.stepping import StepEngine

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
)


def recipe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "key: before -> now" for every argument outside `FREE` that differs; arguments as nested dicts.

    What an entry of `model.modalities` leaves out has its default, so that checkpoints older than a field continue.
    """
    old, new = flatten(_spelt_out(before)), flatten(_spelt_out(now))
    absent = "(absent)"
    return [
        f"{key}: {old.get(key, absent)} -> {new.get(key, absent)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent) and not _free(key)
    ]


def _spelt_out(args: Mapping[str, Any]) -> Mapping[str, Any]:
    model = args.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("modalities"), list):
        return args
    fields = dataclasses.fields(ModalitySpec)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    entries = [dict(sorted({**defaults, **entry}.items())) for entry in model["modalities"]]
    return {**args, "model": {**model, "modalities": entries}}


def _free(key: str) -> bool:
    return any(key == free or (free[-1] in "._" and key.startswith(free)) for free in FREE)


def check_resumable(state: Mapping[str, Any], folder: Path, now: Mapping[str, Any]) -> None:
    """Compare a checkpoint's facts ("args", "data_digest", "effective_batch") with those of the run that resumes.

    Raises:
        ResumeError: something that decides the result differs; every difference is listed.
    """
    differences = recipe_differences(state["args"], now["args"])
    differences += [
        f"{key}: {state[key]} -> {now[key]}" for key in ("data_digest", "effective_batch") if state[key] != now[key]
    ]
    if differences:
        listed = "".join(f"\n  {line}" for line in differences)
        raise ResumeError(
            f"The run cannot be continued from {folder}: its recipe was another one.{listed}\nUndo the changes, or "
            "start a new run with another --output_dir (to keep only the weights, pass the checkpoint as --init_from)."
        )


def run_facts(args: Mapping[str, Any], data_digest: str, plan: RunPlan, world_size: int) -> dict[str, Any]:
    """What a checkpoint remembers of the run that wrote it."""
    return {
        "args": dict(args),
        "data_digest": data_digest,
        "effective_batch": plan.effective_batch,
        "world_size": world_size,
    }


def checkpoint_state(facts: Mapping[str, Any], step: int, engine: StepEngine) -> dict[str, Any]:
    """Content of state.json; collective, as every rank adds its part of the running loss means."""
    return {
        "step": step,
        "window_steps": engine.window_steps,
        "windows": engine.ranks.gather_objects(engine.window.tolist()),
        **facts,
    }


def restore(folder: Path, engine: StepEngine, average: WeightAverage | None) -> dict[str, Any]:
    """Put weights, optimizer, scaler, average and running means back; returns the checkpoint's state.

    Raises:
        CheckpointError: a file is missing, damaged, or of another architecture.
    """
    state = read_state(folder)
    read_weights(engine.plain, folder)
    engine.updater.load_state(read_optimizer(folder))
    if average is not None:
        average.load_state_dict(read_average(folder))
    restore_window(engine, state)
    return state


def restore_window(engine: StepEngine, state: Mapping[str, Any]) -> None:
    """Give every rank its own running sums back, or all of them to the first when the world has changed."""
    windows = torch.tensor(state["windows"], dtype=torch.float32)
    if len(windows) == engine.ranks.size:
        mine = windows[engine.ranks.rank]
    else:
        mine = windows.sum(0) if engine.ranks.rank == 0 else torch.zeros_like(windows[0])
    engine.window.copy_(mine)
    engine.window_steps = int(state["window_steps"])
