# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures as users pass them, before any processing: read, upright, in RGB, and in 0 to 255 or 0 to 1.

Input that would silently lead to a wrong picture is refused here: 16-bit values, floats that would be divided by 255
twice, NaN, pictures without pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers.image_utils import load_image

from .download_m33d import downloaded, is_address
from .errors_m33d import DataError, decoding
from .picture_files_m33d import PICTURE_SUFFIXES, is_wide, orientation_of, read_picture

RESCALE_FACTOR = 1 / 255
_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with alpha


def pictures(images: Any, options: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """The images in a form that transformers accepts (PIL, arrays, tensors), and the EXIF orientation of each.

    Args:
        images: an image or a list of them, possibly of lists: PIL, array, tensor, path, URL, base64.
        options: do_convert_rgb, do_rescale, rescale_factor, do_normalize, image_mean and input_data_format.

    Raises:
        DataError: see the module; CorruptFileError for files.
    """
    turned: list[int] = []
    found = _each(images, options, turned)
    if not turned:
        raise DataError(f"no images: got {type(images).__name__} {images!r:.80}")
    return found, turned


def _each(images: Any, options: Mapping[str, Any], turned: list[int]) -> Any:
    if isinstance(images, list | tuple):
        return [_each(image, options, turned) for image in images]
    orientation = 1
    if isinstance(images, Path) or (isinstance(images, str) and is_file_name(images)):
        pixels, orientation = read_picture(Path(images))
        images = Image.fromarray(pixels)
    elif is_address(images):
        with downloaded(images) as path:
            pixels, orientation = read_picture(path)
        images = Image.fromarray(pixels)
    elif isinstance(images, str):
        with decoding(f"{images:.80}", "is neither a file nor base64"):
            images = load_image(images)
    elif hasattr(images, "convert"):
        images, orientation = upright_image(images)
        images = _converted(images, bool(options["do_convert_rgb"]))
    elif isinstance(images, np.ndarray | Tensor):
        images = _values(images, options)
    else:
        raise DataError(
            f"an image must be a PIL image, an array, a tensor, a path or a URL, not {type(images).__name__}"
        )
    turned += [orientation] * (len(images) if getattr(images, "ndim", 0) == 4 else 1)
    return images


def is_file_name(text: str) -> bool:
    """Whether a text names an existing path, or has the suffix of a picture file; not base64, and no address."""
    if is_address(text) or text.startswith("data:"):
        return False
    try:
        return Path(text).exists() or Path(text).suffix.lower() in PICTURE_SUFFIXES
    except (OSError, ValueError):  # too long for a name: a picture in base64
        return False


def _converted(image: Image.Image, to_rgb: bool) -> Image.Image:
    """An 8-bit PIL image, without alpha if RGB is requested: as training reads pictures."""
    if 0 in image.size:
        raise DataError(f"an image has no pixels: {image.height} x {image.width}")
    if is_wide(image):
        raise DataError(
            f"an image has the mode {image.mode!r}, more than 8 bits. If it is a depth map, pass it as depth=. "
            "Convert a 16-bit picture to 8 bits first, or to floats from 0 to 1 with do_rescale=False."
        )
    # A new image: transformers would composite one that only declares a transparent colour onto white.
    return Image.fromarray(np.array(image.convert("RGB"))) if to_rgb else image


def _values(pixels: np.ndarray | Tensor, options: Mapping[str, Any]) -> np.ndarray | Tensor:
    """An array or tensor as uint8 or float32, with its values checked."""
    if 0 in pixels.shape:
        raise DataError(f"an image has no pixels: shape {tuple(pixels.shape)}")
    if pixels.ndim == 2:
        last = str(getattr(options["input_data_format"], "value", options["input_data_format"])) == "channels_last"
        pixels = pixels[..., None] if last else pixels[None]
    _check_channels(tuple(pixels.shape), options)
    kind = str(pixels.dtype).removeprefix("torch.")
    if kind == "uint8":
        return pixels
    if kind in ("int32", "int64"):
        low, high = int(pixels.min()), int(pixels.max())
        if low >= 0 and high <= 255:
            return pixels.to(torch.uint8) if isinstance(pixels, Tensor) else pixels.astype(np.uint8)
        raise DataError(f"an image holds integers from {low} to {high}; they must be in 0 to 255")
    if kind in ("uint16", "int16"):
        raise DataError(
            f"an image is {kind}. If it is a depth map, pass it as depth=. Divide 16-bit colour by 257 and round it to "
            "uint8, or divide it by 65535 and pass do_rescale=False."
        )
    if kind not in ("float16", "bfloat16", "float32", "float64"):
        raise DataError(f"an image is {kind}; it must be uint8 in 0 to 255, or float")
    values = pixels.float() if isinstance(pixels, Tensor) else pixels.astype(np.float32, copy=False)
    _check_range(values, options)
    return values


def _check_channels(shape: tuple[int, ...], options: Mapping[str, Any]) -> None:
    """Refuse shapes in which no axis holds the channels of a picture, or not as many as there are means.

    Without conversion to RGB, pictures of any number of channels pass where the layout is stated and the means agree.
    """
    expected = "(H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4 channels, or a batch of such (4 dimensions)"
    if len(shape) not in (3, 4):
        raise DataError(f"an image has the shape {shape}; expected {expected}. Clips go to M33DVideoProcessor.")
    layout = str(getattr(options["input_data_format"], "value", options["input_data_format"]))
    first, last = shape[-3], shape[-1]
    stated = {"channels_first": first, "channels_last": last}.get(layout)
    channels = stated or next((each for each in (first, last) if each in _CHANNELS), None)
    if channels in (1, 3) or (channels == 4 and options["do_convert_rgb"]):
        return
    if channels is None or options["do_convert_rgb"]:
        where = f" with {channels} channels ({layout})" if stated else ", of which no axis is that of the channels"
        raise DataError(
            f"an image has the shape {shape}{where}; expected {expected}. Pass the three colours, and depth as depth=."
        )
    means = np.size(options["image_mean"])
    if options["do_normalize"] and means not in (1, channels):
        raise DataError(
            f"an image has the shape {shape} with {channels} channels, but image_mean has {means} numbers: pass "
            "do_convert_rgb=True for pictures in colour, or one mean and deviation for each channel."
        )


def _check_range(values: np.ndarray | Tensor, options: Mapping[str, Any]) -> None:
    """Refuse floats that the options would turn into a wrong picture."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError("a float image holds NaN or infinite values; fill missing pixels first")
    if options["do_rescale"] and options["rescale_factor"] == RESCALE_FACTOR:
        if low >= 0 and 0 < high <= 1:  # all zeros are black either way
            raise DataError(
                f"a float image with values from {low:.4g} to {high:.4g} would be divided by 255 again: pass "
                "do_rescale=False for pictures in 0 to 1, or multiply by 255 if the picture is meant to be this dark"
            )
        if low < 0 or high > 255:
            raise DataError(f"a float image holds values from {low:.4g} to {high:.4g}; they must be in 0 to 255")


def three_channels(image: Any, layout: Any) -> Any:
    """Repeat grey and drop alpha, as training reads pictures (transformers composites transparent ones onto white).

    Args:
        image: with 1, 3 or 4 channels first or last, as `layout` says ("channels_first", "channels_last").
    """
    axis = -1 if str(getattr(layout, "value", layout)) == "channels_last" else -3
    if image.shape[axis] == 1:
        return image.repeat_interleave(3, axis) if isinstance(image, Tensor) else image.repeat(3, axis=axis)
    if image.shape[axis] == 4:
        return image[..., :3] if axis == -1 else image[..., :3, :, :]
    return image


def upright_image(image: Any) -> tuple[Any, int]:
    """(the image upright, the orientation that its EXIF stated) of a PIL image; files of it are read the same way.

    Raises:
        CorruptFileError: the image, or its EXIF, cannot be decoded.
    """
    with decoding(getattr(image, "filename", "") or "an image"):
        orientation = orientation_of(image)
        return (image if orientation == 1 else ImageOps.exif_transpose(image)), orientation


def rgb_tensor(image: Any) -> torch.Tensor:
    """Turn a PIL image, a uint8 array (..., H, W, 3) or tensor (..., 3, H, W), or either of (H, W), into uint8 RGB.

    Returns:
        (..., 3, H, W) uint8; grey images are repeated over three channels, alpha is dropped; upright where a PIL image
        carries an EXIF orientation.

    Raises:
        DataError: another dtype or layout, a PIL image with more than 8 bits per channel, or no pixels.
    """
    if hasattr(image, "convert"):  # PIL
        image = upright_image(image)[0]
        if is_wide(image):
            raise DataError(f"an image has the mode {image.mode!r}, more than 8 bits; is it a depth map?")
        image = np.array(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        pixels = image[None] if image.dim() == 2 else image
    else:
        array = np.asarray(image)
        if array.ndim == 2:
            array = array[..., None].repeat(3, axis=-1)
        if array.ndim >= 3 and array.shape[-1] in (1, 3, 4):
            array = np.moveaxis(array, -1, -3)
        pixels = torch.from_numpy(np.ascontiguousarray(array))
    if pixels.dim() >= 3 and pixels.shape[-3] == 1:
        pixels = pixels.expand(*pixels.shape[:-3], 3, *pixels.shape[-2:])
    if pixels.dim() >= 3 and pixels.shape[-3] == 4:
        pixels = pixels[..., :3, :, :]
    if pixels.dtype != torch.uint8 or pixels.dim() < 3 or pixels.shape[-3] != 3:
        raise DataError(
            f"an image must be uint8 RGB (0 to 255): a PIL image, an array (H, W, 3) or a tensor (3, H, W); got "
            f"{pixels.dtype} of shape {tuple(pixels.shape)}. Multiply [0, 1] floats by 255 and round them first."
        )
    if 0 in pixels.shape[-2:]:
        raise DataError(f"an image has no pixels: {pixels.shape[-2]} x {pixels.shape[-1]}")
    return pixels
