"""Where two cameras of one device look: intrinsics of both and the motion between them, checked, in a small file.

A calibration file is JSON (or YAML) of three entries:

    {"color": {"width": 1280, "height": 720, "fx": 912.1, "fy": 911.8, "cx": 640.3, "cy": 359.6},
     "depth": {"width": 640, "height": 576, "fx": 504.3, "fy": 504.4, "cx": 320.9, "cy": 331.0},
     "depth_to_color": [[r, r, r, x], [r, r, r, y], [r, r, r, z], [0, 0, 0, 1]]}

Intrinsics are in pixels of that camera's picture; the centre of the first pixel is (0, 0). `depth_to_color` takes a
point in metres of the depth camera (x right, y down, z forward) to the colour camera. Lenses without distortion are
assumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.json_objects import read_json_object
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.depth_spec_m33d import choice
from m33d_hf.modeling.fields_m33d import Range, check_value

CALIBRATION_FILE = "calibration.json"
_LARGEST_SIDE = 1 << 16
_RANGES = {
    "width": Range(low=1, high=_LARGEST_SIDE),
    "height": Range(low=1, high=_LARGEST_SIDE),
    "fx": Range(above=0, high=1e6),
    "fy": Range(above=0, high=1e6),
    "cx": Range(low=-1, high=_LARGEST_SIDE),
    "cy": Range(low=-1, high=_LARGEST_SIDE),
}
_INTEGERS = ("width", "height")
_RIGID = 1e-3  # how far R R^T may be from the identity: files print few digits
_FARTHEST = 1.0  # metres between two cameras of one device; more is millimetres
_SAME_PIXEL, _SAME_PLACE = 0.1, 1e-4  # pixels of depth; metres and radians
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: u = fx x / z + cx, v = fy y / z + cy.

    Attributes:
        width, height: of its pictures, in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: where the optical axis meets the picture; (0, 0) is the centre of the first pixel.

    Raises:
        ConfigError: a field of another type or out of its range, or an optical axis outside the picture.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        for each in fields(self):
            kind = int if each.name in _INTEGERS else float
            object.__setattr__(
                self, each.name, check_value(each.name, getattr(self, each.name), kind, _RANGES[each.name])
            )
        if not (self.cx <= self.width and self.cy <= self.height):
            raise ConfigError(
                f"cx {self.cx:g}, cy {self.cy:g} lie outside the picture of {self.width} x {self.height} pixels; are "
                "these the intrinsics of pictures of another size?"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def resized(self, height: int, width: int) -> Camera:
        """The camera of the same picture at another size, both covering the same field of view."""
        y, x = height / self.height, width / self.width
        return Camera(width, height, self.fx * x, self.fy * y, (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5)

    @classmethod
    def from_dict(cls, values: object, label: str) -> Camera:
        """A camera of a calibration file.

        Raises:
            ConfigError: no mapping, a missing or unknown key, or what the class says; with `label`.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{label} is {values!r}; expected width, height, fx, fy, cx, cy")
        _require_keys(values, [each.name for each in fields(cls)], label)
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from error


