# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Videos in, model inputs out: frames are sampled, placed and normalised as in evaluation, bit for bit.

transformers' usual base class for this needs torchvision, and for files a decoder that is seldom installed; this class
builds on the part below it, computes with torch alone and reads files through `video_reading_m33d`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .auto_m33d import TravelsWithItsCode
from .clip_input_m33d import M33DVideoMetadata, as_clip, as_videos, metadata_of_clips, times_of_metadata
from .clip_sampling_m33d import CLIP_SAMPLINGS, frame_indices, frames_at_rate
from .configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig
from .depth_input_m33d import black_clips, decoded, maps_of_clips
from .depth_m33d import standardize_depth
from .depth_spec_m33d import choice
from .download_m33d import downloaded, is_address
from .errors_m33d import ConfigError, DataError
from .picture_input_m33d import RESCALE_FACTOR, rgb_tensor
from .placement_fields_m33d import placement_of_clip
from .post_processing_m33d import ClipPostProcessing
from .preprocessing_m33d import normalize_rgb
from .processor_options_m33d import (
    check_values,
    checked_types,
    overriding_depth,
    per_channel,
    refuse_other_processor,
    refuse_unknown_options,
    settled_depth,
)
from .video_reading_m33d import probe_video, read_video

_INTERPOLATIONS = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}
_SAMPLING = ("num_frames", "frame_stride", "clip_sampling", "fps")


class M33DVideoProcessorKwargs(VideosKwargs, total=False):
    """Options beyond those of every video processor.

    Args:
        frame_stride: frames from one sampled frame to the next.
        clip_sampling: "stride" takes frames `frame_stride` apart; "span" spreads them evenly over the num_frames *
            frame_stride frames that those would cover, as VideoMAE's fine-tuning does.
        video_backend: what reads files: "auto", "decord", "pyav" or "frames" (folders of pictures).
        pad_size: with `do_pad`, the height and width of the result.
        depth_spec, depth_unit, depth_standardization: as for images.
        depth_standardization_scope: "clip" standardises the frames of a clip together, "frame" each by itself.
    """

    frame_stride: int | None
    clip_sampling: str | None
    pad_size: int | list[int] | tuple[int, ...] | dict[str, int] | None
    video_backend: str | None
    depth_spec: dict[str, Any] | None
    depth_unit: str | None
    depth_standardization: str
    depth_standardization_scope: str


