"""Whether two pictures can show the same view, by their sizes."""

from __future__ import annotations


def same_shape(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two sizes have one aspect ratio, but for rounding: 1 %, or a pixel of the smaller picture."""
    (height, width), (other_height, other_width) = first, second
    apart = abs(height * other_width - width * other_height)
    return apart <= max(0.01 * height * other_width, *first, *second)
