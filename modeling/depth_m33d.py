"""What a stored depth value means, which pixels hold one, and how a depth map is standardised and resized.

Units are settled once, by a `DepthSpec`, when a file is read; from there on depth is float metres (or a
unitless value when the spec says `relative` or `inverse`) with NaN where nothing was measured. Nothing
downstream divides by 1000, and no function here ever lets an invalid pixel touch a valid one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .errors_m33d import ConfigError, nearest_name_hint

DEPTH_KINDS = ("metric", "inverse", "relative")
# Stored units per metre. 1/5000 m is the TUM RGB-D benchmark's unit, 0.1 mm that of some Kinect v2 exports.
UNITS_PER_METRE = {
    "metre": 1.0,
    "centimetre": 100.0,
    "millimetre": 1000.0,
    "tum": 5000.0,
    "tenth_millimetre": 10000.0,
}
_UNIT_ALIASES = {
    "m": "metre",
    "meter": "metre",
    "cm": "centimetre",
    "mm": "millimetre",
    "millimeter": "millimetre",
}
STANDARDIZATION_MODES = ("trimmed", "full", "none")
STANDARDIZATION_SCOPES = ("clip", "frame")
TRIM_EPSILON = 1e-6
STD_FLOOR = 1e-3
# Values from which counting pays; below, it costs more than partitioning.
_MANY = 1 << 17


def _choice(value: str, known: Sequence[str], what: str) -> str:
    if value not in known:
        hint = nearest_name_hint(str(value), known)
        raise ConfigError(f"{what} is {value!r}; it must be one of {', '.join(known)}.{hint}")
    return value


@dataclass(frozen=True)
class DepthSpec:
    """The meaning of one data set's stored depth values.

    Attributes:
        kind: `metric` (distance along the optical axis), `inverse` (1 / distance up to a factor: disparity),
            or `relative` (an order, no unit). Only `metric` values are metres after decoding.
        unit: name of the stored unit: `metre`, `centimetre`, `millimetre`, `tum` (1/5000 m),
            `tenth_millimetre`, `custom` (whatever `scale` says) or `none` (inverse and relative). Derived
            from `scale` when left out.
        scale: stored value / scale = metres; 1000 for millimetres. Derived from `unit` when left out.
        invalid_values: stored values that mean "nothing measured". NaN and infinity always do; so do values
            <= 0 of metric and inverse maps, whatever is listed here.
        min_depth, max_depth: decoded values outside this closed range are invalid; None = no bound.

    Raises:
        ConfigError: an unknown kind or unit, a scale that is not positive, or a unit and scale that disagree.
    """

    kind: str = "metric"
    unit: str | None = None
    scale: float | None = None
    invalid_values: tuple[float, ...] = (0, 65535)
    min_depth: float | None = None
    max_depth: float | None = None

    def __post_init__(self) -> None:
        _choice(self.kind, DEPTH_KINDS, "the kind of depth")
        object.__setattr__(self, "invalid_values", tuple(self.invalid_values))
        unit, scale = self._settle_unit()
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "scale", scale)
        if self.min_depth is not None and self.max_depth is not None and self.min_depth >= self.max_depth:
            raise ConfigError(f"min_depth {self.min_depth} is not below max_depth {self.max_depth}")

    def _settle_unit(self) -> tuple[str, float]:
        """Return unit name and scale, each derived from the other where only one was given."""
        scale = None if self.scale is None else float(self.scale)
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"depth scale is {self.scale!r}; it must be positive: stored / scale = metres")
        if self.kind != "metric":
            return "none", 1.0 if scale is None else scale
        if self.unit is None:
            scale = 1000.0 if scale is None else scale
            by_scale = {value: name for name, value in UNITS_PER_METRE.items()}
            return by_scale.get(scale, "custom"), scale
        unit = _UNIT_ALIASES.get(self.unit, self.unit)
        _choice(unit, (*UNITS_PER_METRE, "custom"), "the depth unit")
        if unit == "custom":
            if scale is None:
                raise ConfigError("depth unit 'custom' needs a scale: stored value / scale = metres")
            return unit, scale
        if scale is not None and scale != UNITS_PER_METRE[unit]:
            raise ConfigError(
                f"depth unit {unit!r} means {UNITS_PER_METRE[unit]:g} per metre, but scale is {scale:g}; "
                "give one of them"
            )
        return unit, UNITS_PER_METRE[unit]

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Turn stored values of any shape and real dtype into float32 metres (or unitless), NaN = invalid."""
        stored = np.asarray(stored)
        # float32 holds every 16-bit integer exactly; wider values are divided before they are rounded.
        small = stored.dtype.itemsize <= 2 and stored.dtype.kind in "ui"
        exact = np.float32 if small else np.float64
        decoded = stored.astype(exact)
        decoded /= exact(self.scale or 1.0)
        decoded = decoded.astype(np.float32, copy=False)
        if small and 1e-30 < (self.scale or 1.0) < 1e30:
            # Neither infinite nor rounded to 0: integers tell what is invalid, in a fraction of the time.
            invalid = stored <= 0 if self.kind != "relative" else np.zeros(stored.shape, bool)
            marks: list[float] = [int(value) for value in self.invalid_values if float(value).is_integer()]
        else:
            invalid = ~np.isfinite(decoded)
            if self.kind != "relative":
                invalid |= decoded <= 0
            marks = list(self.invalid_values)
        for value in marks:
            if value or self.kind == "relative":
                invalid |= stored == value
        if self.min_depth is not None:
            invalid |= decoded < self.min_depth
        if self.max_depth is not None:
            invalid |= decoded > self.max_depth
        np.copyto(decoded, np.float32(np.nan), where=invalid)
        return decoded

    def describe(self) -> str:
        """One line for logs and cards."""
        invalid = ", ".join(f"{value:g}" for value in self.invalid_values) or "none"
        if self.kind != "metric":
            return f"{self.kind} depth without a unit (stored / {self.scale:g}; invalid values {invalid})"
        bounds = ""
        if self.min_depth is not None or self.max_depth is not None:
            low = "-inf" if self.min_depth is None else f"{self.min_depth:g}"
            high = "inf" if self.max_depth is None else f"{self.max_depth:g}"
            bounds = f", kept between {low} and {high} m"
        how = f"stored / {self.scale:g} = metres; invalid values {invalid}{bounds}"
        return f"metric depth in {self.unit} ({how})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `from_dict` is its inverse."""
        return {**asdict(self), "invalid_values": list(self.invalid_values)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DepthSpec:
        """Build from `to_dict` output; an unknown key is a ConfigError with a nearest-name hint."""
        known = [field.name for field in fields(cls)]
        for key in values:
            _choice(key, known, "a DepthSpec key")
        return cls(**values)

    def with_changes(self, **changes: Any) -> DepthSpec:
        """A copy with other fields; give `unit` or `scale`, the other follows."""
        if ("scale" in changes) != ("unit" in changes):
            changes.setdefault("scale", None)
            changes.setdefault("unit", None)
        return replace(self, **changes)


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
    _choice(mode, STANDARDIZATION_MODES, "depth standardisation")
    _choice(scope, STANDARDIZATION_SCOPES, "depth standardisation scope")
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
    _choice(mode, ("nearest", "average"), "depth resize mode")
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
