"""From gradients to weights for one process, DDP and FSDP2; `deepspeed.py` does the same for DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from m33d_hf.errors import CheckpointError
from m33d_hf.training.processes.fsdp2 import Shards, full, load_whole_state, whole_state


class Updater:
    """Reduces gradients, clips them and updates the weights, with a gate; its state is whole, however a model is
    sharded.

    Attributes:
        model: what is called in the forward pass of a training step.
        plain: the model itself, without what is wrapped around it.
        optimizer: fused AdamW; learning rates are set in its groups.
        scaled: losses are scaled (fp16), and steps that overflow are skipped by the scaler instead of by the gate.

    Args:
        accelerator: that prepared `model` and `optimizer`.
        model: prepared, or sharded in place.
        optimizer: prepared.
        clip_grad_norm: largest gradient norm, None for no clipping.
        shards: knows how to put `model` together again, where it is sharded.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: AcceleratedOptimizer,
        clip_grad_norm: float | None = None,
        shards: Shards | None = None,
    ) -> None:
        self.model = model
        self.plain: nn.Module = accelerator.unwrap_model(model)
        self.optimizer: torch.optim.Optimizer = optimizer.optimizer
        self.scaled = accelerator.scaler is not None
        self.clip_grad_norm = clip_grad_norm
        self._accelerator = accelerator
        self._wrapped = optimizer
        self._shards = shards
        self._parameters = [p for p in self.plain.parameters() if p.requires_grad]

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward pass of a micro-batch; gradients are reduced with the `last` one of a step."""
        return nullcontext() if last else self._accelerator.no_sync(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`; those of all processes are averaged."""
        self._accelerator.backward(loss)

    def clip(self) -> torch.Tensor:
        """Clip the gradients of the step; returns their norm before, on the device: that of all processes."""
        if self.scaled:
            self._accelerator.unscale_gradients(self._wrapped)
        norm = full(nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None]))
        if self.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.clip_grad_norm, norm)
        return norm

    def step(self, gate: torch.Tensor) -> None:
        """Update the weights and drop the gradients; nothing is updated where `gate`, on the device, is not 0."""
        if self.scaled:
            # Accelerate's wrapper, which looks for packages at every step, is needed for the scaler only.
            self._wrapped.step()
        else:
            self.optimizer.found_inf = gate  # type: ignore[attr-defined]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def whole(self, everywhere: bool) -> nn.Module:
        """The model to write (on the main process, in host memory) or to evaluate (`everywhere`); collective."""
        if self._shards is None:
            return self.plain
        device = self._accelerator.device if everywhere else torch.device("cpu")
        return self._shards.gather(everywhere or self._accelerator.is_main_process, device) or self.plain

    def state(self) -> dict[str, Any]:
        """Content of optimizer.pt: the optimizer and, with fp16, the loss scaler. Collective where it is sharded."""
        scaler = self._accelerator.scaler
        return {
            "optimizer": whole_state(self.optimizer),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def whole_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups with whole parameters, numbered as in `state`."""
        return self.optimizer.param_groups

    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Restore `state` after the weights were restored; its content has been checked.

        Raises:
            CheckpointError: the state of the loss scaler is missing, or present without fp16.
        """
        if (self._accelerator.scaler is None) != (saved["scaler"] is None):
            raise CheckpointError(
                "optimizer.pt: the state of a loss scaler must be present with train.precision fp16, and only then"
            )
        load_whole_state(self.optimizer, saved["optimizer"])
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(saved["scaler"])

    def close(self) -> None:
        """Remove the hooks from the model."""
