"""Exponential moving average of the weights: what is evaluated and published when `train.ema_decay` is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Keeps shadow = decay * shadow + (1 - decay) * weight for every trainable parameter.

    Args:
        model: the unwrapped model; its parameters are read in place after every update.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._shadow = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the current weights."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._shadow.values()), weights, 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the model for the block, and the trained ones back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            trained = parameter.detach().clone()
            parameter.copy_(self._shadow[name])
            self._shadow[name].copy_(trained)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Averaged weights by parameter name."""
        return dict(self._shadow)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` gave; the names are those of the model's trainable parameters.

        Raises:
            KeyError: a name is missing.
        """
        for name, shadow in self._shadow.items():
            shadow.copy_(state[name])
