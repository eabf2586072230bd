"""train.compile and train.grad_checkpointing: what they do, and where they are refused.

Training steps are compiled with static shapes (every micro-batch has `train.batch_size` samples); evaluations, whose
last batch is smaller and which change the model's mode, run eagerly. Compiling is in place, so that the names of the
weights stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.training.processes.deepspeed_config import PREFIX
from m33d_hf.training.processes.fsdp2 import blocks_of, reads_whole_videos
from m33d_hf.training.recipe.arguments import RunArguments, TrainArguments

# Modes of torch.compile whose kernels are replayed as CUDA graphs, from memory that the next replay overwrites.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def compile_model(model: nn.Module, args: RunArguments, device: torch.device) -> None:
    """Compile the training step in place: the whole model, or block by block where it will be sharded.

    Raises:
        ConfigError: it cannot work here; the message names what is missing.
    """
    check_compile(model, args, device)
    train = args.train
    mode = None if train.compile_mode == "default" else train.compile_mode
    # FSDP2 gathers the weights of a block in hooks around it, which no graph may contain.
    for module in blocks_of(model) if train.sharding == "fsdp2" else [model]:
        # Shapes are static until one changes, which only a drawn number of tokens does (multimae).
        module.compile(backend=train.compile_backend, mode=mode)


def check_compile(model: nn.Module, args: RunArguments, device: torch.device) -> None:
    """Refuse what cannot be compiled here.

    Raises:
        ConfigError: an unknown backend, a missing compiler, DeepSpeed, a model of whole videos, or CUDA graphs where
            they cannot be.
    """
    train = args.train
    if train.sharding.startswith(PREFIX):
        raise ConfigError(
            f"train.compile with train.sharding={train.sharding} is not supported: use fsdp2, or leave out one of the "
            "two."
        )
    known = torch.compiler.list_backends(exclude_tags=())
    if train.compile_backend not in known:
        hint = nearest_name_hint(train.compile_backend, known)
        raise ConfigError(f"train.compile_backend={train.compile_backend!r} is not one of {', '.join(known)}.{hint}")
    if reads_whole_videos(model):
        raise ConfigError(
            f"The temporal model of {args.task} reads videos of any length and is not compiled: leave out "
            "--train.compile."
        )
    if train.compile_backend == "inductor":
        _check_inductor(device)
    if train.compile_mode in CUDA_GRAPHS:
        _check_cuda_graphs(train, device)


def _check_inductor(device: torch.device) -> None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError(
                "train.compile on a GPU requires the package triton, which is not installed: run `pip install triton`, "
                "or leave out --train.compile."
            )
        return
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in compilers if name):
        raise ConfigError(
            "train.compile on CPU requires a C++ compiler, but none of g++, clang++ and $CXX was found: install one, "
            "or leave out --train.compile (on CPU it saves little time)."
        )


def _check_cuda_graphs(train: TrainArguments, device: torch.device) -> None:
    name = f"train.compile_mode={train.compile_mode}"
    if device.type != "cuda":
        raise ConfigError(f"{name} replays CUDA graphs, but this run uses {device.type}: use compile_mode default.")
    if train.accumulation > 1:
        raise ConfigError(
            f"{name} replays CUDA graphs, which overwrite the gradients of the previous micro-batch: set "
            "train.accumulation to 1, or use compile_mode default."
        )
    if train.sharding == "fsdp2":
        raise ConfigError(f"{name} replays CUDA graphs, but FSDP2 moves the weights: use compile_mode default.")


@contextmanager
def eager_evaluation(train: TrainArguments) -> Iterator[None]:
    """Run a compiled model eagerly inside the block, so that it is not compiled for other shapes."""
    if not train.compile:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def checkpoint_activations(model: nn.Module, args: RunArguments) -> None:
    """Recompute every block in the backward pass; random states are restored, so dropout and drop path are the same in
    both passes.

    Raises:
        ConfigError: the model has no blocks.
    """
    if not blocks_of(model):
        raise ConfigError(
            f"The model of {args.task} has no transformer blocks to recompute: leave out --train.grad_checkpointing."
        )
    owner: Any = model
    # context_BND reaches the decoder's blocks by name, and re-entrant checkpoints lose the gradient of such arguments.
    options = {"use_reentrant": False, "preserve_rng_state": True}
    # transformers renames the method in 5.2x and warns at the former name.
    enable = getattr(owner, "activation_checkpointing_enable", None) or owner.gradient_checkpointing_enable
    enable(options)
