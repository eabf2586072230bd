# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Pipelines for models that see depth: from RGB, from RGB with depth, or from depth alone.

transformers' pipelines take a picture, or a video, and nothing beside it. These two take a dict instead, and what its
keys leave out the model does without; everything else, the results included, is as in transformers' own. `import
m33d_hf` registers them by the names in `RGBD_TASKS`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, AutoModelForVideoClassification
from transformers.image_utils import load_image
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline
from transformers.pipelines.video_classification import VideoClassificationPipeline

from .depth_input_m33d import black_pictures
from .depth_spec_m33d import DepthSpec
from .download_m33d import downloaded, is_address
from .errors_m33d import ConfigError, CorruptFileError, DataError, decoding, nearest_name_hint
from .netpbm_m33d import is_netpbm, read_netpbm
from .picture_files_m33d import opened, picture_size, read_file
from .picture_input_m33d import is_file_name, upright_image


class _TakesDepth:
    """What both pipelines share; comes before transformers' own class in the bases."""

    _what = ""  # the key beside "depth"
    _head = ""  # name of the model's class
    _processor = ""  # attribute with the processor
    _own: tuple[str, ...] = ()  # options of transformers' own class
    model: Any

    def check_model_type(self, supported_models: Any) -> None:
        """Refuse what cannot predict from depth; transformers would compare the model's class with a fixed list.

        Raises:
            ConfigError: another head, a model of RGB alone, or no processor.
        """
        del supported_models
        if not any(cls.__name__ == self._head for cls in type(self.model).__mro__):
            raise ConfigError(f"{type(self).__name__} needs a {self._head}, not a {type(self.model).__name__}")
        if "depth" not in self.model.task_inputs:
            raise ConfigError(
                f"this {self._head} sees RGB alone, so that depth would be left unused. Use transformers' own "
                "pipeline, or fine-tune a model with --model.task_inputs '[rgb, depth]'."
            )
        if getattr(self, self._processor, None) is None:
            raise ConfigError(
                f"{type(self).__name__} needs the model's {self._processor}: pass a folder that has one, or "
                f"{self._processor}="
            )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As transformers', which leaves processors of videos out."""
        getattr(self, self._processor).save_pretrained(save_directory)  # first: the library may push the folder
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]

    def __call__(self, inputs: Any = None, *, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Predict from one input, or from each of a list, a generator or a data set of them; see the class."""
        if inputs is None or (isinstance(inputs, Sequence) and not isinstance(inputs, str) and not len(inputs)):
            raise DataError(f"no input: pass {{'{self._what}': ..., 'depth': ...}}, or a list of such")
        size = batch_size or self._batch_size or 1  # type: ignore[attr-defined]
        inputs = _iterated(inputs)
        several = isinstance(inputs, list | Iterator | torch.utils.data.Dataset)
        filled = self._filled(inputs) if size > 1 and several else False
        return super().__call__(inputs, batch_size=batch_size, filled=filled, **kwargs)  # type: ignore[misc]

    def _filled(self, inputs: Any) -> bool:
        """Whether inputs without depth need a hole in its place: elements of a batch must have the same keys.

        Raises:
            ConfigError: depth alone beside others in one list.
        """
        if not isinstance(inputs, list):
            return True  # what will come is not known
        kinds = {tuple(each is not None for each in self._parts(one)) for one in inputs}
        if len(kinds) > 1 and (False, True) in kinds:
            raise ConfigError("depth alone cannot share a batch with others: predict it in a call of its own")
        return len(kinds) > 1

    def _sanitize_parameters(
        self, filled: bool | None = None, depth_unit: str | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name in kwargs:
            if name in (self._what, "depth"):
                raise ConfigError(
                    f"{name} is no option but part of an input: pass {{'{self._what}': ..., 'depth': ...}}"
                )
            if name not in self._own:
                hint = nearest_name_hint(name, (*self._own, "depth_unit"))
                raise ConfigError(f"{type(self).__name__} has no option {name!r}.{hint}")
        before, during, after = super()._sanitize_parameters(**kwargs)  # type: ignore[misc]
        if depth_unit is not None:
            DepthSpec(unit=depth_unit)  # refuses unknown ones
            before["depth_unit"] = depth_unit
        return before | ({} if filled is None else {"filled": filled}), during, after

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
        if seen is not None and "rgb" not in self.model.task_inputs:
            raise ConfigError(f"this model sees depth alone: pass {{'depth': ...}} without {self._what!r}")
        return seen, depth

    def _values(self, seen: Any, depth: Any, filled: bool, **options: Any) -> Any:
        """What the processor makes of one input, with a hole in place of depth where that is wanted.

        Raises:
            DataError: several pictures, or several videos.
        """
        given = {} if depth is None else {"depth": depth}
        values = getattr(self, self._processor)(seen, return_tensors="pt", **given, **options)
        if (count := len(next(iter(values.values())))) != 1:
            raise DataError(f"an input holds {count} of {self._what!r}; pass a list of inputs with one each")
        if filled and "depth_values" not in values:
            values["depth_values"] = torch.zeros_like(values["pixel_values"][..., :1, :, :])
            values["depth_mask"] = torch.zeros_like(values["depth_values"], dtype=torch.bool)
        return values.to(self.dtype)  # type: ignore[attr-defined]


class RGBDImageSegmentationPipeline(_TakesDepth, ImageSegmentationPipeline):  # type: ignore[misc]
    """Segment pictures by RGB, RGB with depth, or depth alone: "rgbd-image-segmentation".

    An input is `{"image": ..., "depth": ...}`, or one of both keys, or a picture as it is. The image is a path, an
    address, a PIL image, an array or a tensor, as the processor takes them; depth is a path (16-bit PNG, TIFF, PGM,
    `.npy`), a PIL image, an array or a tensor of the image's size. Stored integers mean what the processor's
    `depth_spec` says, or `depth_unit` of a call ("millimetre", "tum", ...); floats are metres, NaN where nothing was
    measured. Results and `subtask` are those of transformers' "image-segmentation". A model whose `task_fusion` is
    cross_attention does not predict from depth alone.

    Raises:
        ConfigError: a model of another head or of RGB alone, no processor, an unknown key or option, an input that the
            model does not see.
        DataError: nothing given, several pictures in one input, depth of another size than its image's; DepthUnitError
            for integers without a unit; CorruptFileError for files.
    """

    _what, _head, _processor = "image", "M33DForSemanticSegmentation", "image_processor"
    _own = ("subtask", "threshold", "mask_threshold", "overlap_mask_area_threshold")

    def preprocess(  # type: ignore[override]
        self, inputs: Any, subtask: str | None = None, filled: bool = False, depth_unit: str | None = None
    ) -> Any:
        """Inputs of the model for one picture, and its size as `target_size`."""
        del subtask  # of models of several
        seen, depth = self._parts(inputs)
        image, stored = _image(seen), _as_map(depth)
        values = self._values(image, stored, filled, **_unit(depth_unit))
        values["target_size"] = [black_pictures(stored)[0].size[::-1] if image is None else _size(image)]
        return values


class RGBDVideoClassificationPipeline(_TakesDepth, VideoClassificationPipeline):  # type: ignore[misc]
    """Classify videos by RGB, RGB with depth, or depth alone: "rgbd-video-classification".

    An input is `{"video": ..., "depth": ...}`, or one of both keys, or a video as it is. The video is a path, an
    address, a folder of pictures, an array, a tensor or a list of frames, as the processor takes them; depth has one
    map for each frame of the video, before any is sampled: an array (T, H, W), the path of one (`.npy`), or a list of T
    maps, each as for pictures, in which None is a frame without one. Frames are sampled as in evaluation, unless
    `num_frames` or `frame_sampling_rate` of a call says otherwise. Results, `top_k` and `function_to_apply` are those
    of transformers' "video-classification", which does not work in batches either.

    Raises:
        ConfigError, DataError: as for pictures; a batch size above 1.
    """

    _what, _head, _processor = "video", "M33DForVideoClassification", "video_processor"
    _own = ("top_k", "num_frames", "frame_sampling_rate", "function_to_apply")

    def _filled(self, inputs: Any) -> bool:
        raise ConfigError("transformers' pipelines do not batch videos: leave batch_size out")

    def preprocess(  # type: ignore[override]
        self,
        inputs: Any,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        filled: bool = False,
        depth_unit: str | None = None,
    ) -> Any:
        """Inputs of the model for one video."""
        seen, depth = self._parts(inputs)
        own: Any = self.video_processor
        if own.num_frames is None and own.fps is None and num_frames is None:
            num_frames = self.model.config.num_frames
        asked = {"num_frames": num_frames, "frame_stride": frame_sampling_rate}
        options = {name: value for name, value in asked.items() if value is not None}
        return self._values(seen, _as_maps(depth), filled, do_sample_frames=True, **options, **_unit(depth_unit))


RGBD_TASKS: dict[str, tuple[type[Any], type[Any]]] = {
    "rgbd-image-segmentation": (RGBDImageSegmentationPipeline, AutoModelForSemanticSegmentation),
    "rgbd-video-classification": (RGBDVideoClassificationPipeline, AutoModelForVideoClassification),
}
"""Name for `pipeline(...)` -> its class, and the Auto class that loads its model."""


def _iterated(inputs: Any) -> Any:
    """Several inputs in a form that transformers goes through: it knows lists, generators and torch's data sets."""
    if isinstance(inputs, tuple):
        return list(inputs)
    if isinstance(inputs, Iterator) or hasattr(inputs, "column_names"):  # a table of the library datasets
        return (each for each in inputs)
    return inputs


def _unit(depth_unit: str | None) -> dict[str, Any]:
    return {} if depth_unit is None else {"depth_unit": depth_unit}


def _image(image: Any) -> Any:
    """The picture without lists around it, and without an address, which nobody wants to download twice."""
    while isinstance(image, list | tuple) and len(image) == 1:
        image = image[0]
    if isinstance(image, list | tuple):
        raise DataError(f"an input holds {len(image)} of 'image'; pass a list of inputs with one each")
    if is_address(image):
        with downloaded(image) as path:
            return _from_file(path)
    if isinstance(image, str) and not is_file_name(image):
        with decoding(f"{image:.80}", "is neither a file nor base64"):
            return load_image(image)
    return image


def _size(image: Any) -> tuple[int, int]:
    """(height, width) of an upright picture."""
    if isinstance(image, str | Path):
        path = Path(image)
        height, width, _ = picture_size(path, read_file(path))
        return height, width
    if hasattr(image, "convert"):
        upright = upright_image(image)[0]
        return upright.height, upright.width
    shape = [int(side) for side in image.shape if image.ndim < 4 or side > 1]
    if len(shape) == 3:  # as the processors tell channels
        shape = shape[1:] if shape[0] in (1, 3, 4) else shape[:-1]
    return shape[0], shape[1]


def _from_file(path: Path) -> Any:
    """A picture or a map as the processors take it, with its EXIF; no conversion."""
    data = read_file(path)
    if is_netpbm(data):
        return read_netpbm(path, data)
    with opened(path, data) as image:
        image.load()  # all of it, or an error
    return Image.open(io.BytesIO(data))  # anew: what has been loaded of a TIFF is turned, and says nothing of it


def _as_map(depth: Any) -> Any:
    """A map for the processor: what a path holds, or the value as it is.

    Raises:
        DataError: an address; CorruptFileError for files.
    """
    if is_address(depth):
        raise DataError(f"{depth:.200} is an address; of depth only files and values are read")
    if not isinstance(depth, str | Path):
        return depth
    path = Path(depth)
    if path.suffix.lower() != ".npy":
        return _from_file(path)
    data = read_file(path)
    with decoding(path):
        return np.load(io.BytesIO(data), allow_pickle=False)


def _as_maps(depth: Any) -> Any:
    """Depth of a clip for the processor: an array, or a list of maps."""
    if isinstance(depth, str | Path):
        if Path(depth).suffix.lower() != ".npy":
            words = "is no .npy array (T, H, W); pass a list of maps, or use predict.py --depth, which reads folders"
            raise CorruptFileError(depth, words)
        return _as_map(depth)
    return [_as_map(each) for each in depth] if isinstance(depth, list | tuple) else depth


__all__ = ["RGBD_TASKS", "RGBDImageSegmentationPipeline", "RGBDVideoClassificationPipeline"]
