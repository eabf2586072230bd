"""Statistics of one depth file's stored values that tell units, devices and common faults apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m33d_hf.modeling.depth_spec_m33d import rotated_back

_PIXELS = 20_000
# Kinect v1 measures in eighths of a pixel of disparity: 1 / (8 x 580 pixels x 0.075 m), in 1/m.
KINECT_STEP = 0.00287
_FEWEST_LEVELS, _EVEN = 40, 0.12
# Raw disparity of Kinect v1: 11 bits, the largest of which means "nothing"; 1084 is where distance becomes infinite.
RAW_INVALID, _RAW_NEAREST, _RAW_FARTHEST = 2047, 200, 1100
_SKY_FACTOR, _SKY_SHARE = 8.0, 0.001


@dataclass(frozen=True)
class Figures:
    """Statistics of the valid stored values of one file: above 0, finite, and not the largest value of the type.

    Attributes:
        integer: whether the values are integers; `eight_bit` those of 8 bits.
        shape: (height, width).
        values: stored values, thinned, invalid ones included.
        valid, valid_share: number and share of valid ones among `values`.
        median, low, high, far: quantiles .5, .05, .95 and .99 of the valid ones without the sky; 0 without any.
        median_rotated: the median, had the bits been rotated as SUN RGB-D's are; 0 where they cannot.
        multiples_of_4, _5, _8, _10: shares of the valid values, in [0, 1]; 0 for floats.
        low_bits_0_1: share of values whose lowest 3 bits are 0 or 1, in [0, 1]; 0 for floats.
        steps: even step of 1 / value between neighbouring levels, the mark of a stereo or pattern camera; None without.
        sky: smallest of a group of values far beyond all others; None without such a group.
        below_sky: largest of the others; infinite without such a group.
        exchanged: whether the two bytes of each value are exchanged.
        raw_kinect: whether the values (bytes exchanged or not) are a Kinect's raw disparity.
        neighbours: mean difference of neighbouring pixels as read, and with the bytes exchanged.
    """

    integer: bool
    eight_bit: bool
    shape: tuple[int, int]
    values: np.ndarray
    valid: int
    valid_share: float
    median: float = 0.0
    low: float = 0.0
    high: float = 0.0
    far: float = 0.0
    median_rotated: float = 0.0
    multiples_of_4: float = 0.0
    multiples_of_5: float = 0.0
    multiples_of_8: float = 0.0
    multiples_of_10: float = 0.0
    low_bits_0_1: float = 0.0
    steps: float | None = None
    sky: float | None = None
    below_sky: float = math.inf
    exchanged: bool = False
    raw_kinect: bool = False
    neighbours: tuple[float, float] = (0.0, 0.0)


def saturation(dtype: np.dtype) -> int:
    """The value at which integers of a depth file end: Pillow widens some 16-bit files, which keep 65535."""
    return 255 if dtype.itemsize == 1 else 65535


def thinned(values: np.ndarray, pixels: int = _PIXELS) -> np.ndarray:
    """Every n-th of the values (any shape), flat, about `pixels` of them, from all rows and columns."""
    flat = values.ravel()
    step = max(1, flat.size // pixels)
    # A step that divides the width would take single columns alone.
    if values.ndim == 2 and step > 1 and math.gcd(step, values.shape[1]) > 1:
        step += next(more for more in range(step + 1) if math.gcd(step + more, values.shape[1]) == 1 or more == step)
    return flat[::step]


def measure(stored: np.ndarray) -> Figures:
    """The statistics of one map (H, W) of integers or floats."""
    integer = stored.dtype.kind != "f"
    values = thinned(stored)
    valid = values[_valid(values)]
    shape = (int(stored.shape[0]), int(stored.shape[1]))
    share = valid.size / max(1, values.size)
    if not valid.size:
        return Figures(integer, stored.dtype.itemsize == 1, shape, values, 0, share)
    sky, below = _sky(valid)
    near = valid if sky is None else valid[valid < sky]
    median, low, high, far = (float(value) for value in np.percentile(near, [50, 5, 95, 99]))
    found: dict[str, object] = {"median": median, "low": low, "high": high, "far": far, "sky": sky, "below_sky": below}
    if integer and stored.dtype.itemsize > 1:
        found |= _integer_figures(stored, near)
    return Figures(integer, stored.dtype.itemsize == 1, shape, values, int(valid.size), share, **found)  # type: ignore[arg-type]


def _valid(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isfinite(values) & (values > 0)
    return (values > 0) & (values != saturation(values.dtype))


def _sky(valid: np.ndarray) -> tuple[float | None, float]:
    """Where a group of values begins that lies far beyond the rest, and the rest's largest.

    The rest must be at least a twentieth of the values: a floor under an empty sky.
    """
    top = float(valid.max())
    beyond = valid >= top / 2
    rest = valid[valid < top / 2]
    if rest.size < 0.05 * valid.size or beyond.mean() < _SKY_SHARE:
        return None, math.inf
    largest = float(np.percentile(rest, 99.9))
    if top / 2 < _SKY_FACTOR / 2 * largest:
        return None, math.inf
    return float(valid[beyond].min()), float(rest.max())


def _integer_figures(stored: np.ndarray, valid: np.ndarray) -> dict[str, object]:
    whole = valid.astype(np.int64)
    found: dict[str, object] = {
        f"multiples_of_{number}": float((whole % number == 0).mean()) for number in (4, 5, 8, 10)
    }
    found["low_bits_0_1"] = float((whole % 8 <= 1).mean())
    if int(whole.max()) < 1 << 16:
        found["median_rotated"] = float(np.median(rotated_back(whole)))
        found["steps"] = _even_steps(stored)
        found |= _byte_order(stored)
    return found


def _even_steps(stored: np.ndarray) -> float | None:
    """The step of 1 / value between the levels that occur, where it is the same everywhere."""
    kept = stored[(stored > 0) & (stored < saturation(stored.dtype))]
    levels = np.flatnonzero(np.bincount(kept.astype(np.int64), minlength=2) >= 2)
    low, high = np.percentile(kept, [5, 95])
    levels = levels[(levels >= low) & (levels <= high)]
    if len(levels) < _FEWEST_LEVELS or len(levels) > 0.5 * (high - low):
        return None
    steps = -np.diff(1.0 / levels)
    quarter, middle, three = np.percentile(steps, [25, 50, 75])
    return float(middle) if three - quarter <= _EVEN * middle else None


def _byte_order(stored: np.ndarray) -> dict[str, object]:
    """Whether exchanging the bytes makes a surface of what is noise as read, and whether it is raw disparity then."""
    rows = stored[:: max(1, stored.shape[0] // 64)]
    if rows.shape[1] < 2 or (rows > 65535).any():
        return {}
    rows = rows.astype(np.uint16)
    swapped = rows.byteswap()
    as_read, exchanged = _neighbours(rows), _neighbours(swapped)
    # Multiples of 256 are 8 bits moved up, which exchanging merely moves down.
    moved = float((rows % 256 == 0).mean()) > 0.9
    wrong = not moved and as_read > 4.0 * exchanged and exchanged > 0
    return {
        "exchanged": wrong,
        "raw_kinect": _is_raw_kinect(swapped if wrong else rows),
        "neighbours": (as_read, exchanged),
    }


def _neighbours(rows: np.ndarray) -> float:
    """Mean difference of horizontal neighbours, both of them valid (above 0, not saturated)."""
    valid = (rows > 0) & (rows < 65535)
    both = valid[:, 1:] & valid[:, :-1]
    steps = np.abs(np.diff(rows.astype(np.int32), axis=1))[both]
    if not steps.size:
        return 0.0
    return float(np.median(steps)) or float(steps.mean())


def _is_raw_kinect(rows: np.ndarray) -> bool:
    if int(rows.max()) != RAW_INVALID:
        return False
    invalid = rows == RAW_INVALID
    rest = rows[~invalid & (rows > 0)]
    if invalid.mean() < 0.005 or not rest.size:
        return False
    return bool(rest.min() > _RAW_NEAREST and np.percentile(rest, 99.9) <= _RAW_FARTHEST)
