"""From clips to frames: predictions for every frame of a video from those of its clips."""

from __future__ import annotations

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.modeling.frame_votes_m33d import frame_probabilities

__all__ = ["frame_phases", "frame_probabilities"]


def frame_phases(
    probabilities: np.ndarray, starts: np.ndarray, stops: np.ndarray, valid: np.ndarray, length: int
) -> np.ndarray:
    """(length,) uint8 most probable class of every frame, all 255 if no clip could be read.

    See `frame_probabilities`.
    """
    found = frame_probabilities(probabilities, starts, stops, valid, length)
    if not len(found) or np.isnan(found[0, 0]):
        return np.full(length, IGNORE_INDEX, np.uint8)
    return found.argmax(axis=1).astype(np.uint8)
