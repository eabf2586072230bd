# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Videos in, model inputs out: frames are sampled, placed and normalised as in evaluation, bit for bit.

transformers' usual base class for this needs torchvision, and for files a decoder that is seldom installed; this class
builds on the part below it, computes with torch alone and reads files through `video_reading_m33d`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from torch import Tensor
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata, load_video

from .clip_sampling_m33d import CLIP_SAMPLINGS, frame_indices
from .configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig
from .errors_m33d import ConfigError, DataError, nearest_name_hint
from .placement_fields_m33d import placement_of
from .preprocessing_m33d import Placement, normalize_rgb, rgb_tensor
from .video_reading_m33d import probe_video, read_video
from .video_times_m33d import FrameTimes

_INTERPOLATIONS = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class M33DVideoProcessorKwargs(VideosKwargs, total=False):
    """Options beyond those of every video processor.

    Args:
        frame_stride: frames from one sampled frame to the next.
        clip_sampling: "stride" takes frames `frame_stride` apart; "span" spreads them evenly over the num_frames *
            frame_stride frames that those would cover, as VideoMAE's fine-tuning does.
        video_backend: what reads files: "auto", "decord", "pyav" or "frames" (folders of pictures).
        pad_size: with `do_pad`, the height and width of the result.
    """

    frame_stride: int | None
    clip_sampling: str | None
    pad_size: int | list[int] | tuple[int, ...] | dict[str, int] | None
    video_backend: str | None


