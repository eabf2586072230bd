# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The mean depth of every position, as a part of a depth model: predictions are drawn towards it.

A model that saw few recordings errs most where a picture looks unlike them, and there the mean depth of the training
frames, which looks at no picture, often errs less. The weighted mean of the two is shrinkage (James and Stein, 1961);
ours, not the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .errors_m33d import ConfigError, DataError

__all__ = ["M33DDepthPrior"]

_SIDES = 4


class M33DDepthPrior(nn.Module):
    """Mean depth per position of whole pictures, and the share that it has in predictions.

    Args:
        weight: share of the prediction, 0 to 1.
        size: (H, W) of the map: the model's input.
        start: metres; what the map holds until `fill`.
    """

    metres: Tensor

    def __init__(self, weight: float, size: tuple[int, int], start: float) -> None:
        super().__init__()
        self.weight, self.start = float(weight), float(start)
        self.register_buffer("metres", torch.full(size, self.start))

    @torch.no_grad()
    def reset(self) -> None:
        """The map of a model that has seen no data."""
        init.constant_(self.metres, self.start)

    @torch.no_grad()
    def fill(self, metres: Tensor) -> None:
        """Take the map of some training frames.

        Args:
            metres: (H, W), finite and above 0.

        Raises:
            ConfigError: another size. DataError: values that are no depth.
        """
        if metres.shape != self.metres.shape:
            sides = [" x ".join(map(str, each.shape)) for each in (metres, self.metres)]
            raise ConfigError(f"the mean depth per position has {sides[0]} pixels, but the model takes {sides[1]}.")
        if not bool((torch.isfinite(metres) & (metres > 0)).all()):
            raise DataError("the mean depth per position must be finite and above 0: no frame has depth somewhere.")
        self.metres.copy_(metres)

    def forward(self, predicted: Tensor, view: Tensor | None = None) -> Tensor:
        """Draw predictions towards the mean depth of their positions.

        Args:
            predicted: (B, h, w) metres.
            view: (B, 4): what part of the whole picture each one shows, see `depth_at`; None is all of it.

        Returns:
            (B, h, w): (1 - weight) * predicted + weight * mean depth.

        Raises:
            DataError: a `view` that is none.
        """
        return predicted + self.weight * (self.depth_at(predicted, view).to(predicted) - predicted)

    def depth_at(self, like: Tensor, view: Tensor | None = None) -> Tensor:
        """The mean depth of the positions that some maps show, (1 or B, h, w) metres, by bilinear interpolation.

        Args:
            like: (B, h, w), for the size.
            view: (B, 4): top, left, bottom, right in shares of the whole picture's sides. A mirrored picture has left
                and right exchanged: [0, 1, 1, 0] is the whole picture in a mirror.

        Raises:
            DataError: a `view` of another shape, or beyond the picture.
        """
        whole = self.metres[None, None].float()
        size = like.shape[-2:]
        if view is None:
            return F.interpolate(whole, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
        boxes = self._checked(view.to(whole), len(like))
        rows, columns = (_places(boxes[:, side], boxes[:, side + 2], size[side]) for side in (0, 1))
        grid = torch.stack(
            [columns[:, None, :].expand(-1, size[0], -1), rows[:, :, None].expand(-1, -1, size[1])], dim=-1
        )
        maps = whole.expand(len(boxes), -1, -1, -1)
        return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]

    @staticmethod
    def _checked(view: Tensor, rows: int) -> Tensor:
        if view.shape != (rows, _SIDES):
            raise DataError(
                f"depth_prior_view has shape {tuple(view.shape)}; expected ({rows}, 4): top, left, bottom and right of "
                "each picture, in shares of the whole one."
            )
        within = bool(((view >= -1e-4) & (view <= 1 + 1e-4)).all())
        if not within or bool(((view[:, 2] - view[:, 0]) <= 0).any() | (view[:, 1] == view[:, 3]).any()):
            raise DataError(
                "depth_prior_view must lie between 0 and 1 and have an area: top above bottom, and left and right "
                "exchanged for a mirrored picture."
            )
        return view


def _places(first: Tensor, last: Tensor, count: int) -> Tensor:
    """(B, count) centres of evenly spaced pixels between two borders, shares of a side to -1 ... 1."""
    centres = (torch.arange(count, device=first.device, dtype=first.dtype) + 0.5) / count
    return 2 * (first[:, None] + centres[None] * (last - first)[:, None]) - 1
