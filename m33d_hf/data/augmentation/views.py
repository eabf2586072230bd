"""Which frames form a clip, and the views of a video that are evaluated together, as in VideoMAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from m33d_hf.data.sample import HOLES, RGBDSample, taken_holes
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.clip_sampling_m33d import CLIP_SAMPLINGS, frame_indices


def segment_indices(
    length: int, num_frames: int, stride: int, num_segments: int = 1, sampling: str = "stride"
) -> list[list[int]]:
    """Frames of the clips of one video that are evaluated together, as in VideoMAE's test.

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
    if HOLES in meta:
        meta[HOLES] = taken_holes(meta[HOLES], positions)
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
        raise ConfigError(f"data.clip_sampling is {sampling!r}; it must be one of {', '.join(CLIP_SAMPLINGS)}.{hint}")
