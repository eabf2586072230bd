# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The deterministic image path shared by processors and evaluation transforms, so that both give bit-equal tensors.

Pure functions on torch tensors (`picture_input_m33d` makes them of arrays and PIL images); torchvision is not needed.
RGB is uint8 and resized with antialiasing; depth, labels and every other map take the nearest pixel, so that no
value is ever a mixture of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from .depth_m33d import resize_depth
from .errors_m33d import ConfigError, nearest_name_hint

Size = tuple[int, int]

PLACEMENT_MODES = ("center", "resize", "pad")
RESIZE_MODES = ("bilinear", "bicubic")
RGB_FILL = 128
_NUMPY_DTYPES = frozenset((torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64))


def size_pair(size: int | Sequence[int]) -> Size:
    """Return (height, width) of a size given as one side or two.

    Raises:
        ConfigError: not one or two positive integers.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or any(int(side) != side or side < 1 for side in sides):
        raise ConfigError(f"image_size must be one side or [height, width] in pixels, not {size!r}")
    return int(sides[0]), int(sides[1])


@dataclass(frozen=True)
class Placement:
    """How an image lands on the model's canvas: cut a box, resize it, look at a window of it, pad the rest.

    Attributes:
        box: (top, left, height, width) in pixels of the original image.
        resized: (height, width) that the box is resized to.
        offset: (top, left) of the window inside the resized box.
        size: (height, width) of the canvas; where the resized box ends before it does, it is padded at the bottom
            and the right.
    """

    box: tuple[int, int, int, int]
    resized: Size
    offset: Size
    size: Size

    @property
    def fills(self) -> bool:
        """Whether the box is resized, to the canvas and no more: what `view` needs to write to `out`."""
        return self.resized == self.size != self.box[2:]

    def view(
        self,
        pixels: torch.Tensor,
        interpolation: str = "bilinear",
        planes: bool = True,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cut, resize and window uint8 RGB (..., 3, H, W); not padded yet.

        Without `planes` it may lie pixel by pixel in memory, as decoders and the resizing kernel leave it. With `out`,
        (T, 3, *size) uint8 pixel by pixel, a placement that `fills` writes there and returns it.
        """
        cut = self._cut(pixels)
        if cut.shape[-2:] == self.resized:
            return self._window(cut)
        if out is not None and self.fills:
            return _resized(cut, self.resized, interpolation, out)
        # The window first: putting pixels into planes takes as long as resizing them.
        window = self._window(_resized(cut, self.resized, interpolation))
        return in_planes(window) if planes else window

    def view_map(self, values: torch.Tensor, image: Size | None = None) -> torch.Tensor:
        """Cut, resize (nearest) and window a map (..., H, W) of any dtype; not padded yet.

        Args:
            values: the map.
            image: (height, width) of the image where the map covers it at another resolution: the result is that of
                `resize_depth` to the image first, to the bit for float32 maps of more than a few pixels a side
                (where a centre falls between two pixels, torch's kernels for small and large results round apart).
        """
        if values.device.type == "cpu" and values.dtype in _NUMPY_DTYPES:
            # One gather per axis of what the window shows, in NumPy: small maps cost nothing but calls.
            height, width = values.shape[-2:] if image is None else image
            chosen, first = values.numpy(), self.box[0]
            if height == values.shape[-2]:  # rows outside the box cost nothing once they are cut off
                chosen, height, first = chosen[..., first : first + self.box[2], :], self.box[2], 0
            for axis in (0, 1) if self._rows_first(*chosen.shape[-2:]) else (1, 0):
                chosen = self._along(chosen, axis, (height, width)[axis], (first, self.box[1])[axis])
            return torch.from_numpy(chosen)
        if image is not None:
            values = resize_depth(values, image)
        return self._window(resize_map(self._cut(values), self.resized))

    def pad(self, values: torch.Tensor, fill: float) -> torch.Tensor:
        """Pad (..., h, w) at the bottom and the right to `size` with `fill`."""
        missing = (self.size[0] - values.shape[-2], self.size[1] - values.shape[-1])
        if missing == (0, 0):
            return values
        if values.dtype == torch.uint8 and values.dim() >= 3 and values.stride(-3) == 1 != values.shape[-3]:
            height, width = values.shape[-2:]  # pixel by pixel they stay, which F.pad changes where T > 1
            shape = (*values.shape[:-3], *self.size, values.shape[-3])
            canvas = torch.full(shape, int(fill), dtype=torch.uint8, device=values.device)
            padded = canvas.movedim(-1, -3)
            padded[..., :height, :width] = values
            return padded
        return F.pad(values, (0, missing[1], 0, missing[0]), value=fill)

    def place_rgb(self, pixels: torch.Tensor, interpolation: str = "bilinear") -> torch.Tensor:
        """Bring uint8 RGB (..., 3, H, W) onto the canvas; padding is mid-grey."""
        return self.pad(self.view(pixels, interpolation), RGB_FILL)

    def place_float(self, pixels: torch.Tensor, interpolation: str = "bilinear", top: float = 1.0) -> torch.Tensor:
        """Bring float32 RGB (..., 3, H, W) in 0 to `top` onto the canvas, within that range; padding is mid-grey."""
        placed = self.view(pixels.contiguous(), interpolation, planes=False)
        return self.pad(placed.clamp(0.0, top).contiguous(), RGB_FILL / 255 * top)

    def place_map(self, values: torch.Tensor, fill: float, image: Size | None = None) -> torch.Tensor:
        """Bring a map onto the canvas (see `view_map`); pad depth with NaN, labels with the ignored index."""
        return self.pad(self.view_map(values, image), fill)

    def put_back(self, values: torch.Tensor) -> torch.Tensor:
        """Bring predictions (L, h, w) float on the canvas back to the size of the image: (L, height, width) of the box.

        Padding is cut away, the rest enlarged or reduced bilinearly and laid where it was cut. Where the window did not
        look (see `looked_at`) the values of its edge go on, so that no pixel inside is mixed with anything else.
        Predictions of another size than the canvas are brought to it first where it shows more or less than the image.
        """
        if self.resized == self.size:
            return _bilinear(values, self.box[2:])
        if values.shape[-2:] != self.size:
            values = _bilinear(values, self.size)
        (top, left), (rows, columns) = self.offset, self.resized
        shown = values[:, : rows - top, : columns - left]
        around = (left, columns - left - shown.shape[2], top, rows - top - shown.shape[1])
        if any(around):
            shown = F.pad(shown[None], around, mode="replicate")[0]
        return _bilinear(shown, self.box[2:])

    def looked_at(self) -> torch.Tensor:
        """(height, width) bool of the box: pixels whose centre lies in the window."""
        seen = []
        for axis in (0, 1):
            start, stop = self._shown(axis)
            centres = _nearest_indices(self.resized[axis], self.box[2 + axis])
            seen.append((centres >= start) & (centres < stop))
        return seen[0][:, None] & seen[1]

    def _rows_first(self, height: int, width: int) -> bool:
        """Which order moves less: whole rows are copied, pixels of a row gathered at three times the price."""
        rows, columns = (stop - start for start, stop in (self._shown(0), self._shown(1)))
        return rows * width + 3 * rows * columns <= 3 * height * columns + rows * columns

    def _shown(self, axis: int) -> Size:
        """The pixels [start, stop) of the resized box that the window shows along one axis, 0 for rows."""
        return self.offset[axis], min(self.offset[axis] + self.size[axis], self.resized[axis])

    def _along(self, values: np.ndarray, axis: int, side: int, first: int) -> np.ndarray:
        """The pixels (..., H, W) that the window shows along one axis, 0 for rows, of an image with this `side`, in
        which the box begins at `first`."""
        length = self.box[2 + axis]
        start, stop = self._shown(axis)
        own = values.shape[axis - 2]
        if length == self.resized[axis] and own == side:
            shown = slice(first + start, first + stop)
            return values[..., shown, :] if axis == 0 else values[..., shown]
        chosen = _nearest_pixels(length, self.resized[axis])[start:stop]
        chosen = chosen + first if first else chosen
        if own != side:
            chosen = _aligned_pixels(own, side)[chosen]
        # No index lies outside: "clip" is the mode without a check of each.
        return values.take(chosen, axis=axis - 2, mode="clip")

    def _cut(self, values: torch.Tensor) -> torch.Tensor:
        top, left, height, width = self.box
        if values.shape[-2:] == (height, width):
            return values
        if values.device.type == "cpu" and values.dtype == torch.uint8:
            return torch.from_numpy(values.numpy()[..., top : top + height, left : left + width])
        return values[..., top : top + height, left : left + width]

    def _window(self, values: torch.Tensor) -> torch.Tensor:
        (top, left), (height, width) = self.offset, self.size
        if values.shape[-2:] == self.size:
            return values
        return values[..., top : top + height, left : left + width]


