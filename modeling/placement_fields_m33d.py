# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The geometry of evaluation in the fields of transformers' processors, and back: saved is what was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .preprocessing_m33d import Placement, Size, place


def placement_fields(size: int | Sequence[int], mode: str) -> dict[str, Any]:
    """What a processor's configuration says for ``place(image, size, mode)``, in transformers' own fields.

    `resize` is a `size` of height and width. `center` is a `size` to cover (the shortest edge of a square, height and
    width otherwise) and the same `crop_size`; `pad` a `size` of largest height and width and the same `pad_size`.

    Raises:
        ConfigError: an unknown mode or a senseless size.
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
    """The placement that a processor's fields stand for (see `placement_fields`); None for any other combination.

    Args:
        image: (height, width).
        fields: do_resize, size, do_center_crop, crop_size, do_pad and pad_size; sizes are transformers' SizeDict.
    """
    size, crop, pad = fields["size"], fields.get("crop_size"), fields.get("pad_size")
    centred, padded = bool(fields.get("do_center_crop")), bool(fields.get("do_pad"))
    if not fields["do_resize"] or size is None or (centred and padded):
        return None
    exact, bounds = _pair(size, "height", "width"), _pair(size, "max_height", "max_width")
    if centred:
        side = int(size.shortest_edge or 0) if not size.longest_edge else 0
        canvas = (side, side) if side else exact
        given = _pair(crop, "height", "width") if crop is not None else None
        return None if canvas is None or canvas != given else place(image, canvas, "center")
    if padded:
        given = _pair(pad, "height", "width") if pad is not None else None
        return None if bounds is None or bounds != given else place(image, bounds, "pad")
    return place(image, exact, "resize") if exact else None


def _pair(size: Any, first: str, second: str) -> Size | None:
    """Two entries of a SizeDict, None where one is missing."""
    one, two = getattr(size, first), getattr(size, second)
    return (int(one), int(two)) if one and two else None
