"""Which frames make a clip, and the views of a video that are evaluated together (REFERENCE 2.8 and 2.9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, nearest_name_hint

CLIP_SAMPLINGS = ("stride", "span")


def frame_indices(
    length: int,
    num_frames: int,
    stride: int,
    generator: torch.Generator | None = None,
    sampling: str = "stride",
) -> list[int]:
    """Choose the `num_frames` frames of one clip from a video of `length` frames.

    Both ways cover ``num_frames * stride`` frames, the span. "stride" (VideoMAE's pre-training, REFERENCE 2.8) takes
    frames `stride` apart: the start is drawn in [0, length - span], or is the middle of that range without a
    generator; a video shorter than that starts at 0 and repeats its last reachable frame.

    "span" (VideoMAE's fine-tuning, REFERENCE 2.9) spreads the frames evenly from the span's first frame to its last:
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


def segment_indices(
    length: int, num_frames: int, stride: int, num_segments: int = 1, sampling: str = "stride"
) -> list[list[int]]:
    """Frames of the clips of one video that are evaluated together (REFERENCE 2.9 "Test").

    Every `stride`-th frame of the video is taken, the last of them repeated up to `num_frames`; of these T', clip k
    starts at number ``k * (T' - num_frames) // (num_segments - 1)``. One segment is the centre clip of
    `frame_indices`.
    """
    if num_segments == 1:
        return [frame_indices(length, num_frames, stride, sampling=sampling)]
    reachable = list(range(0, length, stride))
    reachable += reachable[-1:] * (num_frames - len(reachable))
    spare = len(reachable) - num_frames
    starts = [number * spare // (num_segments - 1) for number in range(num_segments)]
    return [reachable[start : start + num_frames] for start in starts]


def crop_offset(spare: int, crop: int, num_crops: int) -> int:
    """First pixel of crop number `crop` of `num_crops` evenly spread ones where `spare` pixels stick out."""
    return spare // 2 if num_crops == 1 else crop * spare // (num_crops - 1)


def take_frames(sample: RGBDSample, positions: Sequence[int]) -> RGBDSample:
    """The sample with the given of its frames only (any order, may repeat); maps are copied, meta is not."""
    chosen = torch.tensor(list(positions), dtype=torch.int64)

    def taken(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values[chosen]

    meta = dict(sample.meta)
    if "modalities" in meta:
        meta["modalities"] = {name: taken(map_) for name, map_ in meta["modalities"].items()}
    return dataclasses.replace(
        sample,
        rgb=taken(sample.rgb),
        depth=taken(sample.depth),
        segmentation=taken(sample.segmentation),
        meta=meta,
    )


def check_sampling(sampling: str) -> None:
    """Refuse an unknown way of choosing frames.

    Raises:
        ConfigError: neither "stride" nor "span".
    """
    if sampling not in CLIP_SAMPLINGS:
        hint = nearest_name_hint(sampling, CLIP_SAMPLINGS)
        raise ConfigError(f"data.clip_sampling is {sampling!r}; it is one of {', '.join(CLIP_SAMPLINGS)}.{hint}")
