# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""How a depth map is standardised and resized: no function here ever lets an invalid pixel touch a valid one.

Units are settled before, by a `DepthSpec`, when a file is read; from there on depth is float metres (or a unitless
value when the spec says `relative` or `inverse`) with NaN where nothing was measured.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from .depth_spec_m33d import DEPTH_KINDS, UNITS_PER_METRE, DepthSpec, choice
from .errors_m33d import ConfigError

__all__ = ["DEPTH_KINDS", "UNITS_PER_METRE", "DepthSpec", "resize_depth", "standardize_depth"]

STANDARDIZATION_MODES = ("trimmed", "full", "none")
STANDARDIZATION_SCOPES = ("clip", "frame")
TRIM_EPSILON = 1e-6
STD_FLOOR = 1e-3
# Values from which counting pays; below, it costs more than partitioning.
_MANY = 1 << 17


def _grouped(depth: torch.Tensor, scope: str) -> torch.Tensor:
    """(..., T, 1, H, W) -> (G, n): the pixels that share one mean and one deviation."""
    first = depth.dim() - (4 if scope == "clip" else 3)
    return depth.reshape(max(1, math.prod(depth.shape[:first])), -1)


def _moments(values_GN: torch.Tensor, used_GN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and unbiased variance of the used values of each row, (G, 1); 0 where too few are used."""
    count = used_GN.sum(-1, keepdim=True)
    mean = (values_GN * used_GN).sum(-1, keepdim=True) / count.clamp(min=1)
    variance = ((values_GN - mean).square() * used_GN).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return mean, variance


def _trimmed_moments_by_sort(
    values_GN: torch.Tensor, valid_GN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_trimmed_moments` without a loop or a synchronisation, for accelerators."""
    ordered = values_GN.masked_fill(~valid_GN, math.inf).sort(dim=-1).values
    count = valid_GN.sum(-1, keepdim=True)
    low, high = count // 10, 9 * count // 10
    # So few valid pixels that trimming leaves none (n = 1): keep what there is.
    high = torch.where(high > low, high, count)
    rank = torch.arange(values_GN.shape[-1], device=values_GN.device)
    used = (rank >= low) & (rank < high)
    return _moments(ordered.masked_fill(~used, 0.0), used)


def _trimmed_moments(values_GN: torch.Tensor, valid_GN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moments (G, 1) of the valid values whose rank is in [n // 10, 9 n // 10), n valid values per row."""
    if values_GN.device.type != "cpu":
        return _trimmed_moments_by_sort(values_GN, valid_GN)
    moments = np.zeros((2, len(values_GN), 1))
    for row, (values, valid) in enumerate(zip(values_GN.numpy(), valid_GN.numpy(), strict=True)):
        kept = values[valid]
        low, high = len(kept) // 10, 9 * len(kept) // 10
        ends = _order_statistics(kept, low, high - 1) if len(kept) >= _MANY else None
        if ends is not None:
            moments[:, row, 0] = _moments_between(kept, ends, low, high)
            continue
        if high > low:
            # Linear, and ten times faster than sorting.
            kept = np.partition(kept, (low, high - 1))[low:high]
        if len(kept):
            moments[0, row] = kept.mean(dtype=np.float64)
            spread = kept - moments[0, row]
            moments[1, row] = np.square(spread, out=spread).sum() / max(1, len(kept) - 1)
    mean, variance = torch.from_numpy(moments).to(values_GN.dtype)
    return mean, variance


def _order_statistics(values: np.ndarray, low: int, high: int) -> tuple[float, float] | None:
    """The values of two ranks among many, in a sixth of the time of partitioning; None for other types and signs.

    Floats that are not negative are ordered as their bits are: counting by the upper half tells where a rank lies, and
    only what shares its upper half is sorted.
    """
    if values.dtype != np.float32:
        return None
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    counts = np.bincount(upper, minlength=1 << 16)
    if counts[1 << 15 :].any():
        return None  # a sign bit
    reached = counts.cumsum()
    found = []
    for rank in (low, high):
        half = int(np.searchsorted(reached, rank, side="right"))
        sharing = np.sort(values[upper == half])
        found.append(float(sharing[rank - int(reached[half] - counts[half])]))
    return found[0], found[1]


def _moments_between(values: np.ndarray, ends: tuple[float, float], low: int, high: int) -> tuple[float, float]:
    """Mean and unbiased variance of the values of rank [low, high), the first and the last of which are `ends`.

    In float64, in another order than that of partitioning: after rounding to float32 the same but for one clip in
    millions, whose last bit may differ.
    """
    if ends[0] == ends[1]:
        return ends[0], 0.0
    above, below = values > ends[0], values < ends[1]
    inside = values[above & below]
    # Equal values at the ends, of which some ranks lie outside.
    both = np.array(ends)
    repeated = np.array([len(values) - np.count_nonzero(above) - low, high - np.count_nonzero(below)])
    count = high - low
    mean = (inside.sum(dtype=np.float64) + (both * repeated).sum()) / count
    spread = np.subtract(inside, mean, dtype=np.float64)  # NumPy 1 would stay in float32
    return mean, (np.square(spread, out=spread).sum() + ((both - mean) ** 2 * repeated).sum()) / max(1, count - 1)


def standardize_depth(
    depth: torch.Tensor, mode: str = "trimmed", scope: str = "clip"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardise depth by the statistics of its valid pixels.

    With d the valid pixels of one clip (or frame), n their number:

    - `trimmed` (MultiMAE's rule, which M33D follows; there over all pixels, here over valid ones because
      holes stored as 0 would inflate the deviation): m, v = mean and unbiased variance of the sorted
      d[n // 10 : 9 n // 10], result (d - m) / sqrt(v + 1e-6), applied to every valid pixel, trimmed or not.
    - `full`: mean and unbiased deviation of all d, result (d - mean) / max(deviation, 1e-3).
    - `none`: d as it is.

    Args:
        depth: (..., T, 1, H, W) float, NaN or infinite where invalid.
        mode: `trimmed`, `full` or `none`.
        scope: `clip` shares the statistics over T, which keeps time consistent; `frame` takes them per frame.

    Returns:
        (values, mask): values in the input's shape and dtype, exactly 0 where invalid and finite everywhere,
        also for a map without one valid pixel; mask is bool, True where valid.
    """
    choice(mode, STANDARDIZATION_MODES, "depth standardisation")
    choice(scope, STANDARDIZATION_SCOPES, "depth standardisation scope")
    if depth.dim() < 4 or depth.shape[-3] != 1:
        raise ConfigError(f"depth to standardise must be (..., T, 1, H, W); got {tuple(depth.shape)}")
    mask = torch.isfinite(depth)
    filled = depth.masked_fill(~mask, 0.0)
    if mode == "none":
        return filled, mask
    # Half precision would lose the variance of a far wall; the sums are taken in at least float32.
    values = _grouped(filled, scope)
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    valid = _grouped(mask, scope)
    if mode == "trimmed":
        mean, variance = _trimmed_moments(values, valid)
        deviation = (variance + TRIM_EPSILON).sqrt()
    else:
        mean, variance = _moments(values, valid)
        deviation = variance.sqrt().clamp(min=STD_FLOOR)
    standardized = (values - mean).div_(deviation).masked_fill_(~valid, 0.0)
    return standardized.reshape(depth.shape).to(depth.dtype), mask


def resize_depth(depth: torch.Tensor, size: tuple[int, int], mode: str = "nearest") -> torch.Tensor:
    """Resize depth (..., H, W) with NaN holes to `size` (height, width), mixing no valid with invalid pixels.

    `nearest` (the default; pixel centres aligned, as torch's `nearest-exact`) invents no depth between a near
    edge and the wall behind it. `average` takes the mean of the valid pixels under each target pixel, for
    shrinking where noise matters more than edges; a target pixel is valid when at least half of its area is.
    """
    choice(mode, ("nearest", "average"), "depth resize mode")
    height, width = (int(side) for side in size)
    if height < 1 or width < 1:
        raise ConfigError(f"cannot resize depth to {height}x{width}")
    if depth.shape[-2:] == (height, width):
        return depth
    maps = depth.reshape(-1, 1, *depth.shape[-2:])
    if mode == "nearest":
        resized = F.interpolate(maps, size=(height, width), mode="nearest-exact")
    else:
        valid = torch.isfinite(maps)
        share = F.interpolate(valid.to(maps.dtype), size=(height, width), mode="area")
        total = F.interpolate(maps.masked_fill(~valid, 0.0), size=(height, width), mode="area")
        resized = (total / share.clamp(min=1e-12)).masked_fill(share < 0.5, math.nan)
    return resized.reshape(*depth.shape[:-2], height, width)
