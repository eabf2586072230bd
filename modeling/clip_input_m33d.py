# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Clips as users pass them: recognises the many forms, converts to uint8 RGB and finds the times of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from .errors_m33d import ConfigError, DataError
from .picture_input_m33d import rgb_tensor
from .video_times_m33d import FrameTimes


class M33DVideoMetadata(VideoMetadata):
    """transformers' metadata of a video, with the times of the frames where the frame rate varies."""

    frame_times: FrameTimes | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds from the first frame at which each sampled one is shown."""
        if self.frame_times is None or self.frames_indices is None:
            return list(super().timestamps)
        return [float(second) for second in self.frame_times.at(self.frames_indices)]


def times_of_metadata(metadata: VideoMetadata) -> FrameTimes | None:
    """The times of the frames of a video; None if its metadata does not have them."""
    times = getattr(metadata, "frame_times", None)
    return times or (FrameTimes(int(metadata.total_num_frames), float(metadata.fps)) if metadata.fps else None)


def metadata_of_clips(given: Any, videos: list[Any]) -> list[VideoMetadata | None]:
    """The caller's metadata of each video that is a clip of frames.

    Args:
        given: metadata (dicts or VideoMetadata), one or a list of them, possibly of lists; None for nothing.
        videos: as `as_videos` returns them.

    Raises:
        ConfigError: unknown keys, or metadata for a file, which has its own.
        DataError: not one per video.
    """
    if given is None:
        return [None] * len(videos)
    parts = _flat(given)
    if len(parts) != len(videos):
        raise DataError(f"{len(parts)} video_metadata for {len(videos)} videos; pass one for each.")
    found: list[VideoMetadata | None] = []
    for part, video in zip(parts, videos):
        if part is not None and isinstance(video, str | Path):
            raise ConfigError(
                f"{video} has its own times; pass video_metadata only for clips given as frames, and None for files"
            )
        try:
            found.append(part if part is None or isinstance(part, VideoMetadata) else VideoMetadata(**part))
        except TypeError as error:
            raise ConfigError(f"video_metadata is {part!r:.200}: {error}") from error
    return found


def _flat(given: Any) -> list[Any]:
    return [each for part in given for each in _flat(part)] if isinstance(given, list | tuple) else [given]


def _is_frame(value: Any) -> bool:
    """A single picture: PIL, or an array or tensor of two or three dimensions."""
    return hasattr(value, "convert") or getattr(value, "ndim", 0) in (2, 3)


def as_videos(videos: Any) -> list[Any]:
    """The videos of the caller as a list: files (str or Path) and clips.

    A list of PIL images, or of arrays or tensors of two or three dimensions, is one clip; an array or tensor of five
    dimensions is a batch.

    Raises:
        DataError: nothing, or none of these.
    """
    if isinstance(videos, str | Path) or _is_frame(videos):
        return [videos]
    if isinstance(videos, np.ndarray | Tensor):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, list | tuple) or not videos:
        raise DataError(f"expected videos, got {type(videos).__name__} {videos!r:.80}")
    if _is_frame(videos[0]):
        return [videos]
    return [video for part in videos for video in (as_videos(part) if isinstance(part, list | tuple) else [part])]


def as_clip(video: Any, layout: Any) -> Tensor:
    """(T, 3, H, W) uint8 of a clip that is not a file.

    Args:
        video: frames (PIL, arrays, tensors) or an array or tensor of them.
        layout: "channels_first" or "channels_last" for ambiguous arrays; None infers it from the shape.

    Raises:
        DataError: not 8-bit RGB, frames of several sizes, or no frame.
    """
    if _is_frame(video):
        video = [video]
    if isinstance(video, list | tuple):
        frames = [rgb_tensor(_channels_first(frame, layout)) for frame in video]
        sizes = sorted({tuple(frame.shape[-2:]) for frame in frames})
        if len(sizes) > 1:
            raise DataError(f"the frames of a clip differ in size: {sizes}")
        return torch.stack(frames)
    clip = rgb_tensor(_channels_first(video, layout))
    if clip.dim() != 4 or len(clip) == 0:
        raise DataError(
            f"a clip must have shape (T, H, W, 3) or (T, 3, H, W) with at least one frame, got {video.shape}"
        )
    return clip


def _channels_first(pixels: Any, layout: Any) -> Any:
    """Obey `input_data_format` where an array or tensor could be read both ways."""
    if layout is None or not hasattr(pixels, "ndim") or pixels.ndim < 3:
        return pixels
    tensor = torch.as_tensor(pixels)
    return tensor.movedim(-1, -3) if str(getattr(layout, "value", layout)) == "channels_last" else tensor
