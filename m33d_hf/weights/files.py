"""Read a foreign checkpoint: a file, a folder or a Hub repository. Pickles are opened
with weights_only=True."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, ConversionError, first_line
from m33d_hf.weights.formats.detect import detect_format
from m33d_hf.weights.known.released import where_from
from m33d_hf.weights.pickles import not_plain, read_torch_file, refuse_other_contents

PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
WEIGHT_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
# In this order; an index names its shards.
STANDARD_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MODEL_TYPES = ("vit_mae", "videomae", "vit", "vit_msn", "ijepa", "dinov2", "dinov2_with_registers")
WRAPPER_KEYS = ("model", "module", "state_dict", "model_state", "teacher")
# Shared by all keys of a state dict saved from a wrapped model.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_TRAINING_STATE = {
    "optimizer": "optimizer state",
    "lr_scheduler": "schedule state",
    "scheduler": "schedule state",
    "scaler": "loss scaler state",
    "epoch": "training progress",
    "iteration": "training progress",
    "global_step": "training progress",
    "args": "arguments of the original run",
    "config": "configuration of the original run",
    "max_accuracy": "training progress",
    "student": "the student's weights; the teacher's, which self-distillation evaluates, were used",
    "model_ema": "moving average of the weights; the weights themselves were used",
}


@dataclass
class ForeignCheckpoint:
    """Weights of another project, untouched, with what is known about them.

    `format` is a key of `m33d_hf.weights.formats.detect.FORMATS`; `ignored` maps entries of the file that are no
    weights to the reason; `config` and `preprocessor` are the config.json and the processor's file beside the weights
    (empty if there are none), `preprocessor_file` is the name of the latter; `arguments` are those that the original
    run saved with them; `stated` is what the user says about them (keys of `m33d_hf.weights.facts.STATEABLE`).
    """

    format: str
    tensors: dict[str, Tensor]
    origin: str
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    stated: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    preprocessor_file: str = PROCESSOR_FILES[0]


def load_foreign(path_or_repo: str | Path, stated: Mapping[str, Any] | None = None) -> ForeignCheckpoint:
    """Load `.pth/.pt/.bin/.safetensors`, a folder of them, or a Hub repo id (``org/name`` or
    ``org/name@revision``).

    Args:
        path_or_repo: where the weights are.
        stated: what the user says about them and cannot be read from the weights, see `m33d_hf.weights.facts`.

    Raises `CheckpointError` when nothing readable is there and `ConversionError` when the layout is unknown.
    """
    origin = str(path_or_repo)
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        files, config = _files_of_folder(path)
    elif path.is_file():
        files, config = expand_index(path), read_config(path.parent / "config.json")
    else:
        files, config = _download(origin)
    content: dict[str, Any] = {}
    notes: list[str] = []
    for file in files:
        part, remarks = _read_weights(file)
        repeated = [key for key in part if key in content]
        if repeated:
            raise CheckpointError(f"{file}: {repeated[0]!r} was already in another shard of {origin}.")
        content.update(part)
        notes += [remark for remark in remarks if remark not in notes]
    checkpoint = from_state_dict(content, origin, config, stated)
    checkpoint.notes[:0] = notes
    for name in PROCESSOR_FILES:
        if entries := read_config(files[0].parent / name):
            checkpoint.preprocessor, checkpoint.preprocessor_file = entries, name
            break
    return checkpoint


def from_state_dict(
    content: Mapping[str, Any],
    origin: str = "state dict",
    config: dict[str, Any] | None = None,
    stated: Mapping[str, Any] | None = None,
) -> ForeignCheckpoint:
    """Unwrap an already loaded dict ('model', 'module' or bare) and find out its format."""
    ignored: dict[str, str] = {}
    notes: list[str] = []
    tensors = _unwrap(content, origin, ignored, notes)
    _check_plain(tensors, origin)
    tensors = _strip_prefixes(tensors, origin, notes)
    broken = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"{origin}: {plural(len(broken), 'tensor')} {agree(len(broken), 'holds', 'hold')} "
            f"NaN or infinity, first {broken[0]!r}."
        )
    # A config.json of something else may lie beside a bare .pth file.
    known = (config or {}).get("model_type", MODEL_TYPES[0]) in MODEL_TYPES
    kept = dict(config or {}) if known else {}
    saved = content.get("args")
    arguments = dict(vars(saved)) if isinstance(saved, argparse.Namespace) else {}
    format = detect_format(tensors, origin)
    return ForeignCheckpoint(format, tensors, origin, notes, ignored, kept, arguments, dict(stated or {}))


def _check_plain(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse tensors whose numbers are not simply there: nothing could be copied from them."""
    for key, tensor in tensors.items():
        kind = not_plain(tensor)
        if kind is None and tensor.numel() == 0:
            kind = f"empty, of shape {tuple(tensor.shape)}"
        if kind is None and tensor.is_floating_point() and tensor.element_size() == 1:
            kind = f"{str(tensor.dtype).removeprefix('torch.')}, 8-bit numbers"
        if kind is not None:
            raise ConversionError(f"{origin}: {key!r} is {kind}; save a state dict of plain, dense tensors.")