def place(image: Size, size: int | Sequence[int], mode: str = "center") -> Placement:
    """Plan how an image of (height, width) `image` fills a canvas of `size`.

    `center` scales until the canvas is covered (for a square: shortest side to size) and cuts out the centre;
    `resize` scales each axis to fit; `pad` scales until the image fits (for a square: longest side to size) and
    pads the bottom and the right (MultiMAE's segmentation protocol).

    Raises:
        ConfigError: an unknown mode or a senseless size.
    """
    if mode not in PLACEMENT_MODES:
        hint = nearest_name_hint(mode, PLACEMENT_MODES)
        raise ConfigError(f"image placement is {mode!r}; it must be one of {', '.join(PLACEMENT_MODES)}.{hint}")
    size = size_pair(size)
    whole = (0, 0, *image)
    if mode == "resize":
        return Placement(whole, size, (0, 0), size)
    if mode == "pad":
        return Placement(whole, fitting_size(image, size), (0, 0), size)
    resized = covering_size(image, size)
    offset = ((resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2)
    return Placement(whole, resized, offset, size)


def covering_size(image: Size, size: Size) -> Size:
    """The smallest size of the image's aspect ratio that covers `size`."""
    scale = max(size[0] / image[0], size[1] / image[1])
    return max(round(image[0] * scale), size[0]), max(round(image[1] * scale), size[1])


def fitting_size(image: Size, size: Size, factor: float = 1.0) -> Size:
    """The largest size of the image's aspect ratio that fits into `size`, times `factor`; at least one pixel."""
    scale = factor * min(size[0] / image[0], size[1] / image[1])
    return max(round(image[0] * scale), 1), max(round(image[1] * scale), 1)


# What F.interpolate(mode=..., antialias=True) ends in; its checks of the arguments cost as much as a small image.
_KERNELS = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
}


