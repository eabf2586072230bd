# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Pipelines for models that see depth: from RGB, from RGB with depth, or from depth alone.

transformers' pipelines take a picture, or a video, and nothing beside it. These two take a dict instead, and what its
keys leave out the model does without; everything else, the results included, is as in transformers' own. `import
m33d_hf` registers them by the names in `RGBD_TASKS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, AutoModelForVideoClassification
from transformers.image_utils import load_image
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline
from transformers.pipelines.video_classification import VideoClassificationPipeline

from .depth_input_m33d import as_array, decoded
from .depth_spec_m33d import DepthSpec
from .errors_m33d import ConfigError, CorruptFileError, DataError, decoding, nearest_name_hint
from .netpbm_m33d import is_netpbm, read_netpbm
from .picture_files_m33d import opened, picture_size, read_file
from .picture_input_m33d import upright_image
from .processor_options_m33d import spec_of


class _TakesDepth:
    """What both pipelines share; comes before transformers' own class in the bases."""

    _what = ""  # the key beside "depth"

    def check_model_type(self, supported_models: Any) -> None:
        """Refuse models without depth among their inputs; transformers would compare their class with a fixed list.

        Raises:
            ConfigError: the model sees RGB alone.
        """
        del supported_models
        if "depth" not in self._takes:
            raise ConfigError(
                f"{type(self.model).__name__} sees RGB alone, so that depth would be left unused. Use transformers' "  # type: ignore[attr-defined]
                "own pipeline, or fine-tune a model with --model.task_inputs '[rgb, depth]'."
            )

    @property
    def _takes(self) -> tuple[str, ...]:
        return tuple(getattr(self.model, "task_inputs", ()))  # type: ignore[attr-defined]

    def __call__(self, inputs: Any = None, *, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Predict from one input, or from each of a list, a generator or a data set of them; see the class."""
        size = batch_size or self._batch_size or 1  # type: ignore[attr-defined]
        return super().__call__(inputs, batch_size=batch_size, in_batches=size > 1, **kwargs)  # type: ignore[misc]

    def _sanitize_parameters(
        self, in_batches: bool | None = None, depth_unit: str | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before, during, after = super()._sanitize_parameters(**kwargs)  # type: ignore[misc]
        given = {"in_batches": in_batches, "depth_unit": depth_unit}
        return before | {name: each for name, each in given.items() if each is not None}, during, after

    def _parts(self, inputs: Any) -> tuple[Any, Any]:
        """(picture or video, depth) of one input, None where it is not given.

        Raises:
            ConfigError: an unknown key, or something that the model does not see. DataError: neither of both.
        """
        known = (self._what, "depth")
        parts = dict(inputs) if isinstance(inputs, Mapping) else {self._what: inputs}
        for name in parts:
            if name not in known:
                hint = nearest_name_hint(str(name), known)
                raise ConfigError(f"an input has the key {name!r}; the keys are {known[0]!r} and 'depth'.{hint}")
        seen, depth = (parts.get(name) for name in known)
        if seen is None and depth is None:
            raise DataError(f"an input has neither {self._what!r} nor 'depth'")
        if seen is not None and "rgb" not in self._takes:
            raise ConfigError(f"this model sees depth alone: pass {{'depth': ...}} without {self._what!r}")
        return seen, depth

    def _completed(self, values: Any, alone: bool, in_batches: bool) -> Any:
        """The processor's values without the black stand-in of RGB; in batches with depth that is one hole if there is
        none, because every element of a batch must have the same keys."""
        if alone:
            if in_batches and "rgb" in self._takes:
                raise ConfigError(
                    "inputs of depth alone cannot be batched with others: pass batch_size=1, or leave them to a call "
                    "of their own with batch_size=1"
                )
            values.pop("pixel_values")
        elif in_batches and "depth_values" not in values:
            values["depth_values"] = torch.zeros_like(values["pixel_values"][..., :1, :, :])
            values["depth_mask"] = torch.zeros_like(values["depth_values"], dtype=torch.bool)
        return values.to(self.dtype)  # type: ignore[attr-defined]


class RGBDImageSegmentationPipeline(_TakesDepth, ImageSegmentationPipeline):  # type: ignore[misc]
    """Segment pictures by RGB, RGB with depth, or depth alone: "rgbd-image-segmentation".

    An input is `{"image": ..., "depth": ...}`, or one of both keys, or a picture as it is. The image is a path, an
    address, a PIL image or an (H, W, 3) uint8 array; depth is a path (16-bit PNG, TIFF, PGM, `.npy`), a PIL image, an
    array or a tensor of the image's size. Stored integers mean what the processor's `depth_spec` says, or `depth_unit`
    of a call ("millimetre", "tum", ...); floats are metres, NaN where nothing was measured. Results, `subtask` and
    `timeout` are those of transformers' "image-segmentation".

    Raises:
        ConfigError: a model of RGB alone, an unknown key, an input that the model does not see.
        DataError: nothing given, depth of another size than its image's; DepthUnitError for integers without a unit;
            CorruptFileError for files.
    """

    _what = "image"
    image_processor: Any

    def preprocess(  # type: ignore[override]
        self,
        inputs: Any,
        subtask: str | None = None,
        timeout: float | None = None,
        in_batches: bool = False,
        depth_unit: str | None = None,
    ) -> Any:
        """Inputs of the model for one picture, and its size as `target_size`."""
        del subtask  # of models of several
        seen, depth = self._parts(inputs)
        options = {} if depth is None else {"depth": _as_map(depth), **_unit(depth_unit)}
        image, size = _black(options["depth"]) if seen is None else _picture(seen, timeout)
        values = self.image_processor(images=[image], return_tensors="pt", **options)
        values = self._completed(values, seen is None, in_batches)
        values["target_size"] = [size]
        return values


class RGBDVideoClassificationPipeline(_TakesDepth, VideoClassificationPipeline):  # type: ignore[misc]
    """Classify videos by RGB, RGB with depth, or depth alone: "rgbd-video-classification".

    An input is `{"video": ..., "depth": ...}`, or one of both keys, or a video as it is. The video is a path, an
    address, a folder of pictures or a (T, H, W, 3) uint8 array; depth has one map for each frame of the video, before
    any is sampled: an array (T, H, W), the path of one (`.npy`), or a list of T maps, each as for pictures, in which
    None is a frame without one. Frames are sampled as in evaluation, unless `num_frames` or `frame_sampling_rate` of a
    call says otherwise. Results, `top_k` and `function_to_apply` are those of transformers' "video-classification".

    Raises:
        ConfigError, DataError: as for pictures; a list without any map.
    """

    _what = "video"
    video_processor: Any

    def preprocess(  # type: ignore[override]
        self,
        inputs: Any,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        in_batches: bool = False,
        depth_unit: str | None = None,
    ) -> Any:
        """Inputs of the model for one video."""
        seen, depth = self._parts(inputs)
        options: dict[str, Any] = {}
        if depth is not None:
            maps = _as_maps(depth, _spec(self.video_processor.depth_spec, depth_unit))
            options = {"depth": maps, **_unit(depth_unit)}
        if self.video_processor.num_frames is None and num_frames is None:
            num_frames = self.model.config.num_frames
        asked = {"num_frames": num_frames, "frame_stride": frame_sampling_rate}
        options |= {name: value for name, value in asked.items() if value is not None}
        video = _black_frames(options["depth"]) if seen is None else seen
        values = self.video_processor(video, do_sample_frames=True, return_tensors="pt", **options)
        return self._completed(values, seen is None, in_batches)


RGBD_TASKS: dict[str, tuple[type[Any], type[Any]]] = {
    "rgbd-image-segmentation": (RGBDImageSegmentationPipeline, AutoModelForSemanticSegmentation),
    "rgbd-video-classification": (RGBDVideoClassificationPipeline, AutoModelForVideoClassification),
}
"""Name for `pipeline(...)` -> its class, and the Auto class that loads its model."""


def _unit(depth_unit: str | None) -> dict[str, str]:
    return {} if depth_unit is None else {"depth_unit": depth_unit}


def _spec(own: Any, depth_unit: str | None) -> dict[str, Any] | None:
    """What stored values mean: the processor's own, with the unit of the call in place of its own."""
    if depth_unit is None:
        return own
    return (DepthSpec(unit=depth_unit) if own is None else spec_of(own).with_changes(unit=depth_unit)).to_dict()


def _picture(image: Any, timeout: float | None) -> tuple[Any, tuple[int, int]]:
    """What the processor takes, and the (height, width) of the upright picture."""
    if isinstance(image, Path) or (isinstance(image, str) and Path(image[:255]).is_file()):
        path = Path(image)
        height, width, _ = picture_size(path, read_file(path))
        return path, (height, width)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise DataError(f"an image array must be (H, W, 3) uint8, got {image.dtype} of shape {image.shape}")
        image = Image.fromarray(image)
    elif isinstance(image, str):
        with decoding(f"{image:.80}", "is no file, and cannot be downloaded or decoded"):
            image = load_image(image, timeout=timeout)
    elif not hasattr(image, "convert"):
        raise DataError(f"an image must be a path, an address, a PIL image or an array, not {type(image).__name__}")
    upright = upright_image(image)[0]
    return image, (upright.height, upright.width)


def _black(depth: Any) -> tuple[Any, tuple[int, int]]:
    """A picture of a map's size, which the processor wants, and that size."""
    shape = as_array(depth)[0].squeeze().shape
    if len(shape) != 2:
        raise DataError(f"a depth map must be (H, W), got shape {shape}")
    return Image.new("RGB", shape[::-1]), shape


def _black_frames(maps: Any) -> np.ndarray:
    """Frames of the size of a clip's maps: (T, H, W, 3)."""
    arrays = [as_array(each)[0].squeeze() for each in maps]
    shapes = sorted({each.shape for each in arrays})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise DataError(f"depth of a video must be T maps (H, W) of one size, got {shapes}")
    return np.zeros((len(arrays), *shapes[0], 3), np.uint8)


def _as_map(depth: Any) -> Any:
    """A map for the processor: what a path holds, or the value as it is."""
    if not isinstance(depth, str | Path):
        return depth
    path = Path(depth)
    if path.suffix.lower() == ".npy":
        with decoding(path):
            return np.load(path, allow_pickle=False)
    data = read_file(path)
    if is_netpbm(data):
        return read_netpbm(path, data)
    with opened(path, data) as image:
        image.load()
    return image


def _as_maps(depth: Any, spec: Any) -> Any:
    """Depth of a clip for the processor: an array, or a list of maps with holes for frames that have none."""
    if isinstance(depth, str | Path):
        if Path(depth).suffix.lower() != ".npy":
            raise CorruptFileError(
                depth, "is no .npy array (T, H, W); pass a list of maps, or use predict.py --depth, which reads folders"
            )
        return _as_map(depth)
    if not isinstance(depth, list | tuple):
        return depth
    maps = [None if each is None else as_array(_as_map(each))[0] for each in depth]
    known = [each for each in maps if each is not None]
    if not known:
        raise DataError("none of the frames has depth: leave 'depth' out")
    if len(known) == len(maps):
        return maps
    hole = np.full(known[0].shape, np.nan, np.float32)  # integers have no such value, hence metres for all
    return [hole if each is None else decoded(each, spec) for each in maps]


__all__ = ["RGBD_TASKS", "RGBDImageSegmentationPipeline", "RGBDVideoClassificationPipeline"]
