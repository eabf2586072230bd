"""RandAugment's operations on clips in a CPU's memory: integers of 16 bits and tables, plane by plane.

torchvision turns a clip into float32 and back for every operation, which took three times as long on average of all
operations where this was tried (benchmarks/README.md has the two times; they are in no JSON). Here moving
operations mix pixels by weights of 7 bits and differ from torchvision's by a level (at the edge of the moved picture by
more: torchvision counts the grey around it twice); what depends on nothing but a pixel's value goes through one table
of 256 values per plane, however many such operations follow each other. The tests compare with torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from m33d_hf.modeling.preprocessing_m33d import RGB_FILL

Pixels = npt.NDArray[np.uint8]

_VALUES = 256
_BITS = 7  # of a weight: a difference of two pixels times a weight fits into 16 bits with its sign
_ONE, _HALF = 1 << _BITS, 1 << (_BITS - 1)
_LUMA = np.array((0.2989, 0.587, 0.114), np.float32)  # torchvision's


def sheared_rows(pixels: Pixels, strength: float) -> Pixels:
    """Shift every row of (T, 3, H, W) to the left by `strength` times its distance below the middle."""
    height, width = pixels.shape[-2:]
    moves = strength * (np.arange(height) - (height - 1) / 2)
    whole = np.floor(moves).astype(np.int64)
    parts = np.rint((moves - whole) * _ONE).astype(np.int16)[:, None]
    around = int(abs(whole).max()) + 1
    padded = np.full((*pixels.shape[:-1], width + 2 * around), RGB_FILL, np.uint8)
    padded[..., around : around + width] = pixels
    found = np.empty_like(pixels)
    bounds = [0, *(np.flatnonzero(np.diff(whole)) + 1).tolist(), height]
    for first, last in pairwise(bounds):  # rows that share the whole part of their shift
        start = around + int(whole[first])
        near = padded[..., first:last, start : start + width]
        far = padded[..., first:last, start + 1 : start + 1 + width]
        found[..., first:last, :] = _between(near, far, parts[first:last])
    return found


def sheared_columns(pixels: Pixels, strength: float) -> Pixels:
    """Shift every column of (T, 3, H, W) upwards by `strength` times its distance to the right of the middle."""
    sheared = sheared_rows(np.ascontiguousarray(pixels.swapaxes(-1, -2)), strength)
    return np.ascontiguousarray(sheared.swapaxes(-1, -2))


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Turn (T, 3, H, W) about its centre, counter-clockwise."""
    height, width = pixels.shape[-2:]
    angle = math.radians(degrees)
    rows, columns = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    across = math.cos(angle) * columns - math.sin(angle) * rows + (width - 1) / 2
    down = math.sin(angle) * columns + math.cos(angle) * rows + (height - 1) / 2
    left, top = np.floor(across), np.floor(down)
    part_x, part_y = (np.rint(part * _ONE).astype(np.int16).ravel() for part in (across - left, down - top))
    stride = width + 4  # two pixels of grey on every side: whoever looks further out reads them
    places = (np.clip(top, -2, height) + 2).astype(np.intp) * stride + (np.clip(left, -2, width) + 2).astype(np.intp)
    places = places.ravel()
    padded = np.full((height + 4, stride), RGB_FILL, np.uint8)
    # Two neighbours are read as one number of 16 bits, so that two reads per pixel do, not four.
    pairs = np.ndarray((padded.size - 1,), "<u2", buffer=padded, strides=(1,))
    gathered = np.empty(padded.size - 1, np.uint16)
    found = np.empty_like(pixels)
    for plane, place in zip(_planes(pixels), _planes(found), strict=True):
        padded[2 : height + 2, 2 : width + 2] = plane.reshape(height, width)
        gathered[:] = pairs
        upper, lower = (
            _between((found & 255).astype(np.int16), (found >> 8).astype(np.int16), part_x)
            for found in (gathered.take(places, mode="clip"), gathered[stride:].take(places, mode="clip"))
        )
        place[:] = _between(upper, lower, part_y)
    return found


def saturated(pixels: Pixels, strength: float) -> Pixels:
    """Move every pixel of (T, 3, H, W) away from its luma by `strength`, or towards it where that is negative."""
    share = np.int16(round(strength * _ONE))
    found = np.empty_like(pixels)
    for frame, changed in zip(pixels, found, strict=True):
        luma = frame[0] * _LUMA[0]
        for channel in (1, 2):
            luma += frame[channel] * _LUMA[channel]
        grey = luma.astype(np.int16)
        for channel in range(3):
            values = frame[channel] - grey
            values *= share
            values >>= _BITS
            values += frame[channel]
            np.clip(values, 0, 255, out=values)
            changed[channel] = values
    return found