def resize_rgb(pixels: torch.Tensor, size: Size, interpolation: str = "bilinear") -> torch.Tensor:
    """Resize uint8 (..., C, H, W) to uint8 (..., C, *size) with antialiasing.

    Raises:
        ConfigError: an unknown interpolation.
    """
    return pixels if pixels.shape[-2:] == size else in_planes(_resized(pixels, size, interpolation))


def _resized(pixels: torch.Tensor, size: Size, interpolation: str, out: torch.Tensor | None = None) -> torch.Tensor:
    """`resize_rgb` to another size, in planes or pixel by pixel; into `out`, (T, 3, *size) pixel by pixel, if given."""
    if interpolation not in RESIZE_MODES:
        hint = nearest_name_hint(interpolation, RESIZE_MODES)
        raise ConfigError(f"interpolation is {interpolation!r}; it must be bilinear or bicubic.{hint}")
    images = pixels.reshape(-1, *pixels.shape[-3:])
    if images.device.type == "cpu":
        # The integer kernel is three times faster than the float one and rounds as PIL does, but for a level or two.
        if images.stride(-3) != 1:
            images = images.contiguous()  # of planes, it reads a cut-out at half the speed; of pixels, at full speed
        elif len(images) == 1:
            # Of one image any stride is right, and reshape gives one from which torch infers planes: half the speed.
            rows = images.stride(-2) * images.shape[-2]
            images = images.as_strided(images.shape, (rows, *images.stride()[1:]))
        if out is not None and images.stride(-3) == 1:
            return _KERNELS[interpolation].out(images, size, False, out=out)  # of planes it cannot make pixels
        resized = _KERNELS[interpolation].default(images, size, False)
    else:
        resized = F.interpolate(images.float(), size, mode=interpolation, antialias=True)
        resized = resized.round().clamp_(0, 255).to(torch.uint8)
    resized = resized.reshape(*pixels.shape[:-2], *size)
    return resized if out is None else out.copy_(resized)


