# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Images (with depth and label maps, where given) in, model inputs out.

`M33DImageProcessor` computes with torchvision, `M33DImageProcessorPil` with PIL and numpy where torchvision is not
installed; `AutoImageProcessor` takes the first that works. The usual case (8-bit images, or floats in 0 to 1; a
geometry that `placement_fields_m33d` knows; rescaled) goes in both through `preprocessing_m33d`, 8-bit images as in
evaluation, and gives bit-equal tensors; any other option goes through the backend, where PIL's filters round and clip
otherwise than torchvision's. Depth and labels take nearest neighbours only, so that no valid pixel mixes with an
invalid one.

A `size` of height and width with an equal `crop_size` and `do_center_crop` is a centre crop without distortion: the
picture is scaled until it covers `size`, as `M33DVideoProcessor` does.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .auto_m33d import TravelsWithItsCode
from .class_names_m33d import NO_CLASS
from .configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig
from .depth_input_m33d import black_pictures, decoded, maps_of_images
from .depth_m33d import standardize_depth
from .errors_m33d import ConfigError, DataError
from .picture_input_m33d import RESCALE_FACTOR, pictures, three_channels
from .placement_fields_m33d import placement_of
from .post_processing_m33d import ImagePostProcessing
from .preprocessing_m33d import Placement, normalize_rgb, resize_map
from .processor_options_m33d import (
    check_values,
    checked_types,
    overriding_depth,
    per_channel,
    refuse_other_processor,
    refuse_unknown_options,
    settled_depth,
)

_INTERPOLATIONS = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class M33DImageProcessorKwargs(ImagesKwargs, total=False):
    """Options beyond those of every image processor.

    Args:
        depth_spec: meaning of integer depth maps, a `DepthSpec` as returned by its `to_dict`; float maps are metres.
        depth_unit: short for a `DepthSpec` of that unit ("millimetre", "tum", ...), or replaces the unit of the given
            one. Saved as part of depth_spec.
        depth_standardization: "trimmed", "full" or "none", as the model was pre-trained.
        min_depth, max_depth: metres; `post_process_depth_estimation` clamps to them, None does not.
    """

    depth_spec: dict[str, Any] | None
    depth_unit: str | None
    depth_standardization: str
    min_depth: float | None
    max_depth: float | None