def sharpened(pixels: Pixels, strength: float) -> Pixels:
    """Move the inner pixels of (T, 3, H, W) away from their smoothed values by `strength`.

    Smoothed: a 3 x 3 mean in which the pixel itself counts five times.
    """
    found = pixels.copy()
    if min(pixels.shape[-2:]) <= 2:
        return found
    share = np.float32(-strength / 13)
    for frame, changed in zip(pixels, found, strict=True):
        rows = np.add(frame[:, :-2], frame[:, 1:-1], dtype=np.int16)
        rows += frame[:, 2:]
        sums = rows[:, :, :-2] + rows[:, :, 1:-1]
        sums += rows[:, :, 2:]
        inner = frame[:, 1:-1, 1:-1]
        sums -= np.multiply(inner, 9, dtype=np.int16)  # 13 times what smoothing adds to a pixel
        values = sums * share
        values += inner
        np.clip(values, 0, 255, out=values)
        changed[:, 1:-1, 1:-1] = values
    return found


MOVING: dict[str, Callable[[Pixels, float], Pixels]] = {
    "ShearX": sheared_rows,
    "ShearY": sheared_columns,
    "Rotate": turned,
    "Color": saturated,
    "Sharpness": sharpened,
}


class Levels:
    """Operations on the values of a clip, gathered in one table per plane until somebody needs the pixels.

    Args:
        pixels: (T, 3, H, W), contiguous; not changed.
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self._tables = np.tile(np.arange(_VALUES, dtype=np.uint8), (pixels.shape[0] * pixels.shape[1], 1))
        self._counts: npt.NDArray[np.int64] | None = None

    def apply(self, name: str, strength: float) -> None:
        """Put one operation after those before it."""
        self._tables = _BY_VALUE[name](self, strength)

    def pixels(self) -> Pixels:
        """The clip with all operations; a new array."""
        found = np.empty_like(self._pixels)
        for place, plane, table in zip(_planes(found), _planes(self._pixels), self._tables, strict=True):
            # bytearray.translate: an array as index would be made eight bytes wide first.
            place[:] = np.frombuffer(bytearray(plane).translate(table.tobytes()), np.uint8)
        return found

    def _count(self) -> npt.NDArray[np.int64]:
        """How often each value occurs in each plane of the clip as it came, (3 T, 256)."""
        if self._counts is None:
            height, width = self._pixels.shape[-2:]
            planes = [Image.frombuffer("L", (width, height), one, "raw", "L", 0, 1) for one in _planes(self._pixels)]
            self._counts = np.array([plane.histogram() for plane in planes], np.int64)
        return self._counts

    def _scaled(self, strength: float) -> Pixels:
        values = np.arange(_VALUES, dtype=np.float32) * np.float32(1.0 + strength)
        return values.clip(0, 255).astype(np.uint8)[self._tables]

    def _inverted(self, strength: float) -> Pixels:
        return np.where(self._tables >= 255 * strength, 255 - self._tables, self._tables)

    def _coarse(self, strength: float) -> Pixels:
        return self._tables & np.uint8(256 - (1 << (8 - int(strength))))

    def _contrasted(self, strength: float) -> Pixels:
        """Away from the mean luma of a frame; every pixel's luma is rounded down, which takes half a level."""
        means = (self._count() * self._tables).sum(1) / self._count().sum(1)
        centres = np.maximum(means.reshape(-1, 3) @ _LUMA - 0.5, 0).repeat(3)[:, None].astype(np.float32)
        values = self._tables * np.float32(1.0 + strength) - centres * np.float32(strength)
        return values.clip(0, 255).astype(np.uint8)

    def _stretched(self, _: float) -> Pixels:
        found = self._count() > 0
        low = np.where(found, self._tables, 255).min(1, keepdims=True).astype(np.float32)
        high = np.where(found, self._tables, 0).max(1, keepdims=True).astype(np.float32)
        flat = high == low
        scale = (high - low) * np.float32(1.0 / 255.0)
        low[flat], scale[flat] = 0.0, 1.0
        return ((self._tables - low) / scale).clip(0, 255).astype(np.uint8)

    def _equalized(self, _: float) -> Pixels:
        """By PIL's integer rule; a plane of few values stays."""
        found = self._tables.copy()
        for row, (table, counts) in enumerate(zip(self._tables, self._count(), strict=True)):
            now = np.bincount(table, counts, _VALUES).astype(np.int64)
            below = now.cumsum()
            step = (below[-1] - now[below.argmax()]) // 255
            if step > 0:
                spread = np.zeros(_VALUES, np.uint8)
                spread[1:] = ((below[:-1] + step // 2) // step).clip(0, 255)
                found[row] = spread[table]
        return found


_BY_VALUE: dict[str, Callable[[Levels, float], Pixels]] = {
    "Identity": lambda levels, _: levels._tables,
    "Brightness": Levels._scaled,
    "Solarize": Levels._inverted,
    "Posterize": Levels._coarse,
    "Contrast": Levels._contrasted,
    "AutoContrast": Levels._stretched,
    "Equalize": Levels._equalized,
}


def _between(near: npt.NDArray[np.integer], far: npt.NDArray[np.integer], parts: npt.NDArray[np.int16]) -> Pixels:
    """Two pixels mixed by the second's share in 128ths, rounded."""
    mixed = np.subtract(far, near, dtype=np.int16)
    mixed *= parts
    mixed += _HALF
    mixed >>= _BITS
    mixed += near
    return mixed.astype(np.uint8)


def _planes(pixels: Pixels) -> Pixels:
    """(3 T, H W) of contiguous pixels."""
    return pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
