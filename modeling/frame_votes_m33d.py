# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""From clips to frames: what a sequence of clip predictions says about every frame of the video."""

from __future__ import annotations

import numpy as np

from .errors_m33d import ConfigError


def frame_probabilities(
    probabilities: np.ndarray, starts: np.ndarray, stops: np.ndarray, valid: np.ndarray, length: int
) -> np.ndarray:
    """Probabilities of every frame: the mean over the clips that cover it.

    A frame that no readable clip covers takes those of the nearest frame that one does, the earlier of two.

    Args:
        probabilities: (S, L) of the clips.
        starts, stops: (S,) frames [start, stop) of each clip.
        valid: (S,) bool, False for clips that could not be read: they say nothing.
        length: frames of the video.

    Returns:
        (length, L) float64; NaN everywhere where no clip could be read.

    Raises:
        ConfigError: shapes that do not agree, or a clip that leaves the video.
    """
    count, classes = probabilities.shape
    if not (len(starts) == len(stops) == len(valid) == count):
        raise ConfigError(f"{count} clips, but {len(starts)} starts, {len(stops)} stops and {len(valid)} flags")
    if count and (starts.min() < 0 or stops.max() > length):
        raise ConfigError(f"clips cover frames {starts.min()} to {stops.max() - 1} of a video of {length} frames")
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
