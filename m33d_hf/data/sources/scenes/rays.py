"""Distance along the rays of a fisheye camera as depth along its optical axis.

Aria's camera model Fisheye624 (Project Aria's documentation of its intrinsics) takes the direction (x, y, z) to pixels:
with theta the angle to the optical axis, d = theta (1 + k0 theta^2 + .. + k5 theta^12) and q = d (x, y) / |(x, y)|,

    u = f (q + 2 (q . p) q + |q|^2 p + (s0 |q|^2 + s1 |q|^4, s2 |q|^2 + s3 |q|^4)) + c

It is undone here by iteration; depth along the axis is then the distance times cos(theta).
"""

from __future__ import annotations

import numpy as np

from m33d_hf.errors import DataError

PARAMETERS = 12  # k0 .. k5, p0, p1, s0 .. s3
_STEPS = 20
_CLOSE = 1e-6  # what may be left, in units of the focal length


def axis_cosines(size: tuple[int, int], intrinsics: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """cos(theta) of every pixel of a Fisheye624 picture.

    Args:
        size: (height, width).
        intrinsics: (3, 3), f and c in pixels; the centre of the first pixel is (0, 0).
        distortion: (12,) k0 .. k5, p0, p1, s0 .. s3.

    Returns:
        (H, W) float64; NaN where no ray of the front half meets the pixel.

    Raises:
        DataError: another number of parameters, or values that are not finite.
    """
    if distortion.shape != (PARAMETERS,) or intrinsics.shape != (3, 3):
        raise DataError(
            f"a Fisheye624 camera has (3, 3) and (12,) parameters, not {intrinsics.shape}, {distortion.shape}"
        )
    if not (np.isfinite(distortion).all() and np.isfinite(intrinsics).all()):
        raise DataError("the parameters of the Fisheye624 camera are not all finite")
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    seen_x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
    seen_y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        bent = _bent(seen_x, seen_y, distortion.astype(np.float64))
        theta = _angle(bent, distortion[:6].astype(np.float64))
        return np.where((theta >= 0) & (theta < np.pi / 2), np.cos(theta), np.nan)


def _bent(seen_x: np.ndarray, seen_y: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """|q| of every pixel; NaN where the iteration does not settle."""
    p0, p1, s0, s1, s2, s3 = distortion[6:]
    x, y = seen_x, seen_y
    off = np.zeros_like(seen_x)
    for _ in range(_STEPS):
        square, along = x * x + y * y, 2 * (x * p0 + y * p1)
        add_x = along * x + square * p0 + s0 * square + s1 * square * square
        add_y = along * y + square * p1 + s2 * square + s3 * square * square
        off = np.maximum(np.abs(x + add_x - seen_x), np.abs(y + add_y - seen_y))
        x, y = seen_x - add_x, seen_y - add_y
    return np.where(off < _CLOSE, np.hypot(x, y), np.nan)


def _angle(bent: np.ndarray, radial: np.ndarray) -> np.ndarray:
    """theta of every |q|, by Newton's method; NaN where it does not settle."""
    theta = bent.copy()
    for _ in range(_STEPS):
        value, slope = _polynomial(theta, radial)
        theta = theta - (value - bent) / slope
    return np.where(np.abs(_polynomial(theta, radial)[0] - bent) < _CLOSE, theta, np.nan)


def _polynomial(theta: np.ndarray, radial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d(theta) and its derivative."""
    square = theta * theta
    value, slope = np.zeros_like(theta), np.zeros_like(theta)
    for power in reversed(range(len(radial))):
        value = (value + radial[power]) * square
        slope = slope * square + (2 * power + 3) * radial[power]
    return theta * (1 + value), 1 + slope * square
