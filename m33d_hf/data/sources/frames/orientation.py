"""What to do with depth and labels whose picture is stored lying, with a note of EXIF (or a video) how to turn it.

Pictures are turned upright everywhere: in training, in processors, and in transformers' pipelines. A map beside them
with an orientation of its own is turned by that. One without is mostly stored as the sensor delivered it, as the
picture is, but may as well have been turned already, and its size tells only sometimes.
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
    values: np.ndarray, path: Path, orientation: int, picture: tuple[int, int], rule: str
) -> np.ndarray:
    """A map without an orientation of its own, upright.

    Args:
        values: (H, W) as stored.
        path: of the map, for the message.
        orientation: EXIF's, of the picture beside it (of a video's frame: that of the video); 1 for none.
        picture: (height, width) of the upright picture.
        rule: one of `ORIENTATIONS`.

    Raises:
        DataError: `refuse`, and the map may be meant both ways.
    """
    if orientation == 1 or rule == "upright":
        return values
    if rule == "as_rgb":
        return np.ascontiguousarray(turned_upright(values, orientation))
    if lies_unknown(orientation, picture, (values.shape[0], values.shape[1])):
        raise DataError(
            f"the picture beside {path} has the EXIF orientation {orientation} (or its video is stored so) and is "
            f"turned upright, to {picture[0]}x{picture[1]} (height x width); the map, "
            f"{values.shape[0]}x{values.shape[1]}, says nothing. Look at one pair: if the map lies as the picture "
            "is stored, pass orientation=as_rgb "
            "(--data.options.orientation), and it is turned too; if it is upright already, orientation=upright."
        )
    return values


def describe_orientations(seen: Sequence[int], rule: str) -> str | None:
    """A sentence about the orientations of the pictures that were looked at; None where all are upright."""
    turned = Counter(each for each in seen if each != 1)
    if not turned:
        return None
    kinds = ", ".join(f"{value} ({number} times)" for value, number in sorted(turned.items()))
    others = {
        "refuse": "depth and labels are not, but where they have an orientation of their own",
        "as_rgb": "depth and labels without an orientation of their own are turned with them",
        "upright": "depth and labels without an orientation of their own are taken as upright",
    }[rule]
    return f"{turned.total()} of {len(seen)} pictures looked at have an EXIF orientation, {kinds}, and are turned " + (
        f"upright; {others}"
    )
