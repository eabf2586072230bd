"""Checks of a checkpoint's content before it is used: an undamaged file may still be from another run, or edited.

torch accepts moments of any shape, any step count, and a missing state; it then crashes or trains differently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from m33d_hf.errors import CheckpointError
from m33d_hf.weights.pickles import not_plain

MOMENTS = ("exp_avg", "exp_avg_sq")
ENTRIES = "optimizer_entries"
METRICS_RECORD = "metrics"
FILES = "files"
# Set anew in every step.
_LEARNING_RATE = "lr"
# What AdamW cannot do without; for the rest torch has defaults, as versions of it differ.
_SETTINGS = frozenset({"params", "betas", "eps", "weight_decay"})
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


def check_state(state: Mapping[str, Any], folder: Path, terms: int) -> None:
    """Check the types and ranges of `state.json`.

    Args:
        state: content of the file.
        folder: of the checkpoint; its name says the step.
        terms: loss terms of the model; there is a running sum of each.

    Raises:
        CheckpointError: an entry is missing, of another type or impossible.
    """
    wrong = _Complaints(folder / "state.json")
    step: Any = state.get("step")
    wrong.unless(_is_count(step), f"step is {step!r}, which is not a number of steps")
    named = folder.name.removeprefix("step_")
    wrong.unless(not named.isdecimal() or int(named) == step, f"step is {step!r} in the folder of step {named}")
    window: Any = state.get("window_steps")
    wrong.unless(_is_count(window) and window <= step, f"window_steps is {window!r}, but only {step} steps were done")
    world: Any = state.get("world_size")
    wrong.unless(_is_count(world) and world > 0, f"world_size is {world!r}, which is not a number of processes")
    wrong.unless(
        _are_rows(state.get("windows"), world, terms),
        f"windows is not a list of {terms} finite sums for each of {world!r} processes",
    )
    wrong.unless(isinstance(state.get("data_digest"), str), "data_digest is not text")
    wrong.unless(_is_count(state.get("effective_batch")), "effective_batch is not a number of samples")
    args = state.get("args")
    wrong.unless(isinstance(args, Mapping) and args_are_plain(args), "args is not a mapping of arguments")
    entries = state.get(ENTRIES)
    wrong.unless(entries is None or _is_count(entries), f"{ENTRIES} is {entries!r}, not a number")
    record = state.get(METRICS_RECORD)
    wrong.unless(
        record is None or isinstance(record, Mapping), f"{METRICS_RECORD} is {record!r}, which is not a record of rows"
    )


def check_files(state: Mapping[str, Any], listed: Mapping[str, str], folder: Path) -> None:
    """Check that weights, average and moments are those that were written with `state.json`.

    Files of another step or run fit the model and the marker that was written for them, and would be trained on.

    Args:
        state: content of `state.json`, whose "files" has a digest for each; earlier versions have none.
        listed: the digests of the folder's marker.
        folder: of the checkpoint.

    Raises:
        CheckpointError: a file is missing or was replaced.
    """
    written = state.get(FILES)
    if written is None:
        return
    wrong = _Complaints(folder / "state.json")
    wrong.unless(isinstance(written, Mapping) and written, f"{FILES} is not a table of digests")
    for name, digest in written.items():
        same = listed.get(name) == digest
        wrong.unless(same, f"{name} was not written with it: it comes from another step or run, or was edited")


def check_optimizer(
    saved: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], state: Mapping[str, Any], folder: Path
) -> None:
    """Check what `optimizer.pt` holds against the parameters and the settings of this run's optimizer.

    Args:
        saved: content of the file: "optimizer" and "scaler".
        groups: parameter groups of the optimizer, with whole parameters, in its order.
        state: of `state.json`, checked.
        folder: of the checkpoint.

    Raises:
        CheckpointError: moments of a different shape, type or number, or missing ones; values that AdamW cannot
            produce; settings that differ from the run's.
    """
    wrong = _Complaints(folder / "optimizer.pt")
    optimizer: Any = saved.get("optimizer")
    wrong.unless(
        isinstance(optimizer, Mapping)
        and isinstance(optimizer.get("state"), Mapping)
        and isinstance(optimizer.get("param_groups"), list),
        "holds no optimizer state",
    )
    _check_groups(optimizer["param_groups"], groups, wrong)
    parameters = dict(enumerate(p for group in groups for p in group["params"]))
    entries = optimizer["state"]
    unknown = [number for number in entries if number not in parameters]
    wrong.unless(not unknown, f"has moments for parameters that the model does not have: {unknown[:5]}")
    expected = state.get(ENTRIES)
    if expected is None:  # checkpoints of earlier versions do not say
        expected = len(entries) if entries or not state["step"] else "some"
    wrong.unless(len(entries) == expected, f"has the moments of {len(entries)} parameters, but {expected} were written")
    for number, moments in entries.items():
        _check_moments(number, moments, parameters[number], state["step"], wrong)
    scaler = saved.get("scaler")
    wrong.unless(
        scaler is None
        or (
            isinstance(scaler, Mapping)
            and all(_is_number(scaler.get(name)) and scaler[name] >= 0 for name in _SCALER)
            and scaler["scale"] > 0
        ),
        "holds no loss scaler state",
    )


def own_memory(value: Any, path: Path) -> Any:
    """What `torch.load` gave, with every tensor in separate memory.

    Args:
        value: tensors and plain values in dictionaries and lists.
        path: the file, for the error.

    Raises:
        CheckpointError: a tensor that is not a plain array: sparse, quantised, nested, or without numbers.
    """
    if isinstance(value, torch.Tensor):
        kind = not_plain(value)
        if kind is not None:
            raise CheckpointError(f"{path}: a tensor is {kind}, but runs write only plain, dense tensors")
        return value.detach().clone()
    if isinstance(value, dict):
        for key, entry in value.items():  # in place, so that what was read goes as its copy comes
            value[key] = own_memory(entry, path)
    elif isinstance(value, list):
        value[:] = [own_memory(entry, path) for entry in value]
    return value


def _check_groups(found: list[Any], groups: Sequence[Mapping[str, Any]], wrong: _Complaints) -> None:
    """Compare the groups: their parameters, which are numbered through, and their settings."""
    wrong.unless(len(found) == len(groups), f"has {len(found)} parameter groups, but the run has {len(groups)}")
    start = 0
    for index, (entry, group) in enumerate(zip(found, groups, strict=True)):
        wrong.unless(isinstance(entry, Mapping), f"parameter group {index} is not a mapping")
        expected = list(range(start, start + len(group["params"])))
        same = isinstance(entry.get("params"), list) and entry["params"] == expected
        wrong.unless(same, f"parameter group {index} holds different parameters from the run's")
        start += len(expected)
        missing = sorted(_SETTINGS - entry.keys())
        wrong.unless(not missing, f"parameter group {index} has no {', '.join(missing)}")
        for name in sorted((entry.keys() & group.keys()) - {"params", _LEARNING_RATE}):
            same = not isinstance(entry[name], torch.Tensor) and _plain(entry[name]) == _plain(group[name])
            wrong.unless(same, f"{name} of parameter group {index} is {entry[name]!r}, but the run has {group[name]!r}")
        wrong.unless(_is_number(entry.get(_LEARNING_RATE)), f"parameter group {index} has no learning rate")


def _check_moments(number: int, moments: Any, parameter: torch.Tensor, step: int, wrong: _Complaints) -> None:
    name = f"the state of parameter {number}"
    known = isinstance(moments, Mapping) and set(moments) == {"step", *MOMENTS}
    wrong.unless(
        known and all(isinstance(value, torch.Tensor) for value in moments.values()), f"{name} is not a state of AdamW"
    )
    count = moments["step"]
    possible = count.numel() == 1 and count.is_floating_point() and 0 <= float(count) <= step
    wrong.unless(
        possible and float(count).is_integer(), f"{name} has step {count.tolist()!r}, but the run has done {step} steps"
    )
    for moment in MOMENTS:
        value = moments[moment]
        described, wanted = (f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (value, parameter))
        fits = value.shape == parameter.shape and value.dtype == parameter.dtype and value.layout == torch.strided
        wrong.unless(fits, f"{moment} in {name} is {described}, but the parameter is {wanted}")
        wrong.unless(bool(value.isfinite().all()), f"{moment} in {name} is not finite")
    wrong.unless(bool((moments["exp_avg_sq"] >= 0).all()), f"exp_avg_sq in {name} is negative")


def check_average(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check the averaged weights against the model's trainable parameters.

    Raises:
        CheckpointError: other names, shapes or types, or values that are not finite.
    """
    wrong = _Complaints(folder / "ema.safetensors")
    different = sorted(found.keys() ^ wanted.keys())
    wrong.unless(not different, f"has different names from the model's trainable parameters: {different[:5]}")
    check_finite(found, wrong.path)
    for name, value in found.items():
        fits = value.shape == wanted[name].shape and value.dtype == wanted[name].dtype
        wrong.unless(
            fits, f"{name} is {tuple(value.shape)} {value.dtype}, but the model's is {tuple(wanted[name].shape)}"
        )


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse NaN and infinity, which no run saves.

    Raises:
        CheckpointError: naming the tensor.
    """
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite")


class _Complaints:
    """Raises where what a file says is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def unless(self, right: object, what: str) -> None:
        if not right:
            raise CheckpointError(f"{self.path}: {what}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_rows(value: Any, count: int, length: int) -> bool:
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(row, list) and len(row) == length and all(map(_is_sum, row)) for row in value)


def _is_sum(value: Any) -> bool:
    return _is_number(value) and abs(value) <= torch.finfo(torch.float32).max


def args_are_plain(args: Mapping[str, Any]) -> bool:
    """Whether recorded arguments have the form that comparing them needs."""
    model = args.get("model")
    modalities = model.get("modalities") if isinstance(model, Mapping) else None
    return modalities is None or (isinstance(modalities, list) and all(isinstance(m, Mapping) for m in modalities))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
