"""Depth and colour to point clouds: binary PLY, in metres of the camera (x right, y down, z forward)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m33d_hf.data.depth.calibration import Camera, read_calibration
from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.errors import ConfigError, DataError

_POINT = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")])
_SAME_SHAPE = 0.01  # how far the ratio of the sides of a resized picture may be from that of the calibration


@dataclass(frozen=True)
class Lens:
    """The intrinsics of pictures of any size.

    Attributes:
        camera: of a calibration file; pictures may be resized, but not cropped.
        intrinsics: fx, fy, cx, cy in pixels of the pictures, all of one size.
        field_of_view: degrees across the longer side, assumed where neither is known.
    """

    camera: Camera | None = None
    intrinsics: tuple[float, ...] | None = None
    field_of_view: float = 60.0

    @classmethod
    def of(cls, intrinsics: Sequence[float] | None, calibration: Path | None, field_of_view: float) -> Lens:
        """From what the user gave.

        Raises:
            ConfigError: not four numbers, focal lengths that are not above 0, or a file that is no calibration.
        """
        if intrinsics is not None:
            words = " ".join(f"{value:g}" for value in intrinsics)
            if len(intrinsics) != 4 or not all(map(math.isfinite, intrinsics)):
                raise ConfigError(f"--intrinsics {words} must be four numbers: fx fy cx cy, in pixels of the pictures.")
            if min(intrinsics) < -1 or min(intrinsics[:2]) <= 0:
                raise ConfigError(f"--intrinsics {words}: fx and fy must be above 0, cx and cy within the picture.")
            return cls(intrinsics=tuple(float(value) for value in intrinsics))
        camera = None if calibration is None else read_calibration(calibration).color
        return cls(camera=camera, field_of_view=field_of_view)

    def rules(self) -> dict[str, object]:
        """What two runs into one folder must have in common."""
        camera = None if self.camera is None else [*self.camera.size, self.camera.fx, self.camera.fy, self.camera.cx]
        known = self.camera is not None or self.intrinsics is not None
        stated = None if self.intrinsics is None else list(self.intrinsics)
        return {"intrinsics": stated or camera, "field_of_view": None if known else self.field_of_view}

    def describe(self) -> str:
        """What points are computed with, for the user."""
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            return f"points by the given intrinsics fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}"
        if self.camera is not None:
            return f"points by the calibration's colour camera, {self.camera.width} x {self.camera.height}"
        return (
            f"points by an ASSUMED field of view of {self.field_of_view:g} degrees across the longer side: distances "
            "along the view are the model's, widths and angles only as right as this. Give --intrinsics FX FY CX CY or "
            "--calibration FILE, or another --field_of_view"
        )

    def camera_of(self, height: int, width: int) -> Camera:
        """The camera of pictures of a size.

        Raises:
            DataError: the intrinsics cannot be those of such pictures.
        """
        if self.intrinsics is not None:
            try:
                return Camera(width, height, *self.intrinsics)
            except ConfigError as error:
                raise DataError(f"--intrinsics do not fit a picture of {width} x {height} pixels: {error}") from error
        if self.camera is not None:
            ratio = (width / height) / (self.camera.width / self.camera.height)
            if abs(ratio - 1) > _SAME_SHAPE:
                raise DataError(
                    f"the picture is {width} x {height}, which no resizing of {self.camera.width} x "
                    f"{self.camera.height} gives, the size that the calibration is for"
                )
            return self.camera.resized(height, width)
        focal = max(height, width) / 2 / math.tan(math.radians(self.field_of_view) / 2)
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def points_of(depth_HW: np.ndarray, rgb_HW3: np.ndarray, camera: Camera) -> np.ndarray:
    """(N,) records x, y, z (float32 metres) and red, green, blue (uint8), of pixels with finite depth above 0.

    The centre of the first pixel is (0, 0): x = (u - cx) z / fx, y = (v - cy) z / fy.
    """
    known = np.isfinite(depth_HW) & (depth_HW > 0)
    rows, columns = np.nonzero(known)
    z = depth_HW[known].astype(np.float64)
    points = np.empty(len(z), _POINT)
    points["x"] = (columns - camera.cx) * z / camera.fx
    points["y"] = (rows - camera.cy) * z / camera.fy
    points["z"] = z
    for name, values in zip(("red", "green", "blue"), rgb_HW3[known].T, strict=True):
        points[name] = values
    return points


def write_ply(path: Path, points: np.ndarray) -> Path:
    """Write records of `points_of` as binary little-endian PLY, atomically."""
    names = {"f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", "comment metres; x right, y down, z forward"]
    lines += [f"element vertex {len(points)}"]
    for name in points.dtype.names or ():
        lines.append(f"property {names[points.dtype[name].str[1:]]} {name}")
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    return write_atomically(path, lambda temporary: temporary.write_bytes(header + points.tobytes()))