class M33DVideoProcessor(TravelsWithItsCode, ClipPostProcessing, VideoProcessorMixin):  # type: ignore[misc]
    """Video processor of M33D models: uint8 clips, or files, to normalised (B, T, 3, H, W), with depth where given.

    Geometry is that of evaluation, see `placement_fields_m33d`: with `do_center_crop` the picture is scaled until it
    covers `size` and its centre is cut out (as evaluation does by default); with `do_pad` it is scaled until it fits
    into `max_height` and `max_width` of `size` and padded with mid-grey at the bottom and the right to the same
    `pad_size`; with neither, each axis is resized to `size`. Without `do_pad`, `size` is height and width; one side (or
    `shortest_edge`) means a square. A `crop_size` other than that is cut out of the middle as image processors do it.

    From files, `num_frames` frames are taken from the middle, `frame_stride` apart or as `clip_sampling` says, as
    evaluation does with one segment; too short a video repeats its last frame. With `fps` in place of `num_frames` the
    frames of the whole video are taken at that rate. Clips given as frames are taken whole unless
    `do_sample_frames=True`.
    """

    valid_kwargs = M33DVideoProcessorKwargs
    model_input_names = ["pixel_values", "depth_values"]  # noqa: RUF012
    resample = PILImageResampling.BILINEAR
    image_mean = list(IMAGENET_MEAN)  # noqa: RUF012
    image_std = list(IMAGENET_STD)  # noqa: RUF012
    size = {"height": 224, "width": 224}  # noqa: RUF012
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    rescale_factor = RESCALE_FACTOR
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames: bool | None = None
    num_frames: int | None = None
    fps: float | None = None
    frame_stride = 1
    clip_sampling = "stride"
    video_backend = "auto"
    depth_spec: dict[str, Any] | None = None
    depth_unit: str | None = None
    depth_standardization = "trimmed"
    depth_standardization_scope = "clip"

    def __init__(self, **kwargs: Any) -> None:
        refuse_unknown_options(kwargs, self._names(), "a video processor")
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    @classmethod
    def from_dict(  # type: ignore[override]
        cls, video_processor_dict: dict[str, Any], **kwargs: Any
    ) -> Any:
        """Build from what `to_dict` made, with options of `kwargs` in place of saved ones.

        Raises:
            ConfigError: the file of an image processor, an unknown option, or an invalid value.
        """
        refuse_other_processor(video_processor_dict, "video")
        kwargs = overriding_depth(kwargs, video_processor_dict.get("depth_spec"))
        return super().from_dict(video_processor_dict, **kwargs)

    @classmethod
    def from_model_config(cls, config: M33DConfig, **overrides: Any) -> M33DVideoProcessor:
        """Build the processor that fits a model: its image size, RGB normalisation, frames and their distance."""
        height, width = config.image_height_width
        options: dict[str, Any] = {
            "size": {"height": height, "width": width},
            "num_frames": config.num_frames,
            "frame_stride": config.temporal_frame_stride,
            "depth_standardization": config.depth_standardization,
            "depth_standardization_scope": config.depth_standardization_scope,
        }
        spec = config.spec("rgb")
        if spec.channel_mean is not None and spec.channel_std is not None:
            options |= {"image_mean": list(spec.channel_mean), "image_std": list(spec.channel_std)}
        else:
            options["do_normalize"] = False
        return cls(**{**options, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON keeps them."""
        options = dict(super().to_dict())
        options.pop("depth_unit", None)  # depth_spec says it
        return options

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        frame_stride: int | None = None,
        clip_sampling: str | None = None,
        fps: float | None = None,
    ) -> np.ndarray:
        """Frame numbers of the clip in the middle of a video, or of all of it at a rate.

        Args:
            metadata: with `total_num_frames`; for `fps` also the video's own.
            num_frames: frames of the clip; None for this processor's, and if that is None too, all frames.
            frame_stride: distance between two of them; None for this processor's.
            clip_sampling: "stride" or "span"; None for this processor's.
            fps: frames per second in place of all these, from the beginning to the end; None for this processor's.

        Returns:
            (num_frames,) int64.

        Raises:
            ConfigError: a stride below 1, an unknown way of sampling, or `fps` beside what it replaces.
            DataError: a video without frames; a rate above that of the video, or a video of unknown rate.
        """
        length = int(metadata.total_num_frames)
        if length < 1:
            raise DataError("a video without frames cannot be sampled")
        given = {"num_frames": num_frames, "frame_stride": frame_stride, "clip_sampling": clip_sampling}
        beside = [name for name, value in given.items() if value is not None]
        rate = self.fps if fps is None and not beside else fps
        if rate is not None:
            if fps is None and self.num_frames is not None:
                beside = ["num_frames"]
            if beside:
                raise ConfigError(f"fps and {beside[0]} exclude each other: pass only one of them")
            return frames_at_rate(length, rate, times_of_metadata(metadata))
        stride = self.frame_stride if frame_stride is None else frame_stride
        count = self.num_frames if num_frames is None else num_frames
        if not isinstance(stride, int | np.integer) or stride < 1:
            raise ConfigError(f"frame_stride is {stride!r}; it must be a whole number, at least 1")
        if count is not None and count < 1:
            raise ConfigError(f"num_frames is {count}; it must be at least 1")
        sampling = self.clip_sampling if clip_sampling is None else clip_sampling
        choice(sampling, CLIP_SAMPLINGS, "clip_sampling")
        if count is None:
            return np.arange(0, length, stride)
        return np.array(frame_indices(length, count, stride, sampling=sampling), dtype=np.int64)

    def __call__(  # type: ignore[override]
        self, videos: Any = None, *args: Any, **kwargs: Any
    ) -> BatchFeature:
        """Prepare videos, or depth alone; see `preprocess`."""
        return self.preprocess(videos, *args, **kwargs)

    def preprocess(self, videos: Any = None, depth: Any | None = None, **kwargs: Any) -> BatchFeature:
        """Prepare videos.

        Args:
            videos: a video or a list of them. A video is a file (path, or URL), a folder of pictures, an array
                (T, H, W, 3), a tensor (T, 3, H, W) or a list of frames (PIL, arrays, tensors), all 8-bit; a single
                image is a clip of one frame. A 5-dimensional array or tensor is a batch. None: depth is all there is.
            depth: for each video one map per frame that it has before any is sampled, (T, H, W), (T, 1, H, W) or a list
                of T maps, in which None is a frame without one: float metres with NaN where invalid, or integers as
                stored, which `depth_spec` decodes.
            kwargs: any attribute of the processor, for this call; `return_tensors`; `video_metadata` of clips given as
                frames (dicts or VideoMetadata, one per video).

        Returns:
            pixel_values (B, T, 3, H, W) float32, stacked with `return_tensors`, else a list of clips, unless there are
            no videos; with depth also depth_values (B, T, 1, H, W), standardised, 0 where invalid, and depth_mask bool;
            with `return_metadata` also video_metadata.

        Raises:
            ConfigError: unknown options, or impossible geometry or sampling.
            DepthUnitError: integer depth without a spec.
            DataError: inputs that are not 8-bit RGB, frames of several sizes in a clip, clips of several lengths to
                stack, fewer frames than the call asks for, or depth that does not fit; CorruptFileError for files.
        """
        options = self._options(kwargs)
        device, tensor_type = options.get("device"), options.get("return_tensors")
        clips, metadata, shapes = [], [], []
        if videos is None and depth is None:
            raise DataError("neither a video nor depth is given: pass one of them, or both")
        given = as_videos(videos) if videos is not None else black_clips(depth, options["depth_spec"])
        for video, told in zip(given, metadata_of_clips(options.get("video_metadata"), given)):
            frames, facts = self._frames(video, told, kwargs, options)
            shapes.append((int(facts.total_num_frames), int(frames.shape[-2]), int(frames.shape[-1])))
            clips.append(self._prepare(frames.to(device) if device is not None else frames, options))
            metadata.append(facts)
        lengths = sorted({len(clip) for clip in clips})
        if tensor_type is not None and len(lengths) > 1:
            raise DataError(f"clips of {lengths} frames cannot be stacked; pass num_frames and do_sample_frames=True")
        sizes = sorted({tuple(clip.shape[-2:]) for clip in clips})
        if tensor_type is not None and len(sizes) > 1:
            raise DataError(f"clips of {sizes} pixels cannot be stacked; resize them, or leave return_tensors out")
        data: dict[str, Any] = {} if videos is None else {"pixel_values": clips}
        if depth is not None:
            maps = zip(maps_of_clips(depth, shapes, options["depth_spec"]), metadata)
            pairs = [_depth(stored[facts.frames_indices], options) for stored, facts in maps]
            data |= {"depth_values": [pair[0] for pair in pairs], "depth_mask": [pair[1] for pair in pairs]}
        batch = BatchFeature(data, tensor_type=tensor_type)
        if options.get("return_metadata"):
            batch["video_metadata"] = metadata
        return batch

    @classmethod
    def _names(cls) -> list[str]:
        return [*cls.valid_kwargs.__annotations__, *VideosKwargs.__annotations__]

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        check_values(kwargs)
        spec, unit = settled_depth(kwargs.get("depth_spec"), kwargs.get("depth_unit"))
        return dict(super()._standardize_kwargs(**{**kwargs, "depth_spec": spec, "depth_unit": unit}))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown_options(given, self._names(), "a video processor")
        given = checked_types(self.valid_kwargs, overriding_depth(given, self.depth_spec))
        return self._standardize_kwargs(**{name: getattr(self, name, None) for name in self._names()} | given)

    def _frames(
        self, video: Any, told: VideoMetadata | None, given: dict[str, Any], options: dict[str, Any]
    ) -> tuple[Tensor, VideoMetadata]:
        """(T, 3, H, W) uint8 of one video, sampled where that is asked for."""
        sampled = options["do_sample_frames"]
        counts = {name: given[name] for name in _SAMPLING if given.get(name) is not None}
        if not isinstance(video, str | Path):
            frames = as_clip(video, options["input_data_format"])
            facts = told or VideoMetadata(len(frames), height=frames.shape[-2], width=frames.shape[-1])
            asked = counts.get("num_frames", 0)
            if int(facts.total_num_frames) != len(frames):
                raise DataError(
                    f"video_metadata states {facts.total_num_frames} frames, but the clip has {len(frames)}"
                )
            if sampled and 1 < len(frames) < asked:
                raise DataError(
                    f"{asked} frames are requested, but the clip has {len(frames)}. Leave num_frames to the processor "
                    "to repeat the last frame, as evaluation does with videos that are too short."
                )
            numbers = self.sample_frames(facts, **counts) if sampled else np.arange(len(frames))
            facts.frames_indices = numbers.tolist()
            return frames[torch.from_numpy(numbers)], facts

        def choose(metadata: VideoMetadata) -> np.ndarray:
            return np.arange(metadata.total_num_frames) if sampled is False else self.sample_frames(metadata, **counts)

        backend = options["video_backend"] or "auto"
        if not is_address(video):
            return _read(video, backend, choose)
        with downloaded(str(video)) as file:
            return _read(file, backend, choose)

    @staticmethod
    def _prepare(frames: Tensor, options: dict[str, Any]) -> Tensor:
        """Place and normalise (T, 3, H, W) uint8."""
        if options["resample"] not in _INTERPOLATIONS:
            raise ConfigError(f"resample is {options['resample']!r}; it must be bilinear (2) or bicubic (3) for videos")
        placement = placement_of_clip((int(frames.shape[-2]), int(frames.shape[-1])), options)
        if placement is not None:
            frames = placement.place_rgb(frames, _INTERPOLATIONS[options["resample"]])
        if not options["do_rescale"]:
            if options["do_normalize"]:
                raise ConfigError("do_normalize requires do_rescale, because mean and std refer to values from 0 to 1")
            return frames.float()
        if options["rescale_factor"] != RESCALE_FACTOR:
            raise ConfigError(f"rescale_factor is {options['rescale_factor']}; it must be 1/255")
        if not options["do_normalize"]:
            return normalize_rgb(frames, None, None)
        mean, std = (per_channel(options[name], name) for name in ("image_mean", "image_std"))
        return normalize_rgb(frames, mean, std)


def _read(
    path: str | Path, backend: str, choose: Callable[[VideoMetadata], np.ndarray]
) -> tuple[Tensor, VideoMetadata]:
    """The chosen frames of a file, and its facts."""
    info = probe_video(path, backend)
    times = info.times
    duration = float(times.duration) if times is not None else None
    facts = M33DVideoMetadata(info.num_frames, info.fps, info.width, info.height, duration, info.backend)
    facts.frame_times = times
    facts.frames_indices = choose(facts).tolist()
    return rgb_tensor(read_video(path, facts.frames_indices, info=info)), facts


def _depth(stored_THW: np.ndarray, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(T, 1, H, W) standardised depth of a clip, and its validity."""
    metres = torch.from_numpy(decoded(stored_THW, options["depth_spec"]))[:, None]
    placement = placement_of_clip((int(metres.shape[-2]), int(metres.shape[-1])), options)
    placed = metres if placement is None else placement.place_map(metres, math.nan)
    scope = options["depth_standardization_scope"]
    values, mask = standardize_depth(placed[None], options["depth_standardization"], scope)
    return values[0], mask[0]


__all__ = ["M33DVideoProcessor"]
