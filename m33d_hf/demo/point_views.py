"""Point clouds for browsers: binary glTF (GLB), whose viewers turn them in 3-D."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.files.atomic_writing import write_atomically

_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_FLOAT, _ARRAY_BUFFER, _POINTS = 5126, 34962, 0


def write_glb(path: Path, points: np.ndarray) -> Path:
    """Write records of `points_of` as GLB 2.0, atomically.

    glTF looks along -z with y up; colours are linear. The camera of the picture stands in the origin.
    """
    places = np.stack([points["x"], -points["y"], -points["z"]], axis=1).astype("<f4")
    encoded = np.stack([points[name] for name in ("red", "green", "blue")], axis=1).astype(np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype("<f4")
    binary = places.tobytes() + linear.tobytes()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "m33d-hf"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": _POINTS, "material": 0}]},
        ],
        "accessors": [
            {
                "bufferView": 0, "componentType": _FLOAT, "count": len(points), "type": "VEC3",
                "min": places.min(axis=0).tolist(), "max": places.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": _FLOAT, "count": len(points), "type": "VEC3"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": places.nbytes, "target": _ARRAY_BUFFER},
            {"buffer": 0, "byteOffset": places.nbytes, "byteLength": linear.nbytes, "target": _ARRAY_BUFFER},
        ],
        "buffers": [{"byteLength": len(binary)}],
    }  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total)
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BINARY) + binary
    return write_atomically(path, lambda temporary: temporary.write_bytes(header + chunks))
