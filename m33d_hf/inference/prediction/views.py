"""What the model sees of a picture: the whole, or tiles of it, each once or also mirrored; and how they are fused.

Tiles are as large as the model's input, in the picture's own pixels, and overlap. A pixel that several tiles cover has
their weighted mean: weights fall off linearly over the overlap, towards the borders that lie inside the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.errors import ConfigError


@dataclass(frozen=True)
class ViewOptions:
    """How pictures are looked at.

    Attributes:
        flip: also mirrored; the two predictions are averaged.
        tiles: pictures larger than the model's input are cut into tiles.
        overlap: share of a tile that it has in common with the next one, 0 to below 1.
    """

    flip: bool = False
    tiles: bool = False
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"--tile_overlap {self.overlap} must be at least 0 and below 1.")


@dataclass(frozen=True)
class View:
    """One look at a part of a picture.

    Attributes:
        inputs: of the model, with a leading 1.
        corner: (y, x) of the part in the picture.
        size: (h, w) of the part.
        mirrored: whether left and right are exchanged.
    """

    inputs: dict[str, Tensor]
    corner: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool


@dataclass(frozen=True)
class Looked:
    """A picture, (H, W, 3) uint8 RGB, and the views of it."""

    pixels: np.ndarray
    views: list[View]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    @property
    def is_plain(self) -> bool:
        """Whether the whole picture is seen once, so that there is nothing to fuse."""
        return len(self.views) == 1


def look(
    pixels: np.ndarray,
    processor: Any,
    options: ViewOptions,
    positional: bool = False,
    depth: Mapping[str, Any] | None = None,
) -> Looked:
    """The views of a picture, prepared by the model's processor.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        processor: of the model.
        options: which views.
        depth: "depth", (H, W) as stored, and further arguments of the processor about it; None for pictures alone.
        positional: the model knows a mean depth per position of whole pictures (`depth_prior_weight`), so that views of
            parts, and mirrored ones, come with `depth_prior_view`.

    Raises:
        ConfigError: tiles for such a model, whose processor crops or pads pictures: tiles show what it never saw.
    """
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    whole = _view(pixels, processor, (0, 0), (height, width), False, depth)
    views = [whole]
    if options.tiles:
        seen = whole.inputs["pixel_values"].shape[-2:]
        tile = min(int(seen[0]), height), min(int(seen[1]), width)
        if tile != (height, width):
            if positional and (getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False)):
                raise ConfigError(
                    "--tiles cannot be used with this model: its predictions hold the mean depth per position "
                    "(depth_prior_weight) of pictures that its processor crops or pads, and tiles lie elsewhere. Leave "
                    "--tiles out."
                )
            rows, columns = (starts(*each, options.overlap) for each in ((height, tile[0]), (width, tile[1])))
            views = [_view(pixels, processor, (y, x), tile, False, depth) for y in rows for x in columns]
    if options.flip:
        views += [_view(pixels, processor, view.corner, view.size, True, depth) for view in views]
    if positional:
        for view in views:
            if view.mirrored or view.size != (height, width):
                view.inputs["depth_prior_view"] = _shares(view, height, width)
    return Looked(pixels, views)


def _shares(view: View, height: int, width: int) -> Tensor:
    """(1, 4): top, left, bottom, right of a view in shares of the picture, left and right exchanged in a mirror."""
    (y, x), (rows, columns) = view.corner, view.size
    left, right = x / width, (x + columns) / width
    if view.mirrored:
        left, right = right, left
    return torch.tensor([[y / height, left, (y + rows) / height, right]], dtype=torch.float32)


def _view(
    pixels: np.ndarray,
    processor: Any,
    corner: tuple[int, int],
    size: tuple[int, int],
    mirrored: bool,
    depth: Mapping[str, Any] | None = None,
) -> View:
    def part(whole: np.ndarray) -> np.ndarray:
        cut = whole[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
        return np.ascontiguousarray(cut[:, ::-1] if mirrored else cut)

    given = {} if depth is None else {**depth, "depth": [part(depth["depth"])]}
    inputs = processor(images=[part(pixels)], **given, return_tensors="pt", input_data_format="channels_last")
    return View(dict(inputs), corner, size, mirrored)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin: the first at 0, the last ends at `length`, the others evenly between.

    Neighbours have at least the share `overlap` of a tile in common.
    """
    if tile >= length:
        return [0]
    count = math.ceil((length - tile) / max(1.0, math.floor(tile * (1 - overlap)))) + 1
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]


def weights(corner: int, tile: int, length: int) -> Tensor:
    """(tile,) float32 in (0, 1]: 1 in the middle, falling off linearly to borders inside the picture."""
    places = torch.arange(tile, dtype=torch.float32) + 0.5
    # At least a quarter of a tile: with no overlap it makes no difference, since nothing else covers the pixel.
    ramp = max(1.0, tile / 4)
    found = torch.ones(tile)
    if corner > 0:
        found = torch.minimum(found, places / ramp)
    if corner + tile < length:
        found = torch.minimum(found, places.flip(0) / ramp)
    return found


class Fusion:
    """The weighted mean of what views predict of one picture.

    Args:
        size: (H, W) of the picture.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._sum: Tensor | None = None
        self._weight = torch.zeros(size)

    def add(self, view: View, values: Tensor, known: Tensor) -> None:
        """Take the prediction of a view: (L, h, w) as it was predicted (mirrored ones too), known (h, w) bool."""
        if view.mirrored:
            values, known = values.flip(-1), known.flip(-1)
        values, known = values.float().cpu(), known.cpu()
        (y, x), (height, width) = view.corner, view.size
        rows, columns = weights(y, height, self.size[0]), weights(x, width, self.size[1])
        weight = rows[:, None] * columns[None] * known
        if self._sum is None:
            self._sum = torch.zeros(len(values), *self.size)
        place = (..., slice(y, y + height), slice(x, x + width))
        self._sum[place] += values.where(known, 0.0) * weight
        self._weight[place] += weight

    def mean(self) -> tuple[Tensor, Tensor]:
        """((L, H, W) means, (H, W) bool where some view knew the pixel); 0 elsewhere."""
        if self._sum is None:
            raise ValueError("nothing was added")
        return self._sum / self._weight.clamp_min(1e-12), self._weight > 0


def stacked(views: Sequence[View]) -> dict[str, Tensor]:
    """Model inputs of several views of one shape."""
    return {name: torch.cat([view.inputs[name] for view in views]) for name in views[0].inputs}


def shape_of(view: View) -> tuple[Any, ...]:
    """Views of one shape can go through the model together."""
    return tuple((name, tuple(values.shape)) for name, values in sorted(view.inputs.items()))
