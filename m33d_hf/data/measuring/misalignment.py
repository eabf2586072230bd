"""Suspected misalignment of RGB and depth: the shift, or the magnification, at which the edges of both agree best.

Edges of a depth map lie on edges of its picture, though not the other way round. For every shift (dy, dx) the products
of horizontal and of vertical edges are summed over the picture (a cross-correlation, by FFT). If both maps show the
same view, the sum is largest without a shift. Depth of a camera that was never registered to the colour camera is
besides larger or smaller than RGB, by the ratio of their focal lengths (Kinect 585 : 525), so that edges in different
places of the picture ask for different shifts, and their sum has no peak: the edges of depth are therefore also
compared at several magnifications, coarsely. One frame says little; what is added up are those of a scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from m33d_hf.data.measuring.edge_maps import correlations, depth_edges, picture_edges, reduced, without_holes, zoomed

RADIUS = 12  # shifts looked at, in working pixels, each way
WORKING_SIDE = 480  # pictures are reduced until the longer side is at most this
ZOOM_RADIUS, ZOOM_SIDE = 6, 240  # the same of the comparison at several magnifications
ZOOMS = tuple(math.exp(0.04 * step) for step in range(-9, 10))  # applied to depth, 0.70 to 1.43
_SAME = len(ZOOMS) // 2  # the number of magnification 1
_LEAST_SIDE = 5 * RADIUS  # of a reduced picture; smaller ones hold too few edges for shifts of this size
_UNITS = 10**6  # agreements are kept as integers of this fraction, so that sums do not depend on their order
_LEAST_EDGES = 50.0  # of whole ones in a frame
# A shift is suspected from so many working pixels on, where agreement there exceeds that without a shift by this
# factor, and the median over all shifts by so many standard deviations. Registered pictures of structured-light
# cameras stay within a pixel. A magnification is one of more guesses, and has to be clearer.
_LEAST_SHIFT, _GAIN, _PROMINENCE = 2, 1.3, 3.5
_ZOOM_GAIN, _ZOOM_PROMINENCE = 1.5, 4.0
# The agreement (a mean correlation) has to be more than chance, which reaches 0.015 between pictures and depth of
# different views; registered frames have 0.1 to 0.3.
_AGREEMENT = 0.03
LEAST_FRAMES = 3


_SHIFTS = (2 * RADIUS + 1, 2 * RADIUS + 1)
_MAGNIFIED = (len(ZOOMS), 2 * ZOOM_RADIUS + 1, 2 * ZOOM_RADIUS + 1)


@dataclass
class EdgeTally:
    """Agreement of the edges of RGB and depth, summed over frames, in millionths.

    Attributes:
        frames: frames that say something.
        shifts: (2 RADIUS + 1, 2 RADIUS + 1) with [RADIUS + down, RADIUS + right], where depth lies from RGB.
        zooms: (len(ZOOMS), 2 ZOOM_RADIUS + 1, 2 ZOOM_RADIUS + 1) likewise, for magnified depth.
    """

    frames: int = 0
    shifts: np.ndarray = field(default_factory=lambda: np.zeros(_SHIFTS, dtype=np.int64))
    zooms: np.ndarray = field(default_factory=lambda: np.zeros(_MAGNIFIED, dtype=np.int64))

    def merge(self, other: EdgeTally) -> None:
        """Add another tally to this one."""
        self.frames += other.frames
        self.shifts = self.shifts + other.shifts
        self.zooms = self.zooms + other.zooms

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; no sums without frames."""
        if not self.frames:
            return {"frames": 0}
        return {"frames": self.frames, "shifts": self.shifts.tolist(), "zooms": self.zooms.tolist()}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> EdgeTally:
        """The inverse of `to_dict`."""
        if not found["frames"]:
            return cls()
        return cls(found["frames"], np.asarray(found["shifts"]), np.asarray(found["zooms"]))


class Misplacement(NamedTuple):
    """How depth seems to lie on its RGB.

    Attributes:
        down, right: pixels of the picture by which it is moved.
        within: pixels by which these may be wrong.
        zoom: its size relative to RGB; 1 where only a shift was found.
        gain: agreement there over that of depth as it is.
    """

    down: int
    right: int
    within: int
    zoom: float
    gain: float


