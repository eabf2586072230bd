"""Depth as an input of task models: rows of a batch, some hidden or without depth, and what mixing makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from m33d_hf.data.augmentation.mixing import MixDraw, mix_batch
from m33d_hf.data.loader.finishing import Batch
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError


def stacked_depth(samples: Sequence[RGBDSample], dropout: float = 0.0) -> torch.Tensor:
    """(B, T, 1, H, W) depth as it was read, NaN where there is none: in holes, of a sample without depth, and of one
    whose depth is hidden.

    Args:
        samples: of one size.
        dropout: probability, per sample, that its depth is hidden; drawn from its seed, epoch and key.
    """
    rows = []
    for sample in samples:
        hidden = dropout > 0 and bool(torch.rand((), generator=_generator(sample)) < dropout)
        if sample.depth is None or hidden:
            shape = (sample.num_frames, 1, sample.height, sample.width)
            rows.append(torch.full(shape, math.nan))
        else:
            rows.append(sample.depth)
    return torch.stack(rows)


def _generator(sample: RGBDSample) -> torch.Generator:
    draw: Draw | None = sample.meta.get("draw")
    if draw is None:
        raise ConfigError(
            f"{sample.key}: sample.meta['draw'] is missing; read the source through SampleDataset, which sets it"
        )
    return draw.generator(sample.key, "hide:depth")


@dataclass(frozen=True)
class MixDepth:
    """Mixup or CutMix of standardised depth, by the draw that mixes the pixels beside it.

    CutMix exchanges a box of values and of their mask. Mixup blends what both rows have; where one has a hole, so has
    the result.
    """

    name: str
    mask_name: str
    drawn: MixDraw

    def apply(self, batch: Batch) -> None:
        """See the class; writes to the memory that standardisation allocated."""
        if self.drawn.share == 1.0:
            return
        values, mask = batch[self.name], batch[self.mask_name]
        targets = torch.ones(len(values), 1, device=values.device)  # what is mixed beside is of no interest here
        values, _ = mix_batch(values, targets, self.drawn)
        if self.drawn.box is None:
            mask = mask & mask.flip(0)
            values = values.masked_fill(~mask, 0.0)
        else:
            mask, _ = mix_batch(mask.clone(), targets, self.drawn)
        batch[self.name], batch[self.mask_name] = values, mask
