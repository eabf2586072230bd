"""The files of a checkpoint, written and read back: weights, their average, the optimizer's state, `state.json`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.distributed.tensor import DTensor

from m33d_hf.data.loader.workers import tells_of_a_lost_worker
from m33d_hf.errors import CheckpointError, type_and_text
from m33d_hf.training.processes.fsdp2 import cut_like, local
from m33d_hf.training.processes.saved_state import own_memory

WEIGHTS = "model.safetensors"
AVERAGE = "ema.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write the unwrapped model's weights, and its config where it has one, so that from_pretrained loads them."""
    if any(_is_part(parameter) for parameter in model.parameters()):
        # DeepSpeed keeps the weights of a group in one flat memory, which safetensors takes for tied weights.
        copies = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
        naming(folder / WEIGHTS, lambda file: save_file(copies, file, metadata={"format": "pt"}))
    else:
        naming(folder / WEIGHTS, lambda file: save_model(model, str(file), metadata={"format": "pt"}))
    config: Any = getattr(model, "config", None)
    if hasattr(config, "save_pretrained"):
        stated = copy.copy(config)
        stated.architectures = [type(model).__name__]  # as the model's own save_pretrained does: what it is used as
        stated.save_pretrained(folder)


def write_optimizer(state: dict[str, Any], folder: Path) -> None:
    """Write optimizer.pt.

    Raises:
        OSError: naming the file; torch alone would say something about positions in an archive.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

    naming(folder / OPTIMIZER, write)


def naming(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file; where that fails, the error says which file it was."""
    try:
        write(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        if tells_of_a_lost_worker(error):
            raise
        raise OSError(f"{path.name}: {error}") from error


def read_weights(model: nn.Module, folder: Path) -> None:
    """Load exactly the model's weights.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another architecture.
    """
    try:
        _check_types(model, folder / WEIGHTS)
        if any(_is_part(parameter) for parameter in model.parameters()):
            _read_parts(model, folder / WEIGHTS)
        else:
            load_model(model, str(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not match the model: {error}") from error


def _check_types(model: nn.Module, path: Path) -> None:
    """Refuse numbers of another type, which would be rounded silently.

    Raises:
        RuntimeError: naming the tensor.
    """
    own = model.state_dict()
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (the file is no dict)
            dtype = file.get_tensor(name).dtype
            if name in own and own[name].dtype != dtype:
                raise RuntimeError(f"{name} is {dtype} in the file and {own[name].dtype} in the model")


def _is_part(tensor: torch.Tensor) -> bool:
    """Whether a tensor is this process's shard, or shares its memory with others."""
    return isinstance(tensor, DTensor) or tensor.untyped_storage().nbytes() > tensor.nbytes


def _read_parts(model: nn.Module, path: Path) -> None:
    """Fill weights that are sharded, or lie in one flat memory, in place; one whole tensor at a time is in memory.

    Raises:
        RuntimeError: other names or shapes than the model's.
    """
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with safe_open(str(path), framework="pt") as file, torch.no_grad():
        names = set(file.keys())
        if names != set(model.state_dict()):
            raise RuntimeError(f"keys differ: {sorted(names ^ set(model.state_dict()))}")
        for name in sorted(names):
            target, whole = targets[name].detach(), file.get_tensor(name)
            if whole.shape != target.shape:
                raise RuntimeError(f"{name} is {tuple(whole.shape)} in the file and {tuple(target.shape)} in the model")
            local(target).copy_(local(cut_like(whole, target)))


def read_average(folder: Path) -> dict[str, torch.Tensor]:
    """Load the averaged weights.

    Raises:
        CheckpointError: there are none.
    """
    try:
        return load_file(folder / AVERAGE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / AVERAGE} cannot be read: {error}") from error


def read_optimizer(folder: Path) -> dict[str, Any]:
    """Load the optimizer's (and the scaler's) state as tensors and plain values only; what they say is not checked.

    Every tensor gets separate memory: tensors of a file may share memory, and their updates would interfere.

    Raises:
        CheckpointError: missing or damaged, or a tensor that is not a plain array of numbers.
    """
    try:
        found = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets whatever bytes there are: any error means that they are damaged
        raise CheckpointError(f"{folder / OPTIMIZER} cannot be read: {type_and_text(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / OPTIMIZER} holds {type(found).__name__}, not an optimizer state")
    return own_memory(found, folder / OPTIMIZER)


def read_state(folder: Path) -> dict[str, Any]:
    """Load `state.json`.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / STATE} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / STATE} holds {type(found).__name__}, not a JSON object")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a trailing newline."""
    text = json.dumps(value, indent=2, default=str) + "\n"
    naming(path, lambda file: file.write_text(text, encoding="utf-8"))
