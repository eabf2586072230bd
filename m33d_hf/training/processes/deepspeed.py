"""DeepSpeed's ZeRO stages 1 and 2: optimizer state, and with stage 2 gradients, sharded over the processes.

DeepSpeed reduces gradients and keeps a flat part of weights and AdamW's state per process and parameter group. What
decides a result stays ours: shares of the loss, norm and clipping, the gate before the update, learning rates, and
files, which are those of a run without DeepSpeed. Every process holds the whole weights, always in float32.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import compare_versions
from torch import nn

from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.training.processes.deepspeed_config import PREFIX, buckets_asked_for
from m33d_hf.training.processes.updating import Updater
from m33d_hf.training.recipe.arguments import RunArguments

# The first version tried. Older ones cannot leave norm and clipping to us (compute_grad_norm).
MINIMUM = "0.19.8"


def load_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed and make it use `device`.

    Raises:
        MissingDependencyError: it is not installed, or too old.
        ConfigError: DeepSpeed has chosen another kind of device.
    """
    install = "`pip install 'm33d-hf[deepspeed]'`"
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError(
            f"train.sharding={PREFIX}* requires the package deepspeed, which is not installed: {install}, or use "
            "--train.sharding fsdp2, which requires no extra package."
        )
    if compare_versions("deepspeed", "<", MINIMUM):
        found = importlib.metadata.version("deepspeed")
        raise MissingDependencyError(f"deepspeed {found} is too old; version {MINIMUM} is required: {install}.")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    chosen = get_accelerator().device_name()
    if chosen != device.type:
        raise ConfigError(
            f"DeepSpeed uses {chosen}, but the run uses {device.type}: set the environment variable "
            f"DS_ACCELERATOR={device.type} before the start."
        )
    return deepspeed


class ZeroUpdater(Updater):
    """An `Updater` around DeepSpeed's engine.

    Args:
        model: on its device, the same on every process.
        optimizer: fused AdamW over its parameters; its groups are taken over.
        args: stage, batch, accumulation and clipping.
        device: of this process.

    Raises:
        MissingDependencyError: DeepSpeed is absent or too old.
        ConfigError: the launcher's file contains a setting that would be ignored.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, args: RunArguments, device: torch.device
    ) -> None:
        deepspeed = load_deepspeed(device)
        self.plain, self.optimizer = model, optimizer
        self.scaled = False
        self.clip_grad_norm = args.optim.clip_grad_norm
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=_engine_config(args), dist_init_required=False
        )
        self.model = self._engine

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Around forward and backward pass of a micro-batch; with stage 2 gradients are reduced after each."""
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, undivided by the accumulation; those of all processes are averaged."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def clip(self) -> torch.Tensor:
        """Clip the gradients of the step; returns their norm before, on the device: that of all processes."""
        parts = [part for parts in self._zero.averaged_gradients.values() for part in parts]
        square = nn.utils.get_total_norm(parts).square()
        dist.all_reduce(square)
        norm = square.sqrt()
        if self.clip_grad_norm is not None:
            torch._foreach_mul_(parts, torch.clamp(self.clip_grad_norm / (norm + 1e-6), max=1.0))
        return norm

    def step(self, gate: torch.Tensor) -> None:
        """Update this process's part and gather the weights; nothing is updated where `gate` is not 0."""
        self.optimizer.found_inf = gate  # type: ignore[attr-defined]
        self._engine.step()

    def whole(self, everywhere: bool) -> nn.Module:
        """The model itself, which is whole on every process."""
        return self.plain

    def state(self) -> dict[str, Any]:
        """Content of optimizer.pt as without DeepSpeed; collective, and whole on the main process only."""
        saved = self.optimizer.state_dict()
        state: dict[int, dict[str, torch.Tensor]] = {}
        groups: list[dict[str, Any]] = []
        number = 0
        kept = zip(self.optimizer.param_groups, saved["param_groups"], self._groups, strict=True)
        for group, entry, parameters in kept:
            flat = self.optimizer.state.get(group["params"][0], {})
            numbers = list(range(number, number + len(parameters)))
            number += len(parameters)
            groups.append({**entry, "params": numbers})
            if flat:
                for index, parameter in zip(numbers, parameters, strict=True):
                    state[index] = {name: _whole(value, parameter) for name, value in flat.items()}
        return {"optimizer": {"state": state, "param_groups": groups}, "scaler": None}

    def whole_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups with whole parameters, numbered as in `state`."""
        kept = zip(self.optimizer.param_groups, self._groups, strict=True)
        return [{**group, "params": parameters} for group, parameters in kept]

    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Give `state` back, of any run with the same parameters; the weights have been, on every process."""
        self._zero.refresh_fp32_params()  # the parts that are updated, from the weights that were read
        whole = saved["optimizer"]
        state: dict[int, dict[str, torch.Tensor]] = {}
        groups: list[dict[str, Any]] = []
        kept = zip(self.optimizer.param_groups, whole["param_groups"], self._groups, strict=True)
        for number, (group, entry, parameters) in enumerate(kept):
            groups.append({**entry, "params": [number]})
            found = [whole["state"].get(index, {}) for index in entry["params"]]
            if any(found):
                state[number] = _parts(found, parameters, like=group["params"][0])
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def close(self) -> None:
        """Take DeepSpeed's hooks off the model."""
        self._engine.destroy()


def _engine_config(args: RunArguments) -> dict[str, Any]:
    """What DeepSpeed is told: stage and numbers of the run; norm, clipping and checks for overflow are ours."""
    zero = {"stage": int(args.train.sharding.removeprefix(PREFIX)), "compute_grad_norm": False}
    return {
        "train_micro_batch_size_per_gpu": args.train.batch_size,
        "gradient_accumulation_steps": args.train.accumulation,
        "gradient_clipping": 0.0,
        "zero_optimization": {**zero, **buckets_asked_for(args)},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the device at every step
    }


def _whole(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A parameter's entry of a flat state, in host memory of the main process; collective unless it is a scalar."""
    if value.ndim == 0:
        return value.detach().cpu().clone()
    whole = torch.zeros(parameter.numel(), dtype=value.dtype, device=value.device)
    place = parameter._hp_mapping  # type: ignore[attr-defined]
    if place is not None:
        ours, flat = place.lp_fragment_address, place.hp_fragment_address
        whole.narrow(0, ours.start, ours.numel).copy_(value.narrow(0, flat.start, flat.numel))
    dist.reduce(whole, dst=0)
    return whole.view(parameter.shape).cpu() if dist.get_rank() == 0 else value.new_empty(0)


def _parts(
    found: list[Mapping[str, torch.Tensor]], parameters: list[nn.Parameter], like: torch.Tensor
) -> dict[str, torch.Tensor]:
    """This process's flat part of the whole entries of a parameter group."""
    first = next(entries for entries in found if entries)
    flat = {name: value.clone() if value.ndim == 0 else torch.zeros_like(like) for name, value in first.items()}
    for entries, parameter in zip(found, parameters, strict=True):
        place = parameter._hp_mapping  # type: ignore[attr-defined]
        if place is None:
            continue
        ours, there = place.lp_fragment_address, place.hp_fragment_address
        for name, value in entries.items():
            if value.ndim:
                part = value.flatten().narrow(0, ours.start, ours.numel)
                flat[name].narrow(0, there.start, there.numel).copy_(part)
    return flat