@dataclass(frozen=True)
class Calibration:
    """Two cameras and the rigid motion between them.

    Attributes:
        color, depth: the cameras.
        depth_to_color: 4 x 4, row by row: a point of the depth camera, in metres, to the colour camera.

    Raises:
        ConfigError: a matrix that is not 4 x 4 finite numbers, no rotation, or a shift of more than a metre.
    """

    color: Camera
    depth: Camera
    depth_to_color: tuple[tuple[float, ...], ...] = IDENTITY

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth_to_color", _rigid(self.depth_to_color))

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) float64 of `depth_to_color`."""
        return np.array(self.depth_to_color, np.float64)

    @property
    def shows_one_view(self) -> bool:
        """Whether depth lies as the picture does but for its size, so that registering it would only resize it."""
        seen = self.color.resized(*self.depth.size)
        names = ("fx", "fy", "cx", "cy")
        apart = max(abs(getattr(seen, name) - getattr(self.depth, name)) for name in names)
        return apart < _SAME_PIXEL and bool(np.abs(self.matrix - np.array(IDENTITY)).max() < _SAME_PLACE)

    def require_sizes(self, color: tuple[int, int] | None, depth: tuple[int, int] | None, where: str) -> None:
        """Compare with the (height, width) of files.

        Raises:
            ConfigError: it is the calibration of pictures of another size.
        """
        for camera, size in (("color", color), ("depth", depth)):
            if size is not None and (objection := self.objection(camera, size)) is not None:
                raise ConfigError(f"{where}: {objection}")

    def objection(self, camera: str, size: tuple[int, ...]) -> str | None:
        """Why a picture of a (height, width) is none of a camera, "color" or "depth"; None if it may be."""
        own = self.color if camera == "color" else self.depth
        if tuple(size) == own.size:
            return None
        return (
            f"the {camera} picture is {size[1]} x {size[0]} (width x height), but the calibration is of {own.width} x "
            f"{own.height}. Give the calibration of these files: a picture that was resized by s has fx, fy times s, "
            "cx, cy as (c + 0.5) s - 0.5; one that was cropped has others."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` is its inverse."""
        matrix = [list(row) for row in self.depth_to_color]
        return {"color": asdict(self.color), "depth": asdict(self.depth), "depth_to_color": matrix}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Build from the content of a calibration file.

        Raises:
            ConfigError: missing or unknown keys, or what the classes say.
        """
        _require_keys(values, ["color", "depth", "depth_to_color"], "the calibration")
        color, depth = (Camera.from_dict(values[name], name) for name in ("color", "depth"))
        return cls(color, depth, values["depth_to_color"])


def _require_keys(values: Mapping[str, Any], names: list[str], label: str) -> None:
    for name in values:
        choice(name, names, f"a key of {label}")
    if missing := [name for name in names if name not in values]:
        raise ConfigError(f"{label} has no {' and no '.join(missing)}; it needs {', '.join(names)}")


def _rigid(values: object) -> tuple[tuple[float, ...], ...]:
    """The matrix as tuples.

    Raises:
        ConfigError: it is no rigid motion.
    """
    try:
        matrix = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"depth_to_color must be 4 rows of 4 numbers ({error})") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ConfigError(f"depth_to_color must be 4 rows of 4 finite numbers; it has the shape {matrix.shape}")
    turn, shift = matrix[:3, :3], matrix[:3, 3]
    off = float(np.abs(turn @ turn.T - np.eye(3)).max())
    if off > _RIGID or np.linalg.det(turn) < 0 or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise ConfigError(
            "depth_to_color is no rigid motion: its upper left 3 x 3 must be a rotation (R R^T = 1, determinant 1) and "
            f"its last row 0 0 0 1. R R^T is off by {off:.3g}, the determinant is {np.linalg.det(turn):.4g}, the last "
            f"row {matrix[3].tolist()}. Is it transposed, or scaled?"
        )
    if (apart := float(np.linalg.norm(shift))) > _FARTHEST:
        raise ConfigError(
            f"depth_to_color moves by {apart:g} metres; two cameras of one device are closer. Is the shift in "
            "millimetres (divide it by 1000), or is it a transposed matrix?"
        )
    return tuple(tuple(float(value) for value in row) for row in matrix)


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file, `.json`, `.yaml` or `.yml`.

    Raises:
        ConfigError: missing, unreadable, or what `Calibration` says; with the path.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".yaml", ".yml"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ConfigError("it holds no mapping of color, depth and depth_to_color")
        else:
            content = read_json_object(path)
        return Calibration.from_dict(content)
    except FileNotFoundError as error:
        raise ConfigError(f"the calibration file {path} does not exist") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"the calibration file {path}: {error}") from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON, every number exactly."""
    write_text_atomically(path, json.dumps(calibration.to_dict(), indent=1) + "\n")
