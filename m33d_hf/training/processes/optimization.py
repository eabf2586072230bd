"""Parameter groups, layer-wise decay, schedules and learning-rate scaling: plain functions, stepped by the loop.

The loop steps the schedule itself: a scheduler prepared by Accelerate steps once per process, so the learning rate
would depend on the number of processes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.arguments import OptimArguments

BASE_BATCH = 256  # learning rates of MAE, VideoMAE and the paper are given per 256 samples

_ENCODER_LAYER = re.compile(r"(?:^|\.)encoders\.[^.]+\.layers\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embeddings\.|positions\.|(?:global_token|register_tokens)$)")
_POSITIONS = re.compile(r"(?:^|\.)(?:positions\.|relative_positions$)")


@dataclass(frozen=True)
class LearningRate:
    """Learning rate as a pure function of the optimizer step.

    Attributes:
        peak: reached at the end of the warm-up.
        warmup_start: at step 0 where there is a warm-up.
        floor: approached at `total_steps`.
        warmup_steps: length of the linear warm-up in optimizer steps.
        total_steps: length of the run in optimizer steps.
        schedule: "cosine" or "constant" after the warm-up.
        warmup_asked: warm-up steps requested by the arguments; more than `warmup_steps` if they do not fit into the
            run.
    """

    peak: float
    warmup_start: float
    floor: float
    warmup_steps: int
    total_steps: int
    schedule: str = "cosine"
    warmup_asked: int = 0

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.warmup_start + (self.peak - self.warmup_start) * step / self.warmup_steps
        if self.schedule == "constant":
            return self.peak
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def learning_rate_schedule(
    optim: OptimArguments, *, effective_batch: int, steps_per_epoch: int, total_steps: int
) -> LearningRate:
    """Scale the learning rates by effective batch / 256 if requested, and compute the length of the warm-up.

    All three rates are scaled alike, as in VideoMAE's code; the ones that matter are 0 in most recipes.

    A warm-up longer than the run (a recipe's, in a short trial) is shortened to a tenth of the run, and this is logged.
    """
    scale = effective_batch / BASE_BATCH if optim.scale_lr else 1.0
    asked = optim.warmup_steps
    if asked is None:
        asked = round(optim.warmup_epochs * steps_per_epoch)
    return LearningRate(
        peak=optim.learning_rate * scale,
        warmup_start=optim.warmup_lr * scale,
        floor=optim.min_lr * scale,
        warmup_steps=asked if asked <= total_steps else total_steps // 10,
        total_steps=total_steps,
        schedule=optim.schedule,
        warmup_asked=asked,
    )


def takes_weight_decay(parameter: torch.Tensor, name: str = "") -> bool:
    """Tell weight matrices and kernels from norms, biases, scales, learned tokens and positions."""
    if parameter.ndim <= 1 or _POSITIONS.search(name) or name.endswith(("register_tokens", "outside_token")):
        return False
    return not (parameter.ndim == 3 and parameter.shape[0] == parameter.shape[1] == 1)


def layer_id(name: str, depth: int) -> int:
    """Depth of a parameter for the layer-wise decay: embeddings 0, encoder layer k is k + 1, all else depth + 1."""
    layer = _ENCODER_LAYER.search(name)
    if layer is not None:
        return int(layer.group(1)) + 1
    return 0 if _EMBEDDINGS.search(name) else depth + 1


def encoder_depth(model: nn.Module) -> int:
    """Number of encoder layers, read from the parameter names; 0 for a model without encoders."""
    found = (_ENCODER_LAYER.search(name) for name, _ in model.named_parameters())
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Group the trainable parameters by weight decay and by learning-rate scale.

    Returns:
        AdamW groups in order of appearance, each with "name", "lr_scale" = layer_decay ** (depth + 1 - layer_id) and
        its "weight_decay" (0 for everything `takes_weight_decay` refuses).
    """
    depth = encoder_depth(model)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_id(name, depth) if layer_decay is not None else depth + 1
        decays = takes_weight_decay(parameter, name)
        if (layer, decays) not in groups:
            groups[layer, decays] = {
                "name": f"layer{layer}" + ("" if decays else "_no_decay"),
                "params": [],
                "lr_scale": (1.0 if layer_decay is None else layer_decay) ** (depth + 1 - layer),
                "weight_decay": weight_decay if decays else 0.0,
            }
        groups[layer, decays]["params"].append(parameter)
    return list(groups.values())


def build_optimizer(model: nn.Module, optim: OptimArguments) -> torch.optim.AdamW:
    """Fused AdamW over `parameter_groups`; the fused kernel also honours the loop's `found_inf` gate.

    Raises:
        ConfigError: nothing to train.
    """
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay)
    if not groups:
        raise ConfigError("The model has no trainable parameters; unfreeze some before training.")
    first, second = optim.betas
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=(first, second), eps=optim.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set every group to value * its lr_scale."""
    for group in optimizer.param_groups:
        group["lr"] = value * group["lr_scale"]