def in_planes(images: torch.Tensor) -> torch.Tensor:
    """Contiguous uint8 (..., C, H, W), in half the time of ``contiguous()`` where they lie pixel by pixel."""
    if images.device.type != "cpu" or images.dim() < 3 or images.stride(-3) != 1 or images.shape[-3] == 1:
        return images.contiguous()
    pixels = images.numpy()
    planes = np.empty(pixels.shape, np.uint8)
    for channel in range(pixels.shape[-3]):
        planes[..., channel, :, :] = pixels[..., channel, :, :]
    return torch.from_numpy(planes)


@lru_cache(maxsize=1024)
def _nearest_pixels(source: int, target: int) -> np.ndarray:
    return _nearest_indices(source, target).numpy()


@lru_cache(maxsize=1024)
def _aligned_pixels(source: int, target: int) -> np.ndarray:
    """(target,) int64: the source pixels that `resize_depth` takes."""
    return resize_depth(torch.arange(source, dtype=torch.float32)[:, None], (target, 1))[:, 0].long().numpy()


@lru_cache(maxsize=1024)
def _nearest_indices(source: int, target: int) -> torch.Tensor:
    """(target,) int64: the source pixel under the centre of each target pixel, in exact integer arithmetic."""
    return ((2 * torch.arange(target) + 1) * source).div(2 * target, rounding_mode="floor")


def _bilinear(values: torch.Tensor, size: Size) -> torch.Tensor:
    """(L, h, w) float to (L, *size)."""
    return F.interpolate(values[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def resize_map(values: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize (..., H, W) of any dtype to (..., *size) by the nearest pixel (torch's "nearest-exact")."""
    height, width = values.shape[-2:]
    if height != size[0]:
        values = values.index_select(-2, _nearest_indices(height, size[0]).to(values.device))
    if width != size[1]:
        values = values.index_select(-1, _nearest_indices(width, size[1]).to(values.device))
    return values


def normalize_rgb(
    pixels: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None, top: float = 255.0
) -> torch.Tensor:
    """Turn (..., C, H, W) in 0 to `top` into float32 ``(pixels / top - mean) / std``; without mean and std, [0, 1]."""
    # Into planes, however the pixels lie: in the same pass.
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    if mean is None or std is None:
        return values.div_(top)
    # One multiply and one add per pixel; the constants are folded in float64.
    scale = [1.0 / (top * float(deviation)) for deviation in std]
    shift = [-float(centre) / float(deviation) for centre, deviation in zip(mean, std)]
    if pixels.device.type != "cpu":
        # Numbers travel with the kernels; a tensor of them would make the host wait for all that the device has to do.
        for channel, (factor, summand) in enumerate(zip(scale, shift, strict=True)):
            values[..., channel, :, :].mul_(factor).add_(summand)
        return values
    values.mul_(torch.tensor(scale, dtype=torch.float32).view(-1, 1, 1))
    return values.add_(torch.tensor(shift, dtype=torch.float32).view(-1, 1, 1))
