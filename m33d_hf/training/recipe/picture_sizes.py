"""Sizes of pictures as people write them: `240x320` and `240,320` are height and width, `240` is a square."""

from __future__ import annotations

import re
from typing import Any

SIZES = ("image_size", "patch_size")  # fields of the model
_PAIR = re.compile(r"\s*(\d{1,9})\s*[x×X,]\s*(\d{1,9})\s*")


def read_size(value: Any) -> Any:
    """[height, width] of a text of two numbers; every other value as it is, for the check of its type."""
    pair = _PAIR.fullmatch(value) if isinstance(value, str) else None
    return value if pair is None else [int(pair[1]), int(pair[2])]
