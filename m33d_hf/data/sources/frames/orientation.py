"""How to orient depth and labels if the EXIF data of their picture (or video) say that it must be rotated.

Pictures are turned upright everywhere: in training, in processors, and in transformers' pipelines. A map beside them
that states its own orientation is turned accordingly. A map that does not is mostly stored as the sensor delivered it,
like the picture, but it may have been turned already, and its size does not always tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m33d_hf.errors import DataError
from m33d_hf.modeling.picture_files_m33d import lies_unknown, turned_upright

# refuse: stop where nobody can know; as_rgb: turn such maps as their picture is turned; upright: they are upright.
ORIENTATIONS = ("refuse", "as_rgb", "upright")


def as_the_picture_lies(
    values: np.ndarray,
    path: Path,
    orientation: int,
    picture: tuple[int, int],
    rule: str,
    option: str = "--data.options.orientation",
) -> np.ndarray:
    """Turn a map without its own orientation upright.

    Args:
        values: (H, W) as stored.
        path: path of the map, for the message.
        orientation: EXIF's, of the picture beside it (of a video's frame: that of the video); 1 for none.
        picture: (height, width) of the upright picture.
        rule: one of `ORIENTATIONS`.
        option: that states the rule, for the message.

    Raises:
        DataError: `refuse`, and both readings of the map are possible.
    """
    if orientation == 1 or rule == "upright":
        return values
    if rule == "as_rgb":
        return np.ascontiguousarray(turned_upright(values, orientation))
    if lies_unknown(orientation, picture, (values.shape[0], values.shape[1])):
        raise DataError(
            f"the picture beside {path} has the EXIF orientation {orientation} (or its video is stored so) and is "
            f"turned upright, to {picture[0]}x{picture[1]} (height x width); the map, "
            f"{values.shape[0]}x{values.shape[1]}, states none. Look at one pair: if the map has the orientation in "
            f"which the picture is stored, pass {option} as_rgb to turn it too; if it is already upright, pass "
            f"{option} upright."
        )
    return values


def describe_orientations(seen: Sequence[int], rule: str) -> str | None:
    """A sentence about the orientations of the checked pictures; None if all are upright."""
    turned = Counter(each for each in seen if each != 1)
    if not turned:
        return None
    kinds = ", ".join(f"{value} ({number} times)" for value, number in sorted(turned.items()))
    others = {
        "refuse": "depth and labels are turned only if they have their own orientation",
        "as_rgb": "depth and labels without their own orientation are turned with them",
        "upright": "depth and labels without their own orientation are assumed to be upright",
    }[rule]
    return f"{turned.total()} of {len(seen)} checked pictures have an EXIF orientation, {kinds}, and are turned " + (
        f"upright; {others}"
    )