class M33DVideoMetadata(VideoMetadata):
    """What transformers keeps about a video, with the times of frames whose rate varies."""

    frame_times: FrameTimes | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds from the first frame at which each sampled one is shown."""
        if self.frame_times is None or self.frames_indices is None:
            return list(super().timestamps)
        return [float(second) for second in self.frame_times.at(self.frames_indices)]


class M33DVideoProcessor(VideoProcessorMixin):  # type: ignore[misc]
    """Video processor of M33D models: uint8 clips, or files, to normalised (B, T, 3, H, W).

    Geometry is that of evaluation, see `placement_fields_m33d`: with `do_center_crop` the picture is scaled until it
    covers `size` and its centre is cut out (as evaluation does by default); with `do_pad` it is scaled until it fits
    into `max_height` and `max_width` of `size` and padded with mid-grey at the bottom and the right to the same
    `pad_size`; with neither, each axis is resized to `size`. Without `do_pad`, `size` is height and width; one side (or
    `shortest_edge`) means a square.

    From files, `num_frames` frames are taken from the middle, `frame_stride` apart or as `clip_sampling` says, as
    evaluation does with one segment; too short a video repeats its last frame. Clips given as frames are taken whole
    unless `do_sample_frames=True`.
    """

    valid_kwargs = M33DVideoProcessorKwargs
    model_input_names = ["pixel_values"]  # noqa: RUF012
    resample = PILImageResampling.BILINEAR
    image_mean = list(IMAGENET_MEAN)  # noqa: RUF012
    image_std = list(IMAGENET_STD)  # noqa: RUF012
    size = {"height": 224, "width": 224}  # noqa: RUF012
    do_resize = True
    do_center_crop = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames: bool | None = None
    num_frames: int | None = None
    frame_stride = 1
    clip_sampling = "stride"
    video_backend = "auto"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    @classmethod
    def from_model_config(cls, config: M33DConfig, **overrides: Any) -> M33DVideoProcessor:
        """Build the processor that fits a model: its image size, RGB normalisation, frames and their distance."""
        height, width = config.image_height_width
        options: dict[str, Any] = {
            "size": {"height": height, "width": width},
            "num_frames": config.num_frames,
            "frame_stride": config.temporal_frame_stride,
        }
        spec = config.spec("rgb")
        if spec.channel_mean is not None and spec.channel_std is not None:
            options |= {"image_mean": list(spec.channel_mean), "image_std": list(spec.channel_std)}
        return cls(**{**options, **overrides})

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        frame_stride: int | None = None,
        clip_sampling: str | None = None,
        **_: Any,
    ) -> np.ndarray:
        """Frame numbers of the clip in the middle of a video.

        Args:
            metadata: with `total_num_frames`.
            num_frames: frames of the clip; None for this processor's, and if that is None too, all frames.
            frame_stride: distance between two of them; None for this processor's.
            clip_sampling: "stride" or "span"; None for this processor's.

        Returns:
            (num_frames,) int64.

        Raises:
            ConfigError: a stride below 1, or an unknown way of sampling.
            DataError: a video without frames.
        """
        length = int(metadata.total_num_frames)
        stride = self.frame_stride if frame_stride is None else frame_stride
        count = self.num_frames if num_frames is None else num_frames
        if stride < 1:
            raise ConfigError(f"frame_stride is {stride}; it is at least 1")
        sampling = self.clip_sampling if clip_sampling is None else clip_sampling
        if sampling not in CLIP_SAMPLINGS:
            hint = nearest_name_hint(str(sampling), CLIP_SAMPLINGS)
            raise ConfigError(f"clip_sampling is {sampling!r}; it is one of {', '.join(CLIP_SAMPLINGS)}.{hint}")
        if length < 1:
            raise DataError("a video without frames cannot be sampled")
        if count is None:
            return np.arange(0, length, stride)
        return np.array(frame_indices(length, count, stride, sampling=sampling), dtype=np.int64)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Prepare videos.

        Args:
            videos: a video or a list of them. A video is a file (path, or URL), a folder of pictures, an array
                (T, H, W, 3), a tensor (T, 3, H, W) or a list of frames (PIL, arrays, tensors), all 8-bit; a single
                image is a clip of one frame. A 5-dimensional array or tensor is a batch.
            kwargs: any attribute of the processor, for this call; `return_tensors`.

        Returns:
            pixel_values (B, T, 3, H, W) float32, stacked with `return_tensors`, else a list of clips; with
            `return_metadata` also video_metadata.

        Raises:
            ConfigError: unknown options, or geometry and sampling that cannot be.
            DataError: inputs that are not 8-bit RGB, frames of several sizes in a clip, or clips of several lengths to
                stack; CorruptFileError for files.
        """
        options = self._options(kwargs)
        device, tensor_type = options.get("device"), options.get("return_tensors")
        clips, metadata = [], []
        for video in _videos(videos):
            frames, facts = self._frames(video, options)
            clips.append(self._prepare(frames.to(device) if device is not None else frames, options))
            metadata.append(facts)
        lengths = sorted({len(clip) for clip in clips})
        if tensor_type is not None and len(lengths) > 1:
            raise DataError(f"clips of {lengths} frames cannot be stacked; pass num_frames and do_sample_frames=True")
        data: dict[str, Any] = {"pixel_values": clips}
        batch = BatchFeature(data, tensor_type=tensor_type)
        if options.get("return_metadata"):
            batch["video_metadata"] = metadata
        return batch

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        names = [*self.valid_kwargs.__annotations__, *VideosKwargs.__annotations__]
        for name in given:
            if name not in names:
                raise ConfigError(f"a video processor has no option {name!r}.{nearest_name_hint(name, names)}")
        validate_typed_dict(self.valid_kwargs, given)  # type: ignore[type-var]
        options = {name: getattr(self, name, None) for name in names} | given
        if options["fps"] is not None:
            raise ConfigError("frames are sampled by num_frames and frame_stride, not by fps")
        return self._standardize_kwargs(**options)

    def _frames(self, video: Any, options: dict[str, Any]) -> tuple[Tensor, VideoMetadata]:
        """(T, 3, H, W) uint8 of one video, sampled where that is asked for."""
        sampled = options["do_sample_frames"]
        counts = {name: options[name] for name in ("num_frames", "frame_stride", "clip_sampling")}
        if not isinstance(video, str | Path):
            frames = _clip(video, options["input_data_format"])
            facts = VideoMetadata(len(frames), height=frames.shape[-2], width=frames.shape[-1])
            numbers = self.sample_frames(facts, **counts) if sampled else np.arange(len(frames))
            facts.frames_indices = numbers.tolist()
            return frames[torch.from_numpy(numbers)], facts

        def choose(metadata: VideoMetadata, **_: Any) -> np.ndarray:
            return np.arange(metadata.total_num_frames) if sampled is False else self.sample_frames(metadata, **counts)

        if str(video).startswith(("http://", "https://")):
            address: Any = str(video)
            pixels, facts = load_video(address, backend="pyav", sample_indices_fn=choose)
        else:
            info = probe_video(video, options["video_backend"] or "auto")
            times = info.times
            duration = float(times.duration) if times is not None else None
            facts = M33DVideoMetadata(info.num_frames, info.fps, info.width, info.height, duration, info.backend)
            facts.frames_indices = choose(facts).tolist()
            facts.frame_times = times
            pixels = read_video(video, facts.frames_indices, info=info)
        return rgb_tensor(pixels), facts

    @staticmethod
    def _prepare(frames: Tensor, options: dict[str, Any]) -> Tensor:
        """Place and normalise (T, 3, H, W) uint8."""
        if options["resample"] not in _INTERPOLATIONS:
            raise ConfigError(f"resample is {options['resample']!r}; videos are resized bilinear (2) or bicubic (3)")
        if options["do_resize"]:
            placement = _placement((frames.shape[-2], frames.shape[-1]), options)
            frames = placement.place_rgb(frames, _INTERPOLATIONS[options["resample"]])
        mean, std = (options["image_mean"], options["image_std"]) if options["do_normalize"] else (None, None)
        if not options["do_rescale"]:
            if options["do_normalize"]:
                raise ConfigError("do_normalize needs do_rescale: mean and std are those of values in 0 to 1")
            return frames.float()
        if options["rescale_factor"] != 1 / 255:
            raise ConfigError(f"rescale_factor is {options['rescale_factor']}; 8-bit values are divided by 255")
        return normalize_rgb(frames, mean, std)


