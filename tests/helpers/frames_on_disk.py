"""Writes small RGB-D data sets in the layouts that people have."""

from pathlib import Path

import numpy as np
from PIL import Image


def rgb_array(seed: int = 0, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """(H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def depth_array(seed: int = 0, size: tuple[int, int] = (24, 32), scale: float = 1000.0) -> np.ndarray:
    """(H, W) uint16 depth of 1 to 3 m in 1/scale m; the first row is a hole."""
    metres = 1.0 + 2.0 * np.random.default_rng(seed + 1000).random(size)
    stored = (metres * scale).astype(np.uint16)
    stored[0] = 0
    return stored


def label_array(seed: int = 0, size: tuple[int, int] = (24, 32), classes: int = 4) -> np.ndarray:
    """(H, W) uint8 class ids below `classes`."""
    return np.random.default_rng(seed + 2000).integers(0, classes, size, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".pgm":
        height, width = array.shape
        maximum = 255 if array.dtype == np.uint8 else 65535
        body = array.astype(">u2" if maximum > 255 else "u1").tobytes()
        path.write_bytes(b"P5 %d %d %d\n" % (width, height, maximum) + body)
    else:
        Image.fromarray(array).save(path)
    return path


def write_frames(
    root: Path,
    count: int = 3,
    rgb: str = "color/{i}.png",
    depth: str | None = "depth/{i}.png",
    labels: str | None = None,
    scale: float = 1000.0,
    size: tuple[int, int] = (24, 32),
    start: int = 0,
) -> Path:
    """Write `count` frames; `{i}` in a pattern is the frame's number. Returns the root."""
    for i in range(start, start + count):
        save(root / rgb.format(i=i), rgb_array(i, size))
        if depth is not None:
            save(root / depth.format(i=i), depth_array(i, size, scale))
        if labels is not None:
            save(root / labels.format(i=i), label_array(i, size))
    return root