def _refuse_other_keys(entries: Mapping[Any, Any], origin: str) -> None:
    strange = [key for key in entries if not isinstance(key, str)]
    if strange:
        raise ConversionError(
            f"{origin}: not a state dict; {len(strange)} of {len(entries)} keys are not text, the first is"
            f" {strange[0]!r} ({type(strange[0]).__name__})."
        )


def _unwrap(content: Mapping[str, Any], origin: str, ignored: dict[str, str], notes: list[str]) -> dict[str, Tensor]:
    _refuse_other_keys(content, origin)
    inner: Mapping[str, Any] = content
    for wrapper in WRAPPER_KEYS:
        candidate = content.get(wrapper)
        if isinstance(candidate, Mapping) and candidate:
            inner = candidate
            notes.append(f"weights read from the entry {wrapper!r}")
            for key, value in content.items():
                if key != wrapper:
                    ignored[key] = _TRAINING_STATE.get(key, f"{_kind(value)} beside {wrapper!r}, not its weights")
            break
    _refuse_other_keys(inner, origin)
    tensors: dict[str, Tensor] = {}
    strangers: list[str] = []
    for key, value in inner.items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif key in _TRAINING_STATE:
            ignored[key] = _TRAINING_STATE[key]
        else:
            strangers.append(f"{key!r} ({_kind(value)})")
    if strangers or not tensors:
        found = ", ".join(strangers[:5]) or "no tensors"
        raise ConversionError(
            f"{origin}: not a state dict; found {found}. Expected tensors, or a dict with one of"
            f" {', '.join(WRAPPER_KEYS)} holding them."
        )
    return tensors


def _kind(value: object) -> str:
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def _strip_prefixes(tensors: dict[str, Tensor], origin: str, notes: list[str]) -> dict[str, Tensor]:
    """Remove what DDP, deepspeed, Lightning and torch.compile put before (or, compiled inside, into) the names."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in WRAPPER_PREFIXES:
            if all(key.startswith(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
                notes.append(f"prefix {prefix!r} removed from every key")
                stripped = True
    heads = ("head.", "dino_head.", "ibot_head.")
    if all(key.startswith(("backbone.", *heads)) for key in tensors):  # self-distillation: encoder beside projection
        tensors = {key.removeprefix("backbone."): tensor for key, tensor in tensors.items()}
        notes.append("prefix 'backbone.' removed from every key but those of heads")
    if any("_orig_mod." in key for key in tensors):
        renamed = {key.replace("_orig_mod.", ""): tensor for key, tensor in tensors.items()}
        if len(renamed) != len(tensors):
            raise ConversionError(f"{origin}: some weights occur both with and without '_orig_mod.'; keep one set.")
        notes.append("'_orig_mod.' (torch.compile) removed from the keys")
        tensors = renamed
    return tensors


@contextmanager
def whole_weights(name: str | Path) -> Iterator[None]:
    """For a `from_pretrained` of `name`: safetensors' own error, a plain Exception, becomes one of ours.

    Raises:
        CheckpointError: a weight file cannot be read.
    """
    try:
        yield
    except SafetensorError as error:
        again = (
            "copy it from where it was written once more, or take another checkpoint of the run"
            if Path(name).exists()
            else "delete the model from the cache (hf cache) and fetch it again"
        )
        raise CheckpointError(
            f"{str(name)!r}: its weights cannot be read, the file is cut short or damaged ({first_line(error)}); "
            f"{again}."
        ) from error


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: it cannot be read; its header and length are checked, its numbers have no checksum.
    """
    refuse_other_contents(file)
    try:
        return dict(load_file(file))
    except Exception as error:  # a damaged header leads the library anywhere
        raise CheckpointError(
            f"{file} cannot be read: not a readable safetensors file ({first_line(error)})."
        ) from error


