# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Several cameras of one case side by side: for each, in the order of `temporal_cameras`, its features and whether it
saw the clip.

A camera that did not see a clip is zeros, its flag too: the values of the others are then what they are without it. A
clip that no camera saw is zeros altogether, like every clip that could not be read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors_m33d import DataError


def joined_cameras(features: Tensor, seen: Tensor) -> Tensor:
    """Features as a model with `temporal_cameras` reads them.

    Args:
        features: (..., C, D) of the C cameras of `temporal_cameras`, in its order; anything where `seen` is False.
        seen: (..., C) bool, whether the camera showed the clip.

    Returns:
        (..., C * (D + 1)): of each camera its features, then 1 where it saw the clip; zeros where not.

    Raises:
        DataError: shapes that do not belong together.
    """
    if features.ndim < 2 or seen.shape != features.shape[:-1]:
        raise DataError(
            f"features of cameras have shape {tuple(features.shape)} and seen {tuple(seen.shape)}; expected "
            "(..., C, D) and (..., C), one flag per camera."
        )
    seen = seen.bool()[..., None]
    return torch.cat([features.masked_fill(~seen, 0.0), seen.to(features.dtype)], dim=-1).flatten(-2)


def camera_parts(joined: Tensor, cameras: int) -> tuple[Tensor, Tensor]:
    """(features (..., C, D), seen (..., C) bool) of what `joined_cameras` made."""
    parts = joined.unflatten(-1, (cameras, -1))
    return parts[..., :-1], parts[..., -1] > 0.5


def mean_of_cameras(joined: Tensor, cameras: int) -> Tensor:
    """(..., D): the mean of the features over the cameras that saw the clip; zeros where none did."""
    features, seen = camera_parts(joined, cameras)
    return features.sum(-2) / seen.sum(-1, keepdim=True).clamp_min(1)


def drop_cameras(joined: Tensor, cameras: int, probability: float) -> Tensor:
    """Joined features (B, S, ...) without some cameras: each is left out of a whole video with this probability, but
    never all that saw something of it."""
    batch = len(joined)
    draws = torch.rand(batch, cameras, device=joined.device)
    _, seen = camera_parts(joined, cameras)
    # Of the cameras that saw something, the one with the highest draw stays in any case.
    best = draws.masked_fill(~seen.any(dim=1), -1.0).argmax(dim=1)
    kept = (draws >= probability).scatter(1, best[:, None], True)
    parts = joined.unflatten(-1, (cameras, -1))
    return (parts * kept[:, None, :, None].to(joined.dtype)).flatten(-2)
