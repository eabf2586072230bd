# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Depth and label maps as users pass them: one per picture and of its size; depth in metres, NaN where unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .depth_spec_m33d import DepthSpec
from .errors_m33d import DataError, DepthUnitError
from .picture_files_m33d import lies_unknown
from .picture_input_m33d import upright_image
from .processor_options_m33d import spec_of

_METRES = DepthSpec(unit="metre", invalid_values=())


def decoded(stored: np.ndarray, spec: Mapping[str, Any] | None) -> np.ndarray:
    """Depth of any shape as float32 metres (unitless where the spec is inverse or relative), NaN where invalid.

    Integers are stored values, which the spec decodes. Floats are already in metres: of a spec with another unit, only
    the bounds and the kind apply to them.

    Raises:
        DepthUnitError: integers without a spec. DataError: neither integers nor floats.
    """
    if stored.dtype.kind in "ui":
        if spec is None:
            raise DepthUnitError(
                f"a depth map holds integers ({stored.dtype}), but the processor has no depth_spec, so their unit "
                "is unknown: pass depth_unit ('millimetre', 'tum', ...) or depth_spec, or pass float metres."
            )
        return spec_of(spec).decode(stored)
    if stored.dtype.kind != "f":
        raise DataError(f"a depth map is {stored.dtype}; it must hold integers as stored, or float metres")
    if spec is None:
        return _METRES.decode(stored)
    meaning = spec_of(spec)
    if meaning.unit != "metre" and meaning.scale != 1.0:
        unit = "metre" if meaning.kind == "metric" else None
        meaning = DepthSpec(meaning.kind, unit, 1.0, (), meaning.min_depth, meaning.max_depth)
    return meaning.decode(stored)


def as_array(value: Any) -> tuple[np.ndarray, int]:
    """(array of the stored dtype, EXIF orientation) of a PIL image, which is turned upright, an array or a tensor."""
    if hasattr(value, "convert"):
        image, orientation = upright_image(value)
        return np.array(image), orientation
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy(), 1
    if not isinstance(value, np.ndarray):
        raise DataError(f"a depth or label map must be a PIL image, an array or a tensor, not {type(value).__name__}")
    return value, 1


def _as_map(value: Any) -> tuple[np.ndarray, int]:
    """(H, W) array of the stored dtype and the orientation; a single channel may come first or last."""
    array, orientation = as_array(value)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.ndim != 2:
        raise DataError(
            f"a depth or label map must have one channel, got shape {array.shape}; expected (H, W), (1, H, W) or "
            "(H, W, 1). A colour picture of depth holds no distances: pass the values it was drawn from."
        )
    return array, orientation


def _as_list(maps: Any) -> list[Any]:
    """A single (H, W) map or a batch of them, as a list."""
    if isinstance(maps, list | tuple):
        return [each for part in maps for each in (part if isinstance(part, list | tuple) else [part])]
    array_like = isinstance(maps, np.ndarray | Tensor)
    batch = array_like and (maps.ndim == 4 or (maps.ndim == 3 and 1 not in (maps.shape[0], maps.shape[-1])))
    return list(maps) if batch else [maps]


def black_pictures(maps: Any) -> list[Image.Image]:
    """A black picture for each map, where depth is all that is given; processors leave its RGB out again.

    Raises:
        DataError: no map, None in place of one, or a colour picture.
    """
    _refuse_colour_alone(maps)
    listed = _given_alone(_as_list(maps), "picture")
    return [Image.new("RGB", _as_map(each)[0].shape[::-1]) for each in listed]


def black_clips(maps: Any, spec: Mapping[str, Any] | None) -> list[np.ndarray]:
    """A black (T, H, W, 3) clip for the depth of each, as `black_pictures`; `spec` as in `maps_of_clips`.

    Raises:
        DataError: as there; maps of several sizes in a clip, or none in one.
    """
    _refuse_colour_alone(maps)
    listed = _given_alone(_clips(maps, 1), "video")
    return [np.zeros((*_as_clip(each, None, spec).shape, 3), np.uint8) for each in listed]


