# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Images (with depth and label maps, where given) in, model inputs out; logits and depth back to image size.

`M33DImageProcessor` computes with torchvision, `M33DImageProcessorPil` with PIL and numpy where torchvision is not
installed; `AutoImageProcessor` takes the first that works. The usual case (8-bit images; one of the three geometries of
evaluation, see `placement_fields_m33d`; rescaled and normalised) goes in both through `preprocessing_m33d`, as in
evaluation, and gives bit-equal tensors; any other option goes through the backend. Depth and labels take nearest
neighbours only, so that no valid pixel mixes with an invalid one.

A `size` of height and width with an equal `crop_size` and `do_center_crop` is a centre crop without distortion: the
picture is scaled until it covers `size`, as `M33DVideoProcessor` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import PILImageResampling, load_image
from transformers.processing_utils import ImagesKwargs

from .class_names_m33d import NO_CLASS
from .configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig
from .depth_m33d import DepthSpec, standardize_depth
from .errors_m33d import ConfigError, DataError, DepthUnitError, decoding
from .picture_files_m33d import PICTURE_SUFFIXES, lies_unknown, read_picture
from .placement_fields_m33d import placement_of
from .preprocessing_m33d import normalize_rgb, place, resize_map, upright_image

_ADDRESSES = ("http://", "https://")
_INTERPOLATIONS = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class M33DImageProcessorKwargs(ImagesKwargs, total=False):
    """Options beyond those of every image processor.

    Args:
        depth_unit: unit of integer depth maps ("millimetre", "tum", ...); float maps are metres whatever it says.
        depth_standardization: "trimmed", "full" or "none", as the model was pre-trained.
        min_depth, max_depth: metres; `post_process_depth_estimation` clamps to them, None does not.
    """

    depth_unit: str | None
    depth_standardization: str
    min_depth: float | None
    max_depth: float | None


def _as_list(maps: Any) -> list[Any]:
    """A single (H, W) map or a batch of them, as a list."""
    if isinstance(maps, list | tuple):
        return list(maps)
    array_like = isinstance(maps, np.ndarray | Tensor)
    return list(maps) if array_like and maps.ndim == 3 and 1 not in (maps.shape[0], maps.shape[-1]) else [maps]


def _as_map(value: Any) -> tuple[np.ndarray, int]:
    """PIL image, array or tensor of (H, W), (1, H, W) or (H, W, 1) to an (H, W) array of the stored dtype.

    Beside it the orientation that a PIL image stated, in which case the array is upright.
    """
    value, orientation = upright_image(value) if hasattr(value, "convert") else (value, 1)
    array = value.cpu().numpy() if isinstance(value, Tensor) else np.array(value)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.ndim != 2:
        raise DataError(f"a depth or label map must have one channel, got shape {array.shape}.")
    return array, orientation


def _upright(images: Any, turned: list[int]) -> Any:
    """The images with files read and PIL images upright; the orientation of each is appended to `turned`."""
    if isinstance(images, list | tuple):
        return [_upright(image, turned) for image in images]
    orientation = 1
    if isinstance(images, Path) or (isinstance(images, str) and _is_file_name(images)):
        pixels, orientation = read_picture(Path(images))
        images = Image.fromarray(pixels)
    elif isinstance(images, str) and not images.startswith(_ADDRESSES):
        with decoding(f"{images:.80}", "is neither a file nor a picture in base64"):
            images = load_image(images)
    elif hasattr(images, "convert"):
        images, orientation = upright_image(images)
    turned += [orientation] * (len(images) if getattr(images, "ndim", 0) == 4 else 1)
    return images


def _is_file_name(text: str) -> bool:
    """Whether a text names something that lies on the disk, or could only be meant to."""
    if text.startswith((*_ADDRESSES, "data:")):
        return False
    try:
        return Path(text).exists() or Path(text).suffix.lower() in PICTURE_SUFFIXES
    except (OSError, ValueError):  # too long for a name: a picture in base64
        return False


