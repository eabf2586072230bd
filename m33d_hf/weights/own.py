"""Weights from `init_from` into a fresh model, with an account of every weight on both sides.

Own checkpoints (a folder, its model.safetensors, or a hub id whose config.json says model_type m33d) are found here;
everything else is a foreign checkpoint. Nothing is written unless every weight of the checkpoint is used or ignored for
a reason, and every weight of the model is filled or new for a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m33d_hf.data.files.markers import FINAL, MARKER, damage
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, first_line
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.weights.apply import config_of, convert_state_dict
from m33d_hf.weights.files import (
    REPOSITORY,
    STANDARD_NAMES,
    WEIGHT_SUFFIXES,
    expand_index,
    load_foreign,
    read_config,
    read_safetensors,
)
from m33d_hf.weights.formats.layout import Weight
from m33d_hf.weights.init_options import ConversionOptions
from m33d_hf.weights.known.local_names import refuse_missing_folder
from m33d_hf.weights.own_names import OwnNames, full
from m33d_hf.weights.report import ConversionReport

WEIGHTS, INDEX = STANDARD_NAMES[:2]
CONFIG = "config.json"
TRAINED_AS = {head.task: head.class_name for head in HEADS} | {"pretraining": "M33DForPreTraining"}
"""Task of a run -> class of the model that it trains."""
_STATE = "state.json"  # of a checkpoint of a run
# Of a repository: processors too, so that exports and evaluations see the pictures that the model was saved with, and
# the record of its training, so that what is trained on from it inherits its licence.
_FETCHED = [CONFIG, "model*.safetensors*", "*preprocessor_config.json", "train_config.json"]


def initialise(
    model: nn.Module,
    init_from: str | Path,
    options: ConversionOptions | None = None,
) -> ConversionReport:
    """Fill `model` in place from a checkpoint.

    Args:
        model: any M33D model with memory (not on the meta device).
        init_from: own folder (also checkpoints/step_... and checkpoints/best), own or foreign weight file, hub id.
        options: what to take, how to fill what the checkpoint lacks, and what no tensor of a foreign one tells
            (`m33d_hf.weights.facts`).

    Raises:
        CheckpointError: nothing readable, another architecture (both shapes are named), or a weight nobody can explain.
        ConversionError: the same for foreign formats.
    """
    options = options or ConversionOptions()
    own = find_own(str(init_from))
    if own is None:
        return convert_state_dict(load_foreign(init_from, options.stated()), model, options)
    targets = {full(name): value for name, value in model.state_dict().items()}
    weights = {full(name): Weight(value, (full(name),), full(name)) for name, value in read_weights(own.files).items()}
    report = ConversionReport("m33d", str(init_from))
    return OwnNames(targets, weights, report, options, config=config_of(model), theirs=own.config).apply()


@dataclass(frozen=True)
class OwnCheckpoint:
    """An own checkpoint: its weight files and its configuration (empty when only a weight file is there), which names
    the architecture, see `architectures`."""

    files: tuple[Path, ...]
    config: dict[str, Any]


def architectures(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Classes of the model in a folder: those that its configuration names, otherwise that of the run it is of.

    Checkpoints of earlier versions name none; their state.json says which task they were trained for.

    Raises:
        CheckpointError: the configuration names none, and state.json cannot be read.
    """
    if stated := list(config.get("architectures") or []):
        return stated
    args = read_config(folder / _STATE).get("args")
    task = args.get("task") if isinstance(args, dict) else None
    return [TRAINED_AS[task]] if isinstance(task, str) and task in TRAINED_AS else []


def _own_config(folder: Path) -> dict[str, Any]:
    """The configuration in a folder, with the architecture; what it says alone where it is of another model type."""
    config = read_config(folder / CONFIG)
    if config.get("model_type") == "m33d":
        config["architectures"] = architectures(folder, config)
    return config