def _placement(image: tuple[int, int], options: dict[str, Any]) -> Placement:
    """Where a picture of (height, width) lands, from `size` and, where given, `crop_size` or `pad_size`."""
    size = options["size"]
    if options["do_pad"]:
        placement = placement_of(image, options)
        if placement is None:
            raise ConfigError(
                "do_pad needs a size of max_height and max_width, the same pad_size, and no do_center_crop; got size "
                f"{dict(size)} and pad_size {options['pad_size'] and dict(options['pad_size'])}"
            )
        return placement
    if size.shortest_edge and not size.longest_edge:
        size = SizeDict(height=size.shortest_edge, width=size.shortest_edge)
    if not (size.height and size.width):
        raise ConfigError(f"size is {dict(size)}; it is height and width, or shortest_edge for a square")
    crop = options["crop_size"] or size
    placement = placement_of(image, {**options, "size": size, "crop_size": crop})
    if placement is None:
        raise ConfigError(
            f"crop_size is {crop.height} x {crop.width} and size {size.height} x {size.width}: the picture is scaled "
            "until it covers size, and its centre is cut out; leave crop_size out or give the same"
        )
    return placement


def _is_frame(value: Any) -> bool:
    """A single picture: PIL, or an array or tensor of two or three dimensions."""
    return hasattr(value, "convert") or getattr(value, "ndim", 0) in (2, 3)


def _videos(videos: Any) -> list[Any]:
    """What the caller gave, as a list of videos."""
    if isinstance(videos, str | Path) or _is_frame(videos):
        return [videos]
    if isinstance(videos, np.ndarray | Tensor):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, list | tuple) or not videos:
        raise DataError(f"expected videos, got {type(videos).__name__} {videos!r:.80}")
    if _is_frame(videos[0]):
        return [videos]
    return [video for part in videos for video in (_videos(part) if isinstance(part, list | tuple) else [part])]


def _clip(video: Any, layout: Any) -> Tensor:
    """(T, 3, H, W) uint8 of a clip that is not a file."""
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
        raise DataError(f"a clip has shape (T, H, W, 3) or (T, 3, H, W) with at least one frame, got {video.shape}")
    return clip


def _channels_first(pixels: Any, layout: Any) -> Any:
    """Obey `input_data_format` where an array or tensor could be read both ways."""
    if layout is None or not hasattr(pixels, "ndim") or pixels.ndim < 3:
        return pixels
    tensor = torch.as_tensor(pixels)
    return tensor.movedim(-1, -3) if str(getattr(layout, "value", layout)) == "channels_last" else tensor


__all__ = ["M33DVideoProcessor"]
