"""Writes `.sens` recordings field by field with numpy records, apart from the reader's own description of them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

_U4, _U8, _I4, _F4 = "<u4", "<u8", "<i4", "<f4"
MATRICES = np.arange(64, dtype=_F4).reshape(4, 4, 4) / 8  # exact in float32, all different
RATE = 33_333


def encoded(picture: np.ndarray, kind: str) -> bytes:
    """A colour picture as `JPEG`, `PNG` or `raw` bytes."""
    if kind == "raw":
        return picture.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def sens_bytes(
    pictures: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    *,
    color_kind: str = "JPEG",
    depth_code: int = 1,
    shift: float = 1000.0,
    version: int = 4,
    sensor: bytes = b"StructureSensor",
    announced: int | None = None,
    imu: bool = True,
) -> bytes:
    """A whole recording of pictures (H, W, 3) uint8 and maps (h, w) uint16."""
    out = io.BytesIO()

    def put(values: object, kind: str) -> None:
        out.write(np.asarray(values, kind).tobytes())

    put(version, _U4)
    put(len(sensor), _U8)
    out.write(sensor)
    put(MATRICES, _F4)
    put([{"raw": 0, "PNG": 1, "JPEG": 2}[color_kind], depth_code], _I4)
    put([*pictures[0].shape[1::-1], *maps[0].shape[::-1]], _U4)
    put(shift, _F4)
    put(len(pictures) if announced is None else announced, _U8)
    for number, (picture, depth) in enumerate(zip(pictures, maps)):
        pose = np.full((4, 4), -np.inf) if number == 1 else np.eye(4) * (number + 1)
        put(pose, _F4)
        put([number * RATE, number * RATE + 7], _U8)
        color, packed = encoded(picture, color_kind), depth.astype("<u2").tobytes()
        packed = zlib.compress(packed) if depth_code == 1 else packed
        put([len(color), len(packed)], _U8)
        out.write(color + packed)
    if imu:
        put(0, _U8)
    return out.getvalue()


def smooth_picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of a slope with a tint, which JPEG keeps nearly as it is."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    slope = 40 + 120 * (rows / size[0] + columns / size[1]) / 2
    return np.stack([slope + 10 * seed, slope, slope + 5], -1).clip(0, 255).astype(np.uint8)


def depth_ramp(seed: int, size: tuple[int, int], shift: float = 1000.0) -> np.ndarray:
    """(h, w) uint16 from 1 m to 2 m, and a hole in the first pixel."""
    metres = np.linspace(1.0, 2.0, size[0] * size[1]).reshape(size) + 0.1 * seed
    stored = np.round(metres * shift).astype(np.uint16)
    stored[0, 0] = 0
    return stored


def write_sens(path: Path, count: int = 3, size: tuple[int, int] = (24, 32), **options: object) -> Path:
    """A recording of `count` frames; its colour has twice the size of its depth."""
    shift = float(options.get("shift", 1000.0))  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [smooth_picture(i, (2 * size[0], 2 * size[1])) for i in range(count)]
    maps = [depth_ramp(i, size, shift) for i in range(count)]
    path.write_bytes(sens_bytes(pictures, maps, **options))  # type: ignore[arg-type]
    return path
