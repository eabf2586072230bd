"""Depth maps of simple scenes, made by intersecting camera rays with surfaces; they know nothing of units.

Everything is float64 metres along the optical axis, NaN where nothing was measured.
"""

from collections.abc import Callable

import numpy as np

SIZE = (120, 160)


def _rays(size: tuple[int, int], focal: float) -> np.ndarray:
    """(H, W, 3) directions with z = 1."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    return np.stack([(x - width / 2) / (focal * width), (y - height / 2) / (focal * width), np.ones(size)], axis=-1)


def _box(rays: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Depth of the inside of a box around the camera, which looks along z from the origin."""
    with np.errstate(divide="ignore"):
        distances = np.where(rays > 0, high / rays, np.where(rays < 0, low / rays, np.inf))
    return distances.min(-1)


def _turned(rays: np.ndarray, angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return rays @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])


def _boxes_in_front(rng: np.random.Generator, depth: np.ndarray, nearest: float) -> np.ndarray:
    """Furniture: upright rectangles nearer than what is behind."""
    height, width = depth.shape
    for _ in range(rng.integers(2, 6)):
        top, left = rng.integers(height // 3, height), rng.integers(0, width)
        part = depth[top:, left : left + rng.integers(10, width // 3)]
        if part.size:
            part[:] = np.minimum(part, max(nearest, rng.uniform(0.4, 0.9) * np.nanmedian(depth)))
    return depth


def room(rng: np.random.Generator, reach: float = 3.0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A furnished room whose far wall is about `reach` away."""
    rays = _turned(_rays(size, 0.9), rng.uniform(-0.5, 0.5))
    side = rng.uniform(0.5, 1.2, 2) * reach
    depth = _box(rays, np.array([-side[0], -1.4, -1.0]), np.array([side[1], 1.2, reach]))
    return _holes(rng, _boxes_in_front(rng, depth, 0.4))


def corridor(rng: np.random.Generator, end: float = 20.0) -> np.ndarray:
    """Walls 1 m to each side, and a far end."""
    rays = _turned(_rays(SIZE, 0.9), rng.uniform(-0.1, 0.1))
    return _holes(rng, _box(rays, np.array([-1.1, -1.5, -1.0]), np.array([1.1, 1.2, end])))


def endoscope(rng: np.random.Generator) -> np.ndarray:
    """A tube of tissue, 4 to 15 cm."""
    rays = _rays(SIZE, 0.6)
    radius = rng.uniform(0.015, 0.03)
    tube = radius / np.maximum(np.hypot(rays[..., 0], rays[..., 1]), 1e-3)
    return np.minimum(tube, rng.uniform(0.08, 0.15)) + 0.002 * rng.standard_normal(SIZE)


def street(rng: np.random.Generator, size: tuple[int, int] = (94, 310), sky: float = np.nan) -> np.ndarray:
    """A road 1.65 m below, houses to both sides, cars, and a sky at `sky` metres."""
    rays = _rays(size, 0.6)
    with np.errstate(divide="ignore"):
        ground = np.where(rays[..., 1] > 0, 1.65 / np.maximum(rays[..., 1], 1e-6), np.inf)
        houses = rng.uniform(6, 14) / np.maximum(np.abs(rays[..., 0]), 1e-6)
    depth = np.minimum(ground, np.where(rays[..., 1] > -6.0 / np.minimum(houses, 80.0), houses, np.inf))
    height, width = size
    for _ in range(4):
        far, left = rng.uniform(6, 40), rng.integers(0, width - 20)
        middle, tall = height / 2, int(1.5 * 0.6 * width / far)
        part = depth[int(middle) : int(middle) + tall, left : left + tall]
        part[:] = np.minimum(part, far)
    depth[depth > 80.0] = sky
    return depth


def lidar(rng: np.random.Generator, size: tuple[int, int] = (188, 621)) -> np.ndarray:
    """A street as a spinning scanner sees it: a fifth of the pixels, none above the horizon."""
    depth = street(rng, size)
    depth[: size[0] // 3] = np.nan
    return np.where(rng.random(size) < 0.2, depth, np.nan)


def _holes(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    depth = depth * (1 + 0.003 * rng.standard_normal(depth.shape))
    return np.where(rng.random(depth.shape) < rng.uniform(0.02, 0.25), np.nan, depth)


def stored(metres: np.ndarray, per_metre: float, dtype: type = np.uint16) -> np.ndarray:
    """What a program writes: 0 for nothing, the rest rounded, what does not fit cut off."""
    values = np.nan_to_num(metres, nan=0.0) * per_metre
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else np.clip(np.rint(values), 0, 65535).astype(dtype)


def rotated(millimetres: np.ndarray) -> np.ndarray:
    """16-bit values rotated to the left by 3, as SUN RGB-D stores them; bit by bit."""
    bits = (millimetres[..., None] >> np.arange(16)) & 1
    return (np.roll(bits, 3, axis=-1) << np.arange(16)).sum(-1).astype(np.uint16)


def kinect(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """What a Kinect makes of a scene: eighths of a pixel of disparity, nothing nearer than .45 m."""
    disparity = np.rint(8 * 580.0 * 0.075 / depth)
    return np.where(depth < 0.45, np.nan, 8 * 580.0 * 0.075 / np.maximum(disparity, 1))


Scene = Callable[[np.random.Generator], np.ndarray]
