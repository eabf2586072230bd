"""Random crops: each draws one `Placement` for all frames and all maps of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m33d_hf.data.randomness import Uniforms
from m33d_hf.modeling.preprocessing_m33d import Placement, Size, covering_size, fitting_size

# VideoMAE: a crop side this close to the output is taken as the output, so that it need not be resized.
SNAP_PIXELS = 3


def random_resized_crop(
    image: Size, size: Size, scale: Sequence[float], ratio: Sequence[float], draws: Uniforms
) -> Placement:
    """Draw torchvision's RandomResizedCrop: a box of random area and aspect ratio (width / height), resized.

    Args:
        image: (height, width) of the sample.
        size: (height, width) of the result.
        scale: range of the box's share of the image area.
        ratio: range of its aspect ratio, drawn uniformly in the logarithm.
        draws: source of randomness.
    """
    height, width = image
    for _ in range(10):
        area = height * width * draws.uniform(*scale)
        aspect = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_w, box_h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_w <= width and 0 < box_h <= height:
            top, left = draws.integer(height - box_h + 1), draws.integer(width - box_w + 1)
            return Placement((top, left, box_h, box_w), size, (0, 0), size)
    # No box fitted: the largest central one of an allowed aspect ratio.
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_w, box_h = min(width, round(height * aspect)), min(height, round(width / aspect))
    box = ((height - box_h) // 2, (width - box_w) // 2, box_h, box_w)
    return Placement(box, size, (0, 0), size)


def multi_scale_crop(image: Size, size: Size, scales: Sequence[float], draws: Uniforms) -> Placement:
    """Draw VideoMAE's MultiScaleCrop.

    Sides are `scales` times the short side; height and width may differ by one step of the list; the box lies at
    one of 13 fixed places. Every (height, width) pair and every place is equally likely.
    """
    short = min(image)
    sides = [int(short * scale) for scale in scales]
    heights = [size[0] if abs(side - size[0]) < SNAP_PIXELS else side for side in sides]
    widths = [size[1] if abs(side - size[1]) < SNAP_PIXELS else side for side in sides]
    # Snapping may ask for a pixel or two more than a barely smaller image has.
    pairs = [
        (min(h, image[0]), min(w, image[1]))
        for i, h in enumerate(heights)
        for j, w in enumerate(widths)
        if abs(i - j) <= 1
    ]
    box_h, box_w = pairs[draws.integer(len(pairs))]
    places = fixed_offsets(image, (box_h, box_w))
    top, left = places[draws.integer(len(places))]
    return Placement((top, left, box_h, box_w), size, (0, 0), size)


def fixed_offsets(image: Size, box: Size) -> list[Size]:
    """The 13 (top, left) places of MultiScaleCrop: centre, corners, middles of the edges, quarter points."""
    step_h, step_w = (image[0] - box[0]) // 4, (image[1] - box[1]) // 4
    corners_and_centre = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    edges = [(2, 0), (2, 4), (4, 2), (0, 2)]
    quarters = [(1, 1), (1, 3), (3, 1), (3, 3)]
    return [(top * step_h, left * step_w) for top, left in corners_and_centre + edges + quarters]


def random_crop(image: Size, size: Size, draws: Uniforms) -> Placement:
    """Scale until the canvas is covered (square: short side to size), then crop at a random place (MultiMAE, NYUv2)."""
    resized = covering_size(image, size)
    return Placement((0, 0, *image), resized, _random_offset(resized, size, draws), size)


def scale_jitter(image: Size, size: Size, scale: Sequence[float], draws: Uniforms) -> Placement:
    """Draw large scale jitter, as MultiMAE: longest side to size, times a factor, then pad and crop.

    Args:
        image: (height, width) of the sample.
        size: (height, width) of the result.
        scale: range of the factor; below 1 the rest of the canvas is padded.
        draws: source of randomness.
    """
    resized = fitting_size(image, size, draws.uniform(*scale))
    return Placement((0, 0, *image), resized, _random_offset(resized, size, draws), size)


def _random_offset(resized: Size, size: Size, draws: Uniforms) -> Size:
    top, left = (draws.integer(max(have - want, 0) + 1) for have, want in zip(resized, size, strict=True))
    return top, left