class _M33DImageProcessing:
    """What both backends share; comes before the backend in the bases."""

    valid_kwargs = M33DImageProcessorKwargs
    model_input_names = ["pixel_values", "depth_values"]  # noqa: RUF012
    resample = PILImageResampling.BILINEAR
    image_mean = list(IMAGENET_MEAN)  # noqa: RUF012
    image_std = list(IMAGENET_STD)  # noqa: RUF012
    size = {"height": 224, "width": 224}  # noqa: RUF012
    default_to_square = True
    do_resize = True
    do_center_crop = False
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    depth_unit: str | None = None
    depth_standardization = "trimmed"
    min_depth: float | None = None
    max_depth: float | None = None

    @classmethod
    def from_model_config(cls, config: M33DConfig, **overrides: Any) -> Any:
        """Build the processor that fits a model: its image size, RGB normalisation, depth range."""
        height, width = config.image_height_width
        options: dict[str, Any] = {
            "size": {"height": height, "width": width},
            "depth_standardization": config.depth_standardization,
            "min_depth": config.min_depth,
            "max_depth": config.max_depth,
        }
        spec = config.spec("rgb")
        if spec.channel_mean is not None and spec.channel_std is not None:
            options |= {"image_mean": list(spec.channel_mean), "image_std": list(spec.channel_std)}
        return cls(**{**options, **overrides})

    def preprocess(
        self, images: Any, depth_maps: Any | None = None, segmentation_maps: Any | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Prepare images.

        Args:
            images: an image or a list of them (PIL, array, tensor, path or URL). Files and PIL images with an EXIF
                orientation are turned upright, as transformers' pipelines do.
            depth_maps: one map per image: float metres with NaN where invalid, or stored integers of `depth_unit`.
            segmentation_maps: one map of class ids per image.
            kwargs: any attribute of the processor, for this call.

        Returns:
            pixel_values (B, 3, H, W); with depth also depth_values (B, 1, H, W), standardised, 0 where invalid, and
            depth_mask bool; with segmentation also labels (B, H, W) int64.

        Raises:
            DepthUnitError: integer depth without `depth_unit`.
            DataError: not one map per image, a map of another size than its image's or with channels, or one without
                an orientation for an image that has one; CorruptFileError for files.
        """
        return super().preprocess(images, depth_maps, segmentation_maps, **kwargs)  # type: ignore[misc]

    def _preprocess_image_like_inputs(
        self, images: Any, depth_maps: Any | None, segmentation_maps: Any | None, **kwargs: Any
    ) -> BatchFeature:
        turned: list[int] = []
        images = _upright(images, turned)
        prepared = self._prepare_image_like_inputs(images, **kwargs)  # type: ignore[attr-defined]
        sizes = [tuple(image.shape[-2:]) for image in prepared]
        tensor_type = kwargs.pop("return_tensors", None)
        data: dict[str, Any] = dict(self._preprocess(prepared, return_tensors=None, **kwargs))  # type: ignore[attr-defined]
        if depth_maps is not None:
            pairs = [self._depth(each, kwargs) for each in self._maps(depth_maps, sizes, turned, "depth")]
            data["depth_values"], data["depth_mask"] = [p[0] for p in pairs], [p[1] for p in pairs]
        if segmentation_maps is not None:
            maps = self._maps(segmentation_maps, sizes, turned, "segmentation")
            placed = [self._place(torch.from_numpy(each.astype(np.float32)), kwargs, NO_CLASS) for each in maps]
            data["labels"] = [each.long() for each in placed]
        return BatchFeature(data=data, tensor_type=tensor_type)

    def _preprocess(self, images: list[Any], **kwargs: Any) -> BatchFeature:
        places = [placement_of(tuple(image.shape[-2:]), kwargs) for image in images]
        usual = (
            None not in places
            and kwargs["do_rescale"]
            and kwargs["do_normalize"]
            and kwargs["resample"] in _INTERPOLATIONS
            and kwargs["rescale_factor"] == 1 / 255
            and all(image.dtype in (np.uint8, torch.uint8) and image.shape[0] == 3 for image in images)
        )
        if not usual:
            return super()._preprocess(images, **kwargs)  # type: ignore[misc]
        pixels = []
        for image, placement in zip(images, places):
            tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
            assert placement is not None  # "usual" says so
            placed = placement.place_rgb(tensor, _INTERPOLATIONS[kwargs["resample"]])
            normalized = normalize_rgb(placed, kwargs["image_mean"], kwargs["image_std"])
            pixels.append(normalized if isinstance(image, Tensor) else normalized.numpy())
        return BatchFeature({"pixel_values": pixels}, tensor_type=kwargs.get("return_tensors"))

    @staticmethod
    def _maps(maps: Any, sizes: list[tuple[int, ...]], turned: list[int], word: str) -> list[np.ndarray]:
        pairs = [_as_map(each) for each in _as_list(maps)]
        arrays = [array for array, _ in pairs]
        if len(arrays) != len(sizes):
            raise DataError(f"{len(arrays)} {word} maps for {len(sizes)} images; give one for each.")
        for number, (array, size) in enumerate(zip(arrays, sizes)):
            height, width = size
            if pairs[number][1] == 1 and lies_unknown(turned[number], (height, width), array.shape):
                raise DataError(
                    f"image {number} has the EXIF orientation {turned[number]} and is turned upright; its {word} map "
                    "has no such note, and nobody can tell whether it is upright already. Give the image as an upright "
                    "array (PIL.ImageOps.exif_transpose), with the map turned as it was."
                )
            if array.shape != size:
                raise DataError(
                    f"{word} map {number} is {array.shape[0]} x {array.shape[1]}, its image {size[0]} x {size[1]}; "
                    "align them before, a processor cannot know how."
                )
        return arrays

    def _place(self, map_HW: Tensor, kwargs: dict[str, Any], fill: float) -> Tensor:
        """Resize (nearest), crop and pad a map as its image was."""
        placement = placement_of((map_HW.shape[0], map_HW.shape[1]), kwargs)
        if placement is not None:
            return placement.place_map(map_HW, fill)
        if kwargs.get("do_pad"):
            raise ConfigError(
                "maps can be padded where size has max_height and max_width, pad_size has the same height and width, "
                "and nothing is cropped."
            )
        if kwargs["do_resize"]:
            map_HW = resize_map(map_HW, self._resized(map_HW, kwargs["size"]))
        if kwargs["do_center_crop"]:
            height, width = kwargs["crop_size"].height, kwargs["crop_size"].width
            top, left = int((map_HW.shape[0] - height) / 2), int((map_HW.shape[1] - width) / 2)
            if top < 0 or left < 0:
                raise ConfigError(f"crop_size {height} x {width} is larger than the map {tuple(map_HW.shape)}.")
            map_HW = map_HW[top : top + height, left : left + width]
        return map_HW

    @staticmethod
    def _resized(map_HW: Tensor, size: Any) -> tuple[int, int]:
        if size.height and size.width:
            return size.height, size.width
        if size.shortest_edge and not size.longest_edge:
            return get_resize_output_image_size(
                map_HW[None].numpy(), size.shortest_edge, default_to_square=False, input_data_format="channels_first"
            )
        raise ConfigError(f"maps can be resized to height and width or to shortest_edge, not to {size}.")

    def _depth(self, stored: np.ndarray, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if stored.dtype.kind in "ui":
            if kwargs["depth_unit"] is None:
                raise DepthUnitError(
                    f"a depth map holds integers ({stored.dtype}) and depth_unit is not set; set it "
                    "('millimetre', 'tum', ...) or give float metres."
                )
            metres = DepthSpec(unit=kwargs["depth_unit"]).decode(stored)
        else:
            metres = DepthSpec(unit="metre", invalid_values=()).decode(stored)
        placed = self._place(torch.from_numpy(metres), kwargs, math.nan)
        values, mask = standardize_depth(placed[None, None], kwargs["depth_standardization"], "frame")
        return values[0], mask[0]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Turn logits into label maps, laid where the model looked.

        Args:
            outputs: of `M33DForSemanticSegmentation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the size of the logits.
            return_segmentation_scores: return dicts of `segmentation` and `segmentation_scores` (L, H, W) instead.

        Returns:
            One (H, W) int64 map per image; 255 (scores NaN) where a centre crop cut the image off.
        """
        results: list[Any] = []
        for logits, size in zip(outputs.logits, _sizes(target_sizes, len(outputs.logits))):
            seen = None
            if size is not None:
                logits, seen = self._put_back(logits, size)
            labels = logits.argmax(dim=0)
            if seen is not None:
                labels, logits = labels.where(seen, NO_CLASS), logits.where(seen, math.nan)
            if return_segmentation_scores:
                results.append(BatchFeature({"segmentation": labels, "segmentation_scores": logits}))
            else:
                results.append(labels)
        return results

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """Bring predicted depth back to where the model looked, clamped to [min_depth, max_depth] where these are set.

        Args:
            outputs: of `M33DForDepthEstimation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the model's size.

        Returns:
            One {"predicted_depth": (H, W) metres} per image; 0, as depth files write "nothing measured", where a centre
            crop cut the image off (NaN would turn the picture of transformers' depth pipeline black).
        """
        results = []
        for depth, size in zip(outputs.predicted_depth, _sizes(target_sizes, len(outputs.predicted_depth))):
            seen = None
            if size is not None:
                found, seen = self._put_back(depth[None], size)
                depth = found[0]
            if self.min_depth is not None or self.max_depth is not None:
                depth = depth.clamp(self.min_depth, self.max_depth)
            results.append({"predicted_depth": depth if seen is None else depth.where(seen, 0.0)})
        return results

    def _put_back(self, values: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """(L, h, w) predictions at image size, and which pixels (H, W) they are about; None for all of them.

        Raises:
            ConfigError: this processor crops or pads in a way that cannot be undone.
        """
        placement = placement_of(size, vars(self))
        if placement is None:
            if self.do_center_crop or getattr(self, "do_pad", False):
                raise ConfigError(
                    "predictions can be brought back to image size after a centre crop whose crop_size is size, or "
                    "after padding whose pad_size is size's max_height and max_width; leave target_sizes out, or "
                    "change the processor's size, crop_size or pad_size."
                )
            placement = place(size, values.shape[-2:], "resize")
        seen = placement.looked_at().to(values.device)
        return placement.put_back(values), None if bool(seen.all()) else seen


def _sizes(target_sizes: Sequence[tuple[int, int]] | Tensor | None, number: int) -> list[tuple[int, int] | None]:
    if target_sizes is None:
        return [None] * number
    if len(target_sizes) != number:
        raise DataError(f"{len(target_sizes)} target_sizes for {number} predictions; give one for each.")
    return [(int(height), int(width)) for height, width in target_sizes]


class M33DImageProcessor(_M33DImageProcessing, TorchvisionBackend):  # type: ignore[misc]
    """Image processor of M33D models, computing with torchvision."""


class M33DImageProcessorPil(_M33DImageProcessing, PilBackend):  # type: ignore[misc]
    """Image processor of M33D models, computing with PIL and numpy."""
