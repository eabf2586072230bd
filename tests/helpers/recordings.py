"""Writes small recordings as cameras do, each by the library or tool of its format, and the frames that are in them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOR, DEPTH = (48, 64), (24, 32)


def picture(number: int, size: tuple[int, int] = COLOR) -> np.ndarray:
    """(H, W, 3) uint8, smooth, different in every frame and channel."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [60 + 2 * rows + 5 * number, 200 - columns - number, 90 + rows + columns]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def metres(number: int, size: tuple[int, int] = DEPTH) -> np.ndarray:
    """(h, w) float32, 1 to 3 metres; NaN in one corner and 0 in another."""
    depth = np.linspace(1, 3, size[0] * size[1], dtype=np.float32).reshape(size) + np.float32(0.01 * number)
    depth[0, 0], depth[-1, -1] = np.nan, 0
    return depth


def millimetres(number: int, size: tuple[int, int] = DEPTH) -> np.ndarray:
    """(h, w) uint16 of `metres`, 0 for none."""
    return np.rint(np.nan_to_num(metres(number, size)).astype(np.float64) * 1000).astype(np.uint16)


def confidence(number: int, size: tuple[int, int] = DEPTH) -> np.ndarray:
    """(h, w) uint8 of 0, 1 and 2 in stripes."""
    return ((np.arange(size[1]) // 4 + number) % 3).astype(np.uint8)[None].repeat(size[0], 0)


def encoded(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def record3d_metadata(count: int) -> dict[str, Any]:
    """What Record3D writes beside its frames."""
    return {
        "w": COLOR[1], "h": COLOR[0], "dw": DEPTH[1], "dh": DEPTH[0], "fps": 30,
        "K": [52.0, 0, 0, 0, 51.0, 0, 31.0, 23.5, 1],
        "frameTimestamps": [100.0 + i / 30 for i in range(count)],
        "poses": [[0, 0, 0, 1, 0, 0, 0]] * count,
    }  # fmt: skip


def write_record3d(path: Path, count: int = 5, metadata: dict[str, Any] | None = None, **damaged: bytes) -> Path:
    """A `.r3d`; `damaged` replaces members, `jpg_2=b"..."`."""
    import liblzfse

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("metadata", json.dumps(record3d_metadata(count) if metadata is None else metadata))
        for number in range(count):
            members = {
                "jpg": encoded(picture(number)),
                "depth": liblzfse.compress(metres(number).tobytes()),
                "conf": liblzfse.compress(confidence(number).tobytes()),
            }
            for suffix, data in members.items():
                file.writestr(f"rgbd/{number}.{suffix}", damaged.get(f"{suffix}_{number}", data))
    return path