def _given_alone(listed: list[Any], word: str) -> list[Any]:
    if not listed or (len(listed) == 1 and listed[0] is None):
        raise DataError(f"neither a {word} nor depth is given: pass one of them, or both")
    lacking = [number for number, each in enumerate(listed) if each is None]
    if lacking:
        raise DataError(f"there is neither a {word} nor depth at {lacking[0]} of the list; leave it out")
    return listed


def _refuse_colour_alone(maps: Any) -> None:
    """Where no picture tells the size, channels at the end are what betrays one; or before that, of clips."""
    shape = tuple(getattr(maps, "shape", ()))
    if isinstance(maps, list | tuple):
        for each in maps:
            _refuse_colour_alone(each)
    elif len(shape) >= 3 and (shape[-1] in (2, 3, 4) or (len(shape) > 3 and shape[-3] in (3, 4))):
        raise DataError(
            f"depth has one channel, but its shape is {shape}: a colour picture, or several maps; pass (H, W), or one "
            "such map after the other"
        )


def maps_of_images(maps: Any, sizes: Sequence[tuple[int, ...]], turned: Sequence[int], word: str) -> list[np.ndarray]:
    """One (H, W) array for each image.

    Args:
        maps: a map, or a list or batch of them; of depth also None, which is one hole.
        sizes: (height, width) of each upright image.
        turned: EXIF's orientation of each image as it was stored.
        word: name of the map in messages.

    Raises:
        DataError: not one per image, another size than the image's, channels, or a map without an orientation for an
            image that has one.
    """
    listed = _as_list(maps)
    if len(listed) != len(sizes):
        _refuse_colour(maps, sizes[0], word)
        raise DataError(f"{len(listed)} {word} maps for {len(sizes)} images; pass one for each.")
    holes = [each is None and word == "depth" for each in listed]
    # A hole is as its image lies, whatever its EXIF says: 0 is no orientation that `lies_unknown` is asked of.
    pairs = [(_hole(size), 0) if hole else _as_map(each) for each, size, hole in zip(listed, sizes, holes)]
    for number, ((array, orientation), (height, width)) in enumerate(zip(pairs, sizes)):
        if orientation == 1 and lies_unknown(turned[number], (height, width), array.shape):
            raise DataError(
                f"image {number} has the EXIF orientation {turned[number]} and is turned upright; its {word} map "
                "has no orientation, so it is unknown whether it is already upright. Pass the image as an upright "
                "array (PIL.ImageOps.exif_transpose) and turn the map in the same way."
            )
        if array.shape != (height, width):
            raise DataError(
                f"{word} map {number} is {array.shape[0]} x {array.shape[1]}, but its image is {height} x {width}; "
                "align them before processing."
            )
    return [array for array, _ in pairs]


def _refuse_colour(maps: Any, size: tuple[int, ...], word: str, frames: int | None = None) -> None:
    """Say of maps that are too many or too few that they are pictures of several channels, where they are.

    Args:
        maps: as given.
        size: (height, width) of the first picture or clip.
        word: name of the map in messages.
        frames: of the first clip; None for pictures. Three maps in a row are three frames, unless there is one.

    Raises:
        DataError: they have three or four channels, last (there also two) or first.
    """
    while isinstance(maps, list | tuple):
        maps = next((each for each in maps if each is not None), None)
    if maps is None:
        return
    shape = as_array(maps)[0].shape
    if len(shape) < 3:
        return
    last = shape[-3:-1] == tuple(size) and shape[-1] in (2, 3, 4)
    first = shape[-2:] == tuple(size) and shape[-3] in (3, 4)
    rows = shape[0] if len(shape) > 3 else 1
    if last or (first and frames in (None, rows)):
        raise DataError(
            f"{word} has one channel, but {word} of shape {shape} was given for pictures of {size[0]} x {size[1]}: a "
            "colour picture, or several maps. Pass one (H, W) map of values for each picture."
        )


