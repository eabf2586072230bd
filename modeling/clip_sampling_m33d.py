# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Which frames make a clip: one rule for training, evaluation and the processor that travels with a model."""

from __future__ import annotations

import numpy as np
import torch

from .errors_m33d import ConfigError, DataError
from .video_times_m33d import FrameTimes

CLIP_SAMPLINGS = ("stride", "span")


def frame_indices(
    length: int,
    num_frames: int,
    stride: int,
    generator: torch.Generator | None = None,
    sampling: str = "stride",
) -> list[int]:
    """Choose the `num_frames` frames of one clip from a video of `length` frames.

    Both ways cover ``num_frames * stride`` frames, the span. "stride" (VideoMAE's pre-training) takes
    frames `stride` apart: the start is drawn in [0, length - span], or is the middle of that range without a
    generator; a video shorter than that starts at 0 and repeats its last reachable frame.

    "span" (VideoMAE's fine-tuning) spreads the frames evenly from the span's first frame to its last:
    the end is drawn in [span, length), or the span lies in the middle without a generator. A video of at most a span
    gives ``length // stride`` frames spread over all of it and repeats the last frame.

    Args:
        length: frames of the video, at least 1.
        num_frames: frames of the clip, at least 1.
        stride: source frames from one frame to the next, at least 1.
        generator: source of randomness; None for the centre.
        sampling: "stride" or "span".

    Returns:
        `num_frames` ascending indices in [0, length), possibly with repetitions.
    """
    if sampling == "span":
        return _span_indices(length, num_frames, stride, generator)
    spare = max(length - num_frames * stride, 0)
    start = spare // 2 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
    reachable = (length - 1 - start) // stride
    return [start + stride * min(frame, reachable) for frame in range(num_frames)]


def _span_indices(length: int, num_frames: int, stride: int, generator: torch.Generator | None) -> list[int]:
    span = num_frames * stride
    if length <= span:
        spread = np.linspace(0, length, length // stride)
        padded = np.concatenate([spread, np.full(num_frames - len(spread), length)])
        return np.clip(padded, 0, length - 1).astype(np.int64).tolist()
    # The original never ends a span at the last frame: its end is exclusive and drawn below `length`.
    start = (length - span) // 2 if generator is None else int(torch.randint(length - span, (), generator=generator))
    points = np.linspace(start, start + span, num_frames).astype(np.int64)
    return points.clip(start, start + span - 1).tolist()


def frames_at_rate(length: int, fps: float, times: FrameTimes | None) -> np.ndarray:
    """The frames shown at 0, 1 / fps, 2 / fps, ... seconds, over the whole video.

    Args:
        length: frames of the video, at least 1.
        fps: frames per second to take.
        times: when its frames are shown; None where unknown.

    Returns:
        (n,) int64 ascending, n = the duration times `fps`, rounded down, at least 1.

    Raises:
        ConfigError: a rate of 0 or less. DataError: unknown times, or a rate above the video's.
    """
    if fps <= 0:
        raise ConfigError(f"fps is {fps}; it must be above 0")
    if times is None:
        raise DataError(f"fps={fps:g} requires the times of the frames: pass video_metadata with the video's own fps")
    if fps > times.fps * (1 + 1e-6):
        raise DataError(f"fps={fps:g} is above the frame rate of the video, {times.fps:g} frames per second")
    moments = np.arange(max(int(times.duration * fps + 1e-6), 1)) / fps
    if times.starts is None:
        return np.minimum((moments * times.fps + 1e-6).astype(np.int64), length - 1)
    return (np.searchsorted(times.starts, moments + 1e-9, side="right") - 1).clip(0, length - 1).astype(np.int64)
