# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The geometry of evaluation in the fields of transformers' processors, and back: saved is what was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.image_utils import SizeDict

from .errors_m33d import ConfigError, DataError
from .picture_files_m33d import MAX_PIXELS
from .preprocessing_m33d import Placement, Size, place


def placement_fields(size: int | Sequence[int], mode: str) -> dict[str, Any]:
    """What a processor's configuration says for ``place(image, size, mode)``, in transformers' own fields.

    `resize` is a `size` of height and width. `center` is a `size` to cover (the shortest edge of a square, height and
    width otherwise) and the same `crop_size`; `pad` a `size` of largest height and width and the same `pad_size`.

    Raises:
        ConfigError: an unknown mode or an invalid size.
    """
    height, width = place((1, 1), size, mode).size
    whole = {"height": height, "width": width}
    if mode == "resize":
        return {"size": whole, "do_center_crop": False, "do_pad": False}
    if mode == "pad":
        bounds = {"max_height": height, "max_width": width}
        return {"size": bounds, "do_center_crop": False, "do_pad": True, "pad_size": whole}
    scaled = {"shortest_edge": height} if height == width else whole
    return {"size": scaled, "do_center_crop": True, "crop_size": whole, "do_pad": False}


def placement_of(image: Size, fields: Mapping[str, Any]) -> Placement | None:
    """The placement that a processor's fields stand for (see `placement_fields`); None for combinations that have none.

    Beyond the three geometries of evaluation, a `crop_size` that is not the size is cut out of the middle of what was
    resized as transformers does it: to height and width, or to the shortest edge without distortion; without
    `do_resize` out of the picture itself.

    Args:
        image: (height, width).
        fields: do_resize, size, do_center_crop, crop_size, do_pad and pad_size; sizes are transformers' SizeDict.

    Raises:
        DataError: an image without pixels, or so long and narrow that what it is resized to would not fit into memory.
    """
    if min(image) < 1:
        raise DataError(f"an image has no pixels: {image[0]} x {image[1]}")
    placement = _placement(image, fields)
    if placement is not None and placement.resized[0] * placement.resized[1] > max(MAX_PIXELS, image[0] * image[1]):
        raise DataError(
            f"an image of {image[0]} x {image[1]} pixels would be resized to {placement.resized[0]} x "
            f"{placement.resized[1]} before its centre is cropped; at most {MAX_PIXELS:,} pixels are supported. Crop "
            "it first."
        )
    return placement


def placement_of_clip(image: Size, options: Mapping[str, Any]) -> Placement | None:
    """Where the pictures of a clip land: `placement_of`, and a crop where none is stated; None where they stay.

    Args:
        image: (height, width).
        options: of a video processor, see `placement_of`.

    Raises:
        ConfigError: a combination that has no placement. DataError: as `placement_of`.
    """
    size, crop = options["size"], options["crop_size"]
    if not options["do_resize"]:
        placement = placement_of(image, options) if crop is not None else None
        if placement is None and options["do_center_crop"] and crop is not None:
            raise ConfigError(
                f"crop_size is {crop.height} x {crop.width}, but the picture is only {image[0]} x {image[1]}"
            )
        return placement
    if options["do_pad"]:
        placement = placement_of(image, options)
        if placement is None:
            raise ConfigError(
                "do_pad requires a size with max_height and max_width, the same pad_size, and no do_center_crop; got "
                "size "
                f"{dict(size)} and pad_size {options['pad_size'] and dict(options['pad_size'])}"
            )
        return placement
    if size.shortest_edge and not size.longest_edge:
        square = SizeDict(height=size.shortest_edge, width=size.shortest_edge)
        crop = crop or square
        size = size if options["do_center_crop"] else square
    elif not (size.height and size.width):
        raise ConfigError(f"size is {dict(size)}; it must have height and width, or shortest_edge for a square")
    crop = crop or size
    placement = placement_of(image, {**options, "size": size, "crop_size": crop})
    if placement is None:
        raise ConfigError(
            f"crop_size is {crop.height} x {crop.width} and size {dict(size)}: the crop is larger than the resized "
            "picture; leave crop_size out or make it smaller"
        )
    return placement


def _placement(image: Size, fields: Mapping[str, Any]) -> Placement | None:
    size, crop, pad = fields["size"], fields.get("crop_size"), fields.get("pad_size")
    centred, padded = bool(fields.get("do_center_crop")), bool(fields.get("do_pad"))
    if centred and padded:
        return None
    cut = _pair(crop, "height", "width") if crop is not None else None
    if not fields["do_resize"]:
        return _cut_from(image, image, cut) if centred else None
    if size is None:
        return None
    exact, bounds = _pair(size, "height", "width"), _pair(size, "max_height", "max_width")
    if centred:
        side = int(size.shortest_edge or 0) if not size.longest_edge else 0
        canvas = (side, side) if side else exact
        if canvas is None or canvas == cut:
            return None if canvas is None else place(image, canvas, "center")
        return _cut_from(image, _with_shortest_edge(image, side) if side else canvas, cut)
    if padded:
        given = _pair(pad, "height", "width") if pad is not None else None
        return None if bounds is None or bounds != given else place(image, bounds, "pad")
    return place(image, exact, "resize") if exact else None


def _cut_from(image: Size, resized: Size, cut: Size | None) -> Placement | None:
    """The centre of the resized image; None where it would stick out."""
    if cut is None or cut[0] > resized[0] or cut[1] > resized[1]:
        return None
    offset = ((resized[0] - cut[0]) // 2, (resized[1] - cut[1]) // 2)
    return Placement((0, 0, *image), resized, offset, cut)


def _with_shortest_edge(image: Size, side: int) -> Size:
    """transformers' rule: the other side is rounded down."""
    height, width = image
    return (side, side * width // height) if height <= width else (side * height // width, side)


def _pair(size: Any, first: str, second: str) -> Size | None:
    """Two entries of a SizeDict, None where one is missing."""
    one, two = getattr(size, first), getattr(size, second)
    return (int(one), int(two)) if one and two else None
