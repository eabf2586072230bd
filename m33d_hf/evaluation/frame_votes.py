"""From clips to frames: predictions for every frame of a video from those of its clips."""

from __future__ import annotations

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError


def frame_probabilities(
    probabilities: np.ndarray, starts: np.ndarray, stops: np.ndarray, valid: np.ndarray, length: int
) -> np.ndarray:
    """Probabilities of every frame: the mean over the clips that cover it.

    A frame that no readable clip covers takes those of the nearest covered frame, the earlier one in a tie.

    Args:
        probabilities: (S, L) of the clips.
        starts, stops: (S,) frames [start, stop) of each clip.
        valid: (S,) bool, False for clips that could not be read; they are ignored.
        length: frames of the video.

    Returns:
        (length, L) float64; all NaN if no clip could be read.

    Raises:
        ConfigError: shapes that do not agree, or a clip that extends beyond the video.
    """
    count, classes = probabilities.shape
    if not (len(starts) == len(stops) == len(valid) == count):
        raise ConfigError(f"{count} clips, but {len(starts)} starts, {len(stops)} stops and {len(valid)} flags")
    if count and (starts.min() < 0 or stops.max() > length):
        raise ConfigError(f"clips cover frames {starts.min()} to {stops.max() - 1} of a video with {length} frames")
    total = np.zeros((length, classes))
    votes = np.zeros(length, np.int64)
    for clip in np.flatnonzero(valid):
        total[starts[clip] : stops[clip]] += probabilities[clip]
        votes[starts[clip] : stops[clip]] += 1
    covered = np.flatnonzero(votes)
    if not len(covered):
        return np.full((length, classes), np.nan)
    total[covered] /= votes[covered, None]
    if len(covered) == length:
        return total
    frames = np.arange(length)
    after = np.searchsorted(covered, frames).clip(max=len(covered) - 1)
    before = (after - 1).clip(min=0)
    closer = np.abs(covered[after] - frames) < np.abs(covered[before] - frames)
    return total[np.where(closer, covered[after], covered[before])]


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