def find_own(init_from: str, ours_alone: bool = False) -> OwnCheckpoint | None:
    """The own checkpoint behind `init_from`; None when it is foreign.

    Args:
        init_from: path or hub id.
        ours_alone: whether the caller can use nothing else, so that a hub that does not answer is an error here; other
            callers ask `load_foreign` next, which says what is wrong.

    Raises:
        CheckpointError: a folder or hub id of ours without weights.
    """
    path = Path(init_from).expanduser()
    if path.exists():
        _refuse_damage(path if path.is_dir() else path.parent)
    if path.is_file():
        config = _own_config(path.parent)
        if config.get("model_type") == "m33d" and path.suffix == ".safetensors":
            return OwnCheckpoint((path,), config)
        return None
    folder = path if path.is_dir() else _fetch(init_from, ours_alone)
    if folder is None:
        return None
    config = _own_config(folder)
    if config.get("model_type") != "m33d":
        return None
    if (folder / WEIGHTS).is_file():
        return OwnCheckpoint((folder / WEIGHTS,), config)
    if (folder / INDEX).is_file():
        return OwnCheckpoint(tuple(expand_index(folder / INDEX)), config)
    raise CheckpointError(
        f"{init_from} has a config.json of this package but no {WEIGHTS}; an unfinished run has its weights in "
        "checkpoints/step_NNNNNNNN: pass that folder."
    )


def _refuse_damage(folder: Path) -> None:
    """Compare weights and configuration with the marker of the run that wrote them, where there is one.

    Raises:
        CheckpointError: they are not what was written.
    """
    if not (folder / MARKER).is_file():
        return
    wrong = damage(folder, only=[path.name for path in folder.iterdir() if FINAL.fullmatch(path.name)])
    if wrong is not None:
        raise CheckpointError(
            f"{folder} is damaged: {wrong}. Use another checkpoint of the run, or restore an unchanged copy; if the "
            f"change was made on purpose, remove {folder / MARKER}."
        )


def _fetch(name: str, ours_alone: bool) -> Path | None:
    """Local folder of a hub id of ours; None for anything that is no such id (the converters say what it is).

    Raises:
        CheckpointError: a folder that does not exist, see `refuse_missing_folder`; with `ours_alone` also a hub that
            cannot be asked, or that has no such repository.
    """
    match = REPOSITORY.fullmatch(name)
    if not match or Path(name).suffix in WEIGHT_SUFFIXES:
        return None
    refuse_missing_folder(name)
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repo, revision = match.group("repo", "revision")
    try:
        if read_config(Path(hf_hub_download(repo, CONFIG, revision=revision))).get("model_type") != "m33d":
            return None
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_FETCHED))
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError, OSError) as error:
        there = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if ours_alone and not there:  # a repository without config.json is one of somebody else's
            raise CheckpointError(
                f"{name}: neither an existing file or folder, nor readable from the Hub ({first_line(error)})."
            ) from error
        return None


def file_of_repository(name: str, file: str, ask_hub: bool) -> Path | None:
    """A small file of a repository of ours, from the snapshot that lies on this machine.

    Args:
        name: hub id, with its revision; nothing else has such a file.
        file: its name there.
        ask_hub: where it does not lie here, fetch it. Without that a name is told to nobody: it may be a folder's.

    Raises:
        CheckpointError: `ask_hub` for a folder that does not exist, see `refuse_missing_folder`; a config.json that is
            no JSON.
    """
    match = REPOSITORY.fullmatch(name)
    if not match or Path(name).exists() or Path(name).suffix in WEIGHT_SUFFIXES:
        return None
    if ask_hub:
        refuse_missing_folder(name)
    repo, revision = match.group("repo", "revision")
    config = _kept_or_fetched(repo, revision, CONFIG, ask_hub)
    if config is None or read_config(config).get("model_type") != "m33d":
        return None
    return _kept_or_fetched(repo, revision, file, ask_hub)


def _kept_or_fetched(repo: str, revision: str | None, file: str, ask_hub: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        kept = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(kept, str):
            return Path(kept)
        return Path(hf_hub_download(repo, file, revision=revision)) if ask_hub else None
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError, OSError):
        return None  # whoever needs the weights says what is wrong


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of an own checkpoint.

    Raises:
        CheckpointError: a file cannot be read, or holds numbers that are none.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_safetensors(file))
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"{files[0]}: {plural(len(broken), 'tensor')} "
            f"{agree(len(broken), 'holds', 'hold')} NaN or infinity, the first is {broken[0]!r}."
        )
    return tensors
