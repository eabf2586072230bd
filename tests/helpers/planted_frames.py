"""Small RGB-D scenes with edges of their own, in which faults are planted for the data doctor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.frames_on_disk import save

SIZE = (96, 128)


def boxes(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 and (H, W) uint16 millimetres: boxes of their own colour before a wall, with some texture."""
    draw = np.random.default_rng(seed)
    height, width = size
    rgb = np.empty((height, width, 3))
    rgb[:] = draw.integers(40, 200, 3)
    depth = np.full(size, 3000.0)
    for _ in range(7):
        top, left = draw.integers(0, height - 16), draw.integers(0, width - 16)
        bottom, right = top + draw.integers(12, 48), left + draw.integers(12, 48)
        rgb[top:bottom, left:right] = draw.integers(20, 236, 3)
        depth[top:bottom, left:right] = draw.integers(1000, 2500)
    rows, columns = np.mgrid[:height, :width] / 20.0  # light and shade, as real surfaces have
    rgb += 25 * np.sin(rows * draw.uniform(0.5, 1.5) + columns * draw.uniform(0.5, 1.5) + draw.uniform(0, 6))[..., None]
    rgb += draw.normal(0, 4, rgb.shape)
    depth += draw.normal(0, 3, size)
    return rgb.clip(0, 255).astype(np.uint8), depth.astype(np.uint16)


def write_scene(folder: Path, seed: int, frames: int = 4, scale: float = 1.0, shift: int = 0) -> Path:
    """One scene as color/N.jpg and depth/N.png; depth times `scale`, and `shift` pixels to the right of RGB."""
    for number in range(frames):
        rgb, depth = boxes(1000 * seed + number)
        save(folder / f"color/{number:03d}.jpg", rgb)
        save(folder / f"depth/{number:03d}.png", np.roll((depth * scale).astype(np.uint16), shift, axis=1))
    return folder


def write_planted(root: Path, scenes: int = 4, frames: int = 4) -> Path:
    """A sound data set: `scenes` scenes for training and two for validation."""
    for number in range(scenes):
        write_scene(root / f"train/scene{number}", number, frames)
    for number in (100, 101):
        write_scene(root / f"validation/scene{number}", number, frames)
    return root
