"""Suspected misalignment of RGB and depth: the small shift at which the edges of both agree best.

Edges of a depth map lie on edges of its picture, though not the other way round. For every shift (dy, dx) the products
of horizontal and of vertical edges are summed over the picture (a cross-correlation, by FFT). If both maps show the
same view, the sum is largest without a shift. One frame says little, so those of a scene are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RADIUS = 12  # shifts looked at, in working pixels, each way
WORKING_SIDE = 480  # pictures are reduced until the longer side is at most this
_LEAST_SIDE = 5 * RADIUS  # of a reduced picture; smaller ones hold too few edges for shifts of this size
_UNITS = 10**6  # agreements are kept as integers of this fraction, so that sums do not depend on their order
_STEP, _WHOLE = 0.03, 0.1  # relative steps of depth: the smallest that is an edge, and that which is a whole one
_LEAST_EDGES = 50.0  # of whole ones in a frame
# A shift is suspected from so many working pixels on, where agreement there exceeds that without a shift by this
# factor, and the median over all shifts by so many standard deviations. Registered pictures of structured-light
# cameras stay within a pixel; frames without usable edges have no peak.
_LEAST_SHIFT, _GAIN, _PROMINENCE = 2, 1.3, 4.5
LEAST_FRAMES = 3


class Shift(NamedTuple):
    """How far depth seems to lie from its RGB, in working pixels, and the agreement there over that without a shift."""

    down: int
    right: int
    gain: float


def working_factor(height: int, width: int) -> int:
    """By how much a picture is reduced: one working pixel is so many of its own."""
    return max(1, -(-max(height, width) // WORKING_SIDE))


def edge_agreement(rgb_3HW: np.ndarray, depth_HW: np.ndarray) -> np.ndarray | None:
    """Agreement of edges at every shift of depth against RGB.

    Args:
        rgb_3HW: uint8.
        depth_HW: float, NaN where invalid, of the same height and width.

    Returns:
        (2 RADIUS + 1, 2 RADIUS + 1) int64 in millionths, with [RADIUS + down, RADIUS + right]; None if the picture is
        too small, or too few edges of depth are known.
    """
    factor = working_factor(*depth_HW.shape)
    if min(depth_HW.shape) // factor < _LEAST_SIDE:
        return None
    grey = _reduced(rgb_3HW.astype(np.float32).mean(axis=0) / 255, factor)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = np.log(_reduced(_without_holes(depth_HW), factor))
    total, energies = np.zeros((2 * RADIUS + 1, 2 * RADIUS + 1)), [0.0, 0.0]
    for axis in (0, 1):
        picture, edges = _picture_edges(grey, axis), _depth_edges(depth, axis)
        total += _correlation(picture, edges)
        energies[0] += float((picture**2).sum())
        energies[1] += float((edges**2).sum())
    if energies[1] < _LEAST_EDGES or energies[0] == 0:
        return None
    return np.rint(_UNITS * total / np.sqrt(energies[0] * energies[1])).astype(np.int64)


def suspected_shift(agreement: Sequence[int] | np.ndarray, frames: int) -> Shift | None:
    """The shift that the summed agreement of some frames suggests; None if there is none, or not enough to tell."""
    side = 2 * RADIUS + 1
    surface = np.asarray(agreement, dtype=np.float64).reshape(side, side)
    if frames < LEAST_FRAMES or surface.std() == 0:
        return None
    row, column = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    best, unshifted = float(surface[row, column]), float(surface[RADIUS, RADIUS])
    down, right = row - RADIUS, column - RADIUS
    gain = best / unshifted if unshifted > 0 else float("inf")
    clear = (best - np.median(surface)) / surface.std() >= _PROMINENCE
    # A best shift at the rim of what is looked at is no peak.
    far = _LEAST_SHIFT <= max(abs(down), abs(right)) < RADIUS
    return Shift(down, right, gain) if clear and far and gain >= _GAIN else None


def _reduced(map_HW: np.ndarray, factor: int) -> np.ndarray:
    height, width = (length // factor * factor for length in map_HW.shape)
    blocks = map_HW[:height, :width].reshape(height // factor, factor, width // factor, factor)
    reduced: np.ndarray = blocks.mean(axis=(1, 3))
    return reduced


def _without_holes(depth_HW: np.ndarray) -> np.ndarray:
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


def _picture_edges(grey_HW: np.ndarray, axis: int) -> np.ndarray:
    """Differences of neighbours, cut off at four times their mean, less their mean around: texture says nothing."""
    steps = np.abs(np.diff(grey_HW, axis=axis))
    mean = float(steps.mean())
    if mean == 0:
        return steps
    steps = np.minimum(steps / (4 * mean), 1)
    edges: np.ndarray = steps - _box_mean(steps)
    return edges


def _box_mean(map_HW: np.ndarray) -> np.ndarray:
    """Mean over (2 RADIUS + 1)² pixels around each, the rim repeated."""
    side = 2 * RADIUS + 1
    sums = np.pad(np.pad(map_HW.astype(np.float64), RADIUS, mode="edge"), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    mean: np.ndarray = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    return mean


def _depth_edges(log_depth_HW: np.ndarray, axis: int) -> np.ndarray:
    steps = np.abs(np.diff(log_depth_HW, axis=axis))
    steps = np.where(np.isfinite(steps) & (steps >= _STEP), steps, 0.0)
    edges: np.ndarray = np.minimum(steps / _WHOLE, 1.0)
    return edges


def _correlation(picture_HW: np.ndarray, edges_HW: np.ndarray) -> np.ndarray:
    """Sum over pixels p of picture(p) * edges(p + shift), for every shift up to RADIUS."""
    size = [length + 2 * RADIUS for length in picture_HW.shape]
    product = np.conj(np.fft.rfft2(picture_HW, size)) * np.fft.rfft2(edges_HW, size)
    surface = np.roll(np.fft.irfft2(product, size), (RADIUS, RADIUS), (0, 1))
    return surface[: 2 * RADIUS + 1, : 2 * RADIUS + 1]