class _M33DImageProcessing(TravelsWithItsCode, ImagePostProcessing):
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
    rescale_factor = RESCALE_FACTOR
    do_normalize = True
    do_convert_rgb = True
    depth_spec: dict[str, Any] | None = None
    depth_unit: str | None = None
    depth_standardization = "trimmed"
    min_depth: float | None = None
    max_depth: float | None = None

    def __init__(self, **kwargs: Any) -> None:
        refuse_unknown_options(kwargs, self.valid_kwargs.__annotations__, "an image processor")
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from what `to_dict` made, with options of `kwargs` in place of saved ones.

        Raises:
            ConfigError: the file of a video processor, an unknown option, or an invalid value.
        """
        refuse_other_processor(image_processor_dict, "image")
        kwargs = overriding_depth(kwargs, image_processor_dict.get("depth_spec"))
        return super().from_dict(image_processor_dict, **kwargs)  # type: ignore[misc]

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
        else:
            options["do_normalize"] = False
        return cls(**{**options, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON keeps them."""
        options = super().to_dict()  # type: ignore[misc]
        options.pop("depth_unit", None)  # depth_spec says it
        return options

    def __call__(self, images: Any = None, *args: Any, **kwargs: Any) -> BatchFeature:
        """Prepare images, or depth alone; see `preprocess`."""
        return self.preprocess(images, *args, **kwargs)

    def preprocess(
        self,
        images: Any = None,
        depth: Any | None = None,
        segmentation_maps: Any | None = None,
        depth_maps: Any | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare images.

        Args:
            images: an image or a list of them (PIL, array, tensor, path, URL or base64): 8-bit, or float in 0 to 255,
                or in 0 to 1 with `do_rescale=False`. Alpha is dropped, grey repeated. Files and PIL images with an EXIF
                orientation are turned upright, as transformers' pipelines do. None: depth is all there is.
            depth: one map per image (PIL "I;16", array or tensor): float metres with NaN where invalid, or integers as
                stored, which `depth_spec` decodes; None in a list for an image without one.
            segmentation_maps: one map of class ids per image.
            depth_maps: the older name of `depth`.
            kwargs: any attribute of the processor, for this call.

        Returns:
            pixel_values (B, 3, H, W), unless there are no images; with depth also depth_values (B, 1, H, W),
            standardised, 0 where invalid, and depth_mask bool; with segmentation also labels (B, H, W) int64.

        Raises:
            ConfigError: an option that nobody knows, of another type, or senseless.
            DepthUnitError: integer depth without a spec.
            DataError: neither images nor depth, pictures that would come out wrong (see `picture_input_m33d`), not one
                map per image, a map of another size than its image's or with channels, or one without an orientation
                for an image that has one; CorruptFileError for files.
        """
        refuse_unknown_options(kwargs, self.valid_kwargs.__annotations__, "an image processor")
        kwargs = overriding_depth(kwargs, self.depth_spec)
        kwargs = checked_types(self.valid_kwargs, kwargs)
        if depth_maps is not None:
            if depth is not None:
                raise ConfigError("depth_maps is the old name of depth; pass only one of them")
            warnings.warn("depth_maps is deprecated; use depth", FutureWarning, stacklevel=3)
            depth = depth_maps
        if images is not None:
            return super().preprocess(images, depth, segmentation_maps, **kwargs)  # type: ignore[misc,no-any-return]
        values = super().preprocess(black_pictures(depth), depth, segmentation_maps, **kwargs)  # type: ignore[misc]
        del values["pixel_values"]
        return values  # type: ignore[no-any-return]

    def convert_to_rgb(self, image: Any, input_data_format: Any = None) -> Any:
        """Three channels, see `three_channels`; PIL images are RGB already."""
        if hasattr(image, "convert"):
            return np.array(image.convert("RGB"))
        if input_data_format is None and image.ndim == 3:
            channels_last = image.shape[0] not in (1, 3, 4) and image.shape[-1] in (1, 3, 4)
            input_data_format = "channels_last" if channels_last else "channels_first"
        return three_channels(image, input_data_format)

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        check_values(kwargs)
        spec, unit = settled_depth(kwargs.get("depth_spec"), kwargs.get("depth_unit"))
        return super()._standardize_kwargs(**{**kwargs, "depth_spec": spec, "depth_unit": unit})  # type: ignore[misc]

    def _preprocess_image_like_inputs(
        self, images: Any, depth: Any | None, segmentation_maps: Any | None, **kwargs: Any
    ) -> BatchFeature:
        images, turned = pictures(images, kwargs)
        prepared = self._prepare_image_like_inputs(images, **kwargs)  # type: ignore[attr-defined]
        sizes = [tuple(image.shape[-2:]) for image in prepared]
        tensor_type = kwargs.pop("return_tensors", None)
        data: dict[str, Any] = dict(self._preprocess(prepared, return_tensors=None, **kwargs))  # type: ignore[attr-defined]
        if depth is not None:
            pairs = [self._depth(each, kwargs) for each in maps_of_images(depth, sizes, turned, "depth")]
            data["depth_values"], data["depth_mask"] = [p[0] for p in pairs], [p[1] for p in pairs]
        if segmentation_maps is not None:
            maps = maps_of_images(segmentation_maps, sizes, turned, "segmentation")
            placed = [self._place(torch.from_numpy(each.astype(np.float32)), kwargs, NO_CLASS) for each in maps]
            data["labels"] = [each.long() for each in placed]
        shapes = sorted({tuple(image.shape) for image in data["pixel_values"]})
        if tensor_type is not None and len(shapes) > 1:
            raise DataError(f"images of {shapes} cannot be stacked; resize them, or leave return_tensors out")
        return BatchFeature(data=data, tensor_type=tensor_type)

    def _preprocess(self, images: list[Any], **kwargs: Any) -> BatchFeature:
        places = [placement_of(tuple(image.shape[-2:]), kwargs) for image in images]
        usual = (
            kwargs["resample"] in _INTERPOLATIONS
            and (not kwargs["do_rescale"] or kwargs["rescale_factor"] == RESCALE_FACTOR)
            and all(place is not None and _is_usual(image, kwargs) for image, place in zip(images, places))
        )
        if not usual:
            return super()._preprocess(images, **kwargs)  # type: ignore[misc]
        pixels = []
        for image, placement in zip(images, places):
            assert placement is not None  # "usual" says so
            tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
            normalized = _normalized(tensor, placement, kwargs)
            pixels.append(normalized if isinstance(image, Tensor) else normalized.numpy())
        return BatchFeature({"pixel_values": pixels}, tensor_type=kwargs.get("return_tensors"))

    def _place(self, map_HW: Tensor, kwargs: dict[str, Any], fill: float) -> Tensor:
        """Resize (nearest), crop and pad a map as its image was."""
        placement = placement_of((map_HW.shape[0], map_HW.shape[1]), kwargs)
        if placement is not None:
            return placement.place_map(map_HW, fill)
        if kwargs.get("do_pad"):
            raise ConfigError(
                "to pad maps, size must have max_height and max_width, pad_size the same height and width, "
                "and do_center_crop must be off."
            )
        if kwargs["do_center_crop"]:
            raise ConfigError(
                "to crop maps, size must have height and width, or shortest_edge, and crop_size must not be larger; "
                f"got size {dict(kwargs['size'] or {})} and crop_size {dict(kwargs['crop_size'] or {})}"
            )
        return resize_map(map_HW, self._resized(map_HW, kwargs["size"])) if kwargs["do_resize"] else map_HW

    @staticmethod
    def _resized(map_HW: Tensor, size: Any) -> tuple[int, int]:
        if size.shortest_edge and not size.longest_edge:
            return get_resize_output_image_size(
                map_HW[None].numpy(), size.shortest_edge, default_to_square=False, input_data_format="channels_first"
            )
        raise ConfigError(f"to resize maps, size must have height and width, or shortest_edge; got {size}.")

    def _depth(self, stored: np.ndarray, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        metres = torch.from_numpy(decoded(stored, kwargs["depth_spec"]))
        placed = self._place(metres, kwargs, math.nan)
        values, mask = standardize_depth(placed[None, None], kwargs["depth_standardization"], "frame")
        return values[0], mask[0]


def _is_usual(image: Any, options: dict[str, Any]) -> bool:
    """Whether a picture has three channels of 8 bits, or of floats in the range that the options stand for."""
    if image.shape[0] != 3:
        return False
    if image.dtype in (np.uint8, torch.uint8):
        return bool(options["do_rescale"])
    top = 255 if options["do_rescale"] else 1
    return image.dtype in (np.float32, torch.float32) and float(image.min()) >= 0 and float(image.max()) <= top


def _normalized(pixels: Tensor, placement: Placement, options: dict[str, Any]) -> Tensor:
    """(3, H, W) of a usual picture on its canvas."""
    interpolation = _INTERPOLATIONS[options["resample"]]
    scale = [per_channel(options[name], name) for name in ("image_mean", "image_std") if options["do_normalize"]]
    mean, std = scale or (None, None)
    if pixels.dtype == torch.uint8:
        return normalize_rgb(placement.place_rgb(pixels, interpolation), mean, std)
    top = 255.0 if options["do_rescale"] else 1.0
    return normalize_rgb(placement.place_float(pixels, interpolation, top), mean, std, top)


class M33DImageProcessor(_M33DImageProcessing, TorchvisionBackend):  # type: ignore[misc]
    """Image processor of M33D models, computing with torchvision."""


class M33DImageProcessorPil(_M33DImageProcessing, PilBackend):  # type: ignore[misc]
    """Image processor of M33D models, computing with PIL and numpy."""
