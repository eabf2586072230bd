"""Trivial floors of the dense tasks: per position the mean depth, or the commonest class, of the training frames.

A model that looks at nothing reaches them, so that one below them has learnt less than where things usually are.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PositionMean:
    """Mean depth of every position."""

    said = "per-position mean of the training frames"

    def __init__(self) -> None:
        self._total = self._count = torch.zeros(())

    def update(self, depth: Tensor) -> None:
        """Add one frame, (H, W) in metres; what is not finite does not count."""
        self._total = self._total + depth.nan_to_num(0.0, 0.0, 0.0)
        self._count = self._count + depth.isfinite()

    def map(self) -> Tensor:
        """(H, W) metres; a position that was never measured has the mean of all that were."""
        overall = self._total.sum() / self._count.sum().clamp_min(1)
        return torch.where(self._count > 0, self._total / self._count.clamp_min(1), overall)


class PositionMode:
    """Commonest class of every position.

    Args:
        num_classes: L; larger numbers are ignored pixels.
    """

    said = "commonest class per position of the training frames"

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._votes = torch.zeros(())

    def update(self, labels: Tensor) -> None:
        """Add one frame, (H, W) class ids."""
        slots = labels.long().clamp_max(self.num_classes)
        self._votes = self._votes + torch.nn.functional.one_hot(slots, self.num_classes + 1)[..., :-1]

    def map(self) -> Tensor:
        """(H, W) class ids; the smaller of two that are equally common."""
        return self._votes.argmax(-1)