def maps_of_clips(
    maps: Any, shapes: Sequence[tuple[int, int, int]], spec: Mapping[str, Any] | None = None
) -> list[np.ndarray]:
    """One (T, H, W) array for each clip.

    Args:
        maps: depth of a clip ((T, H, W), or with one channel behind T or at the end; or a list of T maps, in which None
            is a frame without one), or a list or batch of such, in which None is a clip without any.
        shapes: (frames, height, width) of each clip as it was given, before frames are sampled.
        spec: meaning of stored integers, which cannot say "nothing measured": clips with a None come out in metres.

    Raises:
        DataError: not one per clip, another number of maps than frames, or another size than theirs.
    """
    listed = _clips(maps, len(shapes))
    frames, height, width = shapes[0]
    if len(listed) != len(shapes):
        _refuse_colour(maps, (height, width), "depth", frames)
        raise DataError(f"depth of {len(listed)} clips for {len(shapes)} clips; pass one for each.")
    clips = [_as_clip(each, shape, spec) for each, shape in zip(listed, shapes)]
    for number, (clip, (frames, height, width)) in enumerate(zip(clips, shapes)):
        if len(clip) != frames:
            _refuse_colour(maps, (height, width), "depth", frames)
            raise DataError(f"clip {number} has {frames} frames but {len(clip)} depth maps; pass one for each frame.")
        if clip.shape[1:] != (height, width):
            raise DataError(
                f"the depth of clip {number} is {clip.shape[1]} x {clip.shape[2]}, but its frames are {height} x "
                f"{width}; "
                "align them before processing."
            )
    return clips


def _clips(maps: Any, count: int) -> list[Any]:
    if isinstance(maps, list | tuple):
        return [maps] if _are_frames(maps, count) else list(maps)
    dimensions = getattr(maps, "ndim", 0)
    batch = dimensions == 5 or (dimensions == 4 and (count > 1 or 1 not in (maps.shape[1], maps.shape[-1])))
    return list(maps) if batch else [maps]


def _are_frames(maps: Sequence[Any], count: int) -> bool:
    """Whether a list holds the maps of one clip, and not the maps of several clips."""
    known = next((each for each in maps if each is not None), None)
    if hasattr(known, "convert") or getattr(known, "ndim", 0) == 2:
        return True
    shape: tuple[int, ...] = tuple(getattr(known, "shape", ()))
    with_channel = known is None or (len(shape) == 3 and 1 in (shape[0], shape[-1]))
    return with_channel and count == 1 and len(maps) > 1


def _hole(size: Sequence[int]) -> np.ndarray:
    """Depth of which nothing was measured, in metres."""
    return np.full(tuple(size), np.nan, np.float32)


def _as_clip(clip: Any, shape: tuple[int, int, int] | None, spec: Mapping[str, Any] | None) -> np.ndarray:
    """(T, H, W) of the stored dtype, or of metres where a frame has none; `shape` is that of the clip, if known."""
    if clip is None and shape is not None:
        return _hole(shape)
    if isinstance(clip, list | tuple):
        known = [None if each is None else _as_map(each)[0] for each in clip]
        sizes = {each.shape for each in known if each is not None} or ({shape[1:]} if shape is not None else set())
        if not known:
            raise DataError("the depth of a clip is an empty list; pass one map for each frame")
        if not sizes:
            raise DataError("there is neither a video nor depth of any of its frames")
        if len(sizes) != 1:
            raise DataError(f"depth maps of a clip differ in size: {sorted(sizes)}")
        maps = [each for each in known if each is not None]
        if len(maps) == len(known) and len({each.dtype.kind in "ui" for each in maps}) == 1:
            return np.stack(maps)
        return np.stack([_hole(*sizes) if each is None else decoded(each, spec) for each in known])
    array, _ = as_array(clip)
    if array.ndim == 2:  # of a picture, which is a clip of one frame
        array = array[None]
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
        array = array.squeeze(1 if array.shape[1] == 1 else -1)
    if array.ndim != 3:
        raise DataError(f"the depth of a clip must be (T, H, W) or (T, 1, H, W), got shape {array.shape}")
    return array
