"""RandAugment moves whole frames, the model sees a crop of them: where the crop has to lie to see what was moved there.

Operations are carried out on the crop, about its centre. What they do to that centre as operations on the frame (shifts
altogether, shears away from the frame's corner, rotations off its centre) the crop follows, by whole pixels. So what
moves into the crop is the frame's, and grey appears where the frame ends, not where the crop does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from m33d_hf.data.augmentation.rand_augmentation import Operation
from m33d_hf.modeling.preprocessing_m33d import RGB_FILL, Placement, Size


def source_of(down: float, right: float, operations: Sequence[Operation], image: Size) -> tuple[float, float]:
    """The point (down, right) of a picture that the operations move to a point, in pixels from the top left corner."""
    for name, strength in reversed(operations):
        if name == "TranslateX":
            right -= int(strength)
        elif name == "TranslateY":
            down -= int(strength)
        elif name == "ShearX":
            right += strength * down
        elif name == "ShearY":
            down += strength * right
        elif name == "Rotate":
            turn, y, x = math.radians(strength), down - image[0] / 2, right - image[1] / 2
            down = math.sin(turn) * x + math.cos(turn) * y + image[0] / 2
            right = math.cos(turn) * x - math.sin(turn) * y + image[1] / 2
    return down, right


def follow(placement: Placement, operations: Sequence[Operation], image: Size) -> Placement:
    """The placement whose window shows in its centre what the operations move there; its box may leave the image."""
    top, left, height, width = placement.box
    (resized_h, resized_w), (offset_h, offset_w), size = placement.resized, placement.offset, placement.size
    # The middle of the window, in pixels of the box.
    down = (offset_h + min(resized_h - offset_h, size[0]) / 2) * height / resized_h
    right = (offset_w + min(resized_w - offset_w, size[1]) / 2) * width / resized_w
    seen = source_of(top + down, left + right, operations, image)
    return dataclasses.replace(placement, box=(round(seen[0] - down), round(seen[1] - right), height, width))


def surround(frames: torch.Tensor, placement: Placement) -> tuple[torch.Tensor, Placement]:
    """Frames (T, 3, H, W) uint8 and a placement within them: where the box leaves the frames, its cut-out is made, with
    mid-grey outside."""
    top, left, height, width = placement.box
    if top >= 0 and left >= 0 and top + height <= frames.shape[-2] and left + width <= frames.shape[-1]:
        return frames, placement
    shape = (len(frames), height, width, 3)
    if frames.stride(1) == 1:  # pixel by pixel, as decoded
        cut = torch.full(shape, RGB_FILL, dtype=torch.uint8, device=frames.device).permute(0, 3, 1, 2)
    else:
        cut = torch.full((len(frames), 3, height, width), RGB_FILL, dtype=torch.uint8, device=frames.device)
    rows, columns = slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))
    known = frames[..., rows, columns]
    down, right = max(-top, 0), max(-left, 0)
    cut[..., down : down + known.shape[-2], right : right + known.shape[-1]] = known
    return cut, dataclasses.replace(placement, box=(0, 0, height, width))
