"""Does a dense model answer every picture with the same map?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-5  # relative: less is rounding of float32; what bfloat16 rounds is the same for the same values


class SameAnswer:
    """Finds a model that no longer looks at its input.

    A head of convolutions and ReLUs can die in a few steps of too high a learning rate. From then on it gives one map,
    often one number, its gradients are near zero, and the metrics lie near the trivial floor, from where nobody can
    tell such a run from one that learnt little.

    Args:
        device: where to count.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._first: Tensor | None = None
        self._maps = 0
        self._different = torch.zeros((), device=device)  # maps that differ from the first of this process

    def update(self, maps: Tensor) -> None:
        """Add a batch (B, H, W), of class ids or of metres. Other sizes than the first count as different."""
        if not len(maps):
            return
        if self._first is None:
            self._first = maps[0]
        self._maps += len(maps)
        if maps.shape[1:] != self._first.shape:
            self._different += len(maps)
            return
        allowed = TOLERANCE * self._first.abs() if maps.is_floating_point() else 0
        self._different += ((maps - self._first).abs() > allowed).flatten(1).any(dim=1).sum()

    def compute(self, accelerator: Any | None = None) -> bool:
        """Return whether all maps of every process are the same, of at least two.

        Args:
            accelerator: an `accelerate.Accelerator` whose processes are asked too, all of which must call this.
        """
        counts = torch.stack([self._different.new_tensor(self._maps), self._different])
        if accelerator is not None and accelerator.num_processes > 1:
            counts = accelerator.reduce(counts.to(accelerator.device), reduction="sum")
        maps, different = counts.tolist()
        return maps >= 2 and different == 0
