"""Edges of pictures and of depth maps, and how well they lie on each other at every small shift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

_STEP, _WHOLE = 0.03, 0.1  # relative steps of depth: the smallest that is an edge, and that which is a whole one
_AROUND = 12  # pixels on each side, of the mean around that is taken from a picture's edges


def reduced(map_HW: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of `factor` x `factor` pixels; what remains at the right and bottom is left out."""
    height, width = (length // factor * factor for length in map_HW.shape)
    blocks = map_HW[:height, :width].reshape(height // factor, factor, width // factor, factor)
    means: np.ndarray = blocks.mean(axis=(1, 3))
    return means


def without_holes(depth_HW: np.ndarray) -> np.ndarray:
    """Holes get the farther of the nearest values to the left and right: they are mostly the shadow that the projector
    of the camera leaves beside an object, on what is behind it. Rows without a value stay NaN."""
    valid = np.isfinite(depth_HW) & (depth_HW > 0)
    width = depth_HW.shape[1]
    column = np.broadcast_to(np.arange(width), depth_HW.shape)
    left = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(valid, column, width)[:, ::-1], axis=1)[:, ::-1]
    known = np.where(valid, depth_HW, np.nan)
    before = np.take_along_axis(known, np.maximum(left, 0), axis=1)
    after = np.take_along_axis(known, np.minimum(right, width - 1), axis=1)
    filled: np.ndarray = np.fmax(before, after)
    return filled


def picture_edges(grey_HW: np.ndarray, axis: int) -> np.ndarray:
    """Differences of neighbours, cut off at four times their mean, less their mean around: texture says nothing."""
    steps = np.abs(np.diff(grey_HW, axis=axis))
    mean = float(steps.mean())
    if mean == 0:
        return steps
    steps = np.minimum(steps / (4 * mean), 1)
    edges: np.ndarray = steps - _box_mean(steps)
    return edges


def depth_edges(log_depth_HW: np.ndarray, axis: int) -> np.ndarray:
    """Relative steps of depth between neighbours, 0 for slopes and 1 for whole edges."""
    steps = np.abs(np.diff(log_depth_HW, axis=axis))
    steps = np.where(np.isfinite(steps) & (steps >= _STEP), steps, 0.0)
    edges: np.ndarray = np.minimum(steps / _WHOLE, 1.0)
    return edges


def zoomed(edges_HW: np.ndarray, zoom: float) -> np.ndarray:
    """The edges with their distances from the middle of the map times `zoom`; what leaves the map is dropped."""
    rows, columns = np.nonzero(edges_HW)
    height, width = edges_HW.shape
    down = np.rint((height - 1) / 2 + zoom * (rows - (height - 1) / 2)).astype(np.int64)
    right = np.rint((width - 1) / 2 + zoom * (columns - (width - 1) / 2)).astype(np.int64)
    inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
    places = down[inside] * width + right[inside]
    moved = np.bincount(places, weights=edges_HW[rows, columns][inside], minlength=height * width)
    return moved.reshape(height, width)


def correlations(pairs: Sequence[tuple[np.ndarray, np.ndarray]], radius: int) -> np.ndarray:
    """Sum over pairs and pixels p of picture(p) * edges(p + shift), for every shift up to `radius`, by FFT.

    Args:
        pairs: edges of a picture, (H, W), and N maps of edges of depth, (N, H, W), each compared by itself.
        radius: of the shifts, each way.

    Returns:
        (N, 2 radius + 1, 2 radius + 1), with [:, radius + down, radius + right].
    """
    least = np.max([picture.shape for picture, _ in pairs], axis=0) + 2 * radius
    size = [next_fast_len(int(length), real=True) for length in least]
    product = sum(np.conj(rfft2(picture, size)) * rfft2(edges, size) for picture, edges in pairs)
    surfaces = np.roll(irfft2(product, size), (radius, radius), (-2, -1))
    return surfaces[:, : 2 * radius + 1, : 2 * radius + 1]


def _box_mean(map_HW: np.ndarray) -> np.ndarray:
    """Mean over (2 _AROUND + 1)² pixels around each, the rim repeated."""
    side = 2 * _AROUND + 1
    padded = np.pad(map_HW.astype(np.float64), _AROUND, mode="edge")
    sums = np.pad(padded, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    mean: np.ndarray = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    return mean
