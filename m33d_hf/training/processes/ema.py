"""Exponential moving average of the weights: what is evaluated and published when `train.ema_decay` is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from m33d_hf.training.processes.fsdp2 import cut_like, full, local


class WeightAverage:
    """Keeps shadow = decay * shadow + (1 - decay) * weight for every trainable parameter.

    Attributes:
        parameters: the model's trainable parameters by name.

    Args:
        model: the unwrapped model; its parameters are read in place after every update.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._shadow = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the current weights."""
        weights = [local(parameter.detach()) for parameter in self.parameters.values()]
        torch._foreach_lerp_([local(shadow) for shadow in self._shadow.values()], weights, 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the model inside the block, and restore the trained ones afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            weight, shadow = local(parameter.detach()), local(self._shadow[name])
            trained = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(trained)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Averaged weights by parameter name, whole; collective where the model is sharded."""
        return {name: full(shadow) for name, shadow in self._shadow.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` gave; the names are those of the model's trainable parameters.

        Raises:
            KeyError: a name is missing.
        """
        for name, shadow in self._shadow.items():
            local(shadow).copy_(local(cut_like(state[name], shadow)))