def working_factor(height: int, width: int, side: int = WORKING_SIDE) -> int:
    """By how much a picture is reduced: one working pixel is so many of its own."""
    return max(1, -(-max(height, width) // side))


def edge_agreement(rgb_3HW: np.ndarray, depth_HW: np.ndarray) -> EdgeTally | None:
    """Agreement of edges of one frame.

    Args:
        rgb_3HW: uint8.
        depth_HW: float, NaN where invalid, of the same height and width.

    Returns:
        The tally of this frame; None if the picture is too small, or too few edges of depth are known.
    """
    if min(depth_HW.shape) // working_factor(*depth_HW.shape) < _LEAST_SIDE:
        return None
    grey, depth = rgb_3HW.astype(np.float32).mean(axis=0) / 255, without_holes(depth_HW)
    found = list(_edges(grey, depth, WORKING_SIDE))
    energies = [float(sum((each**2).sum() for each in kind)) for kind in zip(*found, strict=True)]
    if energies[1] < _LEAST_EDGES or energies[0] == 0:
        return None
    shifts = correlations([(picture, edges[None]) for picture, edges in found], RADIUS)[0]
    return EdgeTally(1, _whole(shifts / math.sqrt(energies[0] * energies[1])), _zoom_agreement(grey, depth))


def _zoom_agreement(grey_HW: np.ndarray, depth_HW: np.ndarray) -> np.ndarray:
    """The surfaces at every magnification, each relative to the edges that it keeps in the picture."""
    pairs, energies = [], np.zeros((2, len(ZOOMS)))
    for picture, edges in _edges(grey_HW, depth_HW, ZOOM_SIDE):
        moved = np.stack([zoomed(edges, zoom) for zoom in ZOOMS])
        pairs.append((picture, moved))
        energies += [np.full(len(ZOOMS), (picture**2).sum()), (moved**2).sum(axis=(1, 2))]
    total = correlations(pairs, ZOOM_RADIUS)
    scale = np.sqrt(energies[0] * energies[1])[:, None, None]
    return _whole(np.divide(total, scale, out=np.zeros_like(total), where=scale > 0))


def _edges(grey_HW: np.ndarray, depth_HW: np.ndarray, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(picture, depth) of both directions, of maps reduced to `side`."""
    height, width = depth_HW.shape
    factor = working_factor(height, width, side)
    small = reduced(grey_HW, factor)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_depth = np.log(reduced(depth_HW, factor))
    for axis in (0, 1):
        yield picture_edges(small, axis), depth_edges(log_depth, axis)


def _whole(surface: np.ndarray) -> np.ndarray:
    return np.rint(_UNITS * surface).astype(np.int64)


def suspected_misplacement(tally: EdgeTally, height: int, width: int) -> Misplacement | None:
    """What the agreement of some frames of this size suggests; None if nothing, or if it is not enough to tell."""
    if tally.frames < LEAST_FRAMES:
        return None
    return _suspected_zoom(tally, height, width) or _suspected_shift(tally, height, width)


def _suspected_shift(tally: EdgeTally, height: int, width: int) -> Misplacement | None:
    surface = tally.shifts.astype(np.float64)
    down, right = (int(i) - RADIUS for i in np.unravel_index(surface.argmax(), surface.shape))
    gain = _gain(surface.max(), surface[RADIUS, RADIUS])
    # A best shift at the rim of what is looked at is no peak.
    far = _LEAST_SHIFT <= max(abs(down), abs(right)) < RADIUS
    if not (far and gain >= _GAIN and _is_clear(surface, tally.frames, _PROMINENCE)):
        return None
    factor = working_factor(height, width)
    return Misplacement(down * factor, right * factor, factor, 1.0, gain)


def _suspected_zoom(tally: EdgeTally, height: int, width: int) -> Misplacement | None:
    stack = tally.zooms.astype(np.float64)
    number, row, column = (int(i) for i in np.unravel_index(stack.argmax(), stack.shape))
    if number in (0, _SAME, len(ZOOMS) - 1):  # as large as RGB, or no peak but the rim of what is looked at
        return None
    middle = slice(ZOOM_RADIUS - 1, ZOOM_RADIUS + 2)
    gain = _gain(stack.max(), stack[_SAME, middle, middle].max())
    if not (gain >= _ZOOM_GAIN and _is_clear(stack, tally.frames, _ZOOM_PROMINENCE)):
        return None
    factor = working_factor(height, width, ZOOM_SIDE)
    down, right = (place - ZOOM_RADIUS for place in (row, column))
    return Misplacement(down * factor, right * factor, factor, 1 / ZOOMS[number], gain)


def _gain(best: float, unmoved: float) -> float:
    return best / unmoved if unmoved > 0 else math.inf


def _is_clear(surface: np.ndarray, frames: int, prominence: float) -> bool:
    """Whether the largest value is more than chance, and lies so many standard deviations above the median."""
    best, deviation = float(surface.max()), float(surface.std())
    return best >= _AGREEMENT * _UNITS * frames and best - float(np.median(surface)) >= prominence * deviation