def _read_weights(file: Path) -> tuple[dict[Any, Any], list[str]]:
    """What a weight file holds, and remarks on it."""
    if file.suffix == ".safetensors":
        return dict(read_safetensors(file)), []
    if file.suffix not in PICKLE_SUFFIXES:
        raise CheckpointError(f"{file}: unknown suffix; expected one of {', '.join(WEIGHT_SUFFIXES)}.")
    try:
        return read_torch_file(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error}).") from error


def _files_of_folder(folder: Path) -> tuple[list[Path], dict[str, Any]]:
    config = read_config(folder / "config.json")
    for name in STANDARD_NAMES:
        if (folder / name).is_file():
            return expand_index(folder / name), config
    candidates = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates[:5]) or "none"
        raise CheckpointError(
            f"{folder}: no {' / '.join(STANDARD_NAMES)} and no single other weight file (found:"
            f" {names})."
            " Pass the path of the file."
        )
    return candidates, config


def expand_index(file: Path) -> list[Path]:
    """The file itself, or the shards that an index file lists (plain names beside it)."""
    if file.suffix != ".json":
        return [file]
    shards = _shard_names(file)
    missing = [name for name in shards if not (file.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{file}: shard {missing[0]!r} is missing ({len(missing)} of {len(shards)}).")
    return [file.parent / name for name in shards]


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index}: not a weight index ({error!r}); it must have 'weight_map'.") from error
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} is outside the folder of its index.")
    return names


def read_config(file: Path) -> dict[str, Any]:
    """What a config.json says; empty where there is none, or no mapping in it.

    Raises:
        CheckpointError: it is no JSON.
    """
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}.") from error
    return config if isinstance(config, dict) else {}


def _download(repository: str) -> tuple[list[Path], dict[str, Any]]:
    match = REPOSITORY.fullmatch(repository)
    if not match or Path(repository).suffix in WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"{repository}: not an existing file or folder, nor a Hub repository id (org/name).{where_from(repository)}"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    def fetch(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(match["repo"], name, revision=match["revision"]))
        except RepositoryNotFoundError as error:
            raise CheckpointError(
                f"{repository}: neither a local path nor an accessible Hub repository.{where_from(repository)}"
            ) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise CheckpointError(
                f"{repository}: cannot download {name!r} from the Hub ({first_line(error)})."
            ) from error

    config_file = fetch("config.json")
    for name in PROCESSOR_FILES:
        fetch(name)  # read from the folder where all of them come to lie
    for name in STANDARD_NAMES:
        file = fetch(name)
        if file is None:
            continue
        if file.suffix != ".json":
            return [file], read_config(config_file) if config_file else {}
        shards = [(shard, fetch(shard)) for shard in _shard_names(file)]
        absent = [shard for shard, fetched in shards if fetched is None]
        if absent:
            raise CheckpointError(f"{repository}: shard {absent[0]!r} is listed in {name} but missing.")
        files = [fetched for _, fetched in shards if fetched is not None]
        return files, read_config(config_file) if config_file else {}
    raise CheckpointError(
        f"{repository}: none of {', '.join(STANDARD_NAMES)} could be found on the Hub or in the local cache."
        f" If you meant a file on this machine, the path does not exist.{where_from(repository)}"
    )
