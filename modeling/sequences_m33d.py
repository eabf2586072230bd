# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Sequences of clips of different lengths: where each ends, and what of it a later call continues from."""

from __future__ import annotations

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]
"""What a causal temporal model keeps of the clips so far; its size does not depend on their number."""


def without_unreadable(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features with zeros for padding and for clips that could not be read, and where each sequence ends.

    Args:
        features: (B, S, D).
        mask: (B, S) bool; False inside a sequence is a clip that could not be read, False at its end is padding. None:
            all True.

    Returns:
        (B, S, D), and (B,) lengths, at least 1.
    """
    if mask is None:
        return features, torch.full((features.shape[0],), features.shape[1], device=features.device)
    mask = mask.bool()
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return features.masked_fill(~mask[..., None], 0.0), (mask * place).amax(dim=1).clamp_min(1)


def inside(lengths: Tensor, steps: int) -> Tensor:
    """(B, S) bool: False for padding."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def last_steps(joined: Tensor, lengths: Tensor, count: int) -> Tensor:
    """The last `count` steps of every sequence, those of earlier calls among them.

    Args:
        joined: (B, D, `count` + S): `count` steps of earlier calls, then the S of this one, of which `lengths` count.
        lengths: (B,).

    Returns:
        (B, D, `count`).
    """
    places = lengths[:, None] + torch.arange(count, device=joined.device)
    return torch.gather(joined, 2, places[:, None].expand(-1, joined.shape[1], -1))
