"""Registers the depth of one camera into the picture of another: z-buffered reprojection.

Every depth pixel is a small square facing its camera. Its four corners and its centre are taken to metres, moved into
the colour camera and projected; it covers the colour pixels whose centres lie in the bounding box of its corners. So
one depth pixel fills many colour pixels where the colour picture is finer, and no grid of pinholes remains: neighbours
share their corners. On slanted surfaces they do so only nearly, and the box is therefore grown by a quarter of a colour
pixel on every side. Where several depth pixels cover one colour pixel, the nearest counts. What no pixel covers is NaN:
the side of an object that the depth camera does not see, the border, and every hole of the input. Nothing is filled in.
"""

from __future__ import annotations

import numpy as np

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.errors import DataError

_GROWN = 0.25  # colour pixels
_NEAREST = 1e-3  # metres before the colour camera
_CORNERS = ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))
_MOST_TIMES_LARGER = 4.0  # than the ratio of focal lengths; beyond it, a point lies almost in the colour camera


def register_depth(depth: np.ndarray, calibration: Calibration) -> np.ndarray:
    """The depth that the colour camera would see.

    Where both cameras are the same, this is the input, bit by bit. Lens distortion is not modelled: undistort the maps
    of cameras that have much of it (Azure Kinect's wide field of view) first.

    Args:
        depth: (h, w) float metres along the depth camera's optical axis; NaN, infinite and values <= 0 are holes.
        calibration: of both cameras; `calibration.depth` has the size of `depth`.

    Returns:
        (H, W) float32 metres along the colour camera's optical axis, of the colour camera's size; NaN for none.

    Raises:
        DataError: `depth` has another size than the calibration.
    """
    camera, color = calibration.depth, calibration.color
    if depth.shape != camera.size:
        raise DataError(f"the depth map is {depth.shape} (height, width), but its calibration is of {camera.size}")
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    metres = depth[rows, columns].astype(np.float64)
    x, y = (columns - camera.cx) / camera.fx * metres, (rows - camera.cy) / camera.fy * metres
    points = [row[0] * x + row[1] * y + row[2] * metres + row[3] for row in calibration.matrix[:3]]
    low, high, seen = _footprints(calibration, metres, points)
    keep = seen & (low <= high).all(0)
    return _nearest(low[:, keep], high[:, keep], points[2][keep].astype(np.float32), color.size)


def _footprints(
    calibration: Calibration, metres: np.ndarray, points: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last (row, column) of the colour picture that each pixel covers, (2, n), and which lie before it.

    Args:
        metres: (n,) depth of the pixels in their own camera.
        points: x, y, z of their centres in the colour camera, (n,) each.
    """
    camera, color, turn = calibration.depth, calibration.color, calibration.matrix[:3, :3]
    seen = points[2] > _NEAREST
    least, most = np.full((2, len(metres)), np.inf), np.full((2, len(metres)), -np.inf)
    for right, down in _CORNERS:
        step = turn[:, 0] * (right / camera.fx) + turn[:, 1] * (down / camera.fy)  # to the corner, at one metre
        x, y, z = (axis + move * metres for axis, move in zip(points, step))
        seen &= z > _NEAREST
        z[z <= _NEAREST] = 1.0
        for axis, place in enumerate((color.fy * y / z + color.cy, color.fx * x / z + color.cx)):
            np.minimum(least[axis], place, out=least[axis])
            np.maximum(most[axis], place, out=most[axis])
    ratio = max(color.fx / camera.fx, color.fy / camera.fy)
    seen &= ((most - least) <= _MOST_TIMES_LARGER * max(1.0, ratio)).all(0)
    last = np.array(color.size)[:, None] - 1
    # Clipped before they become integers: a point beside the camera projects anywhere.
    low = np.ceil(np.clip(least - _GROWN, 0, last + 1)).astype(np.int64)
    high = np.floor(np.clip(most + _GROWN, -1, last)).astype(np.int64)
    return low, high, seen


def _nearest(low: np.ndarray, high: np.ndarray, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fill the boxes from `low` to `high` (rows, columns; inclusive) with `values`; the least wins, NaN elsewhere."""
    height, width = size
    picture = np.full(height * width, np.inf, np.float32)
    extent = high - low + 1
    if not values.size:
        return np.full(size, np.nan, np.float32)
    for down in range(int(extent[0].max())):
        for right in range(int(extent[1].max())):
            covers = (extent[0] > down) & (extent[1] > right)
            where = (low[0, covers] + down) * width + low[1, covers] + right
            np.minimum.at(picture, where, values[covers])
    picture[np.isinf(picture)] = np.nan
    return picture.reshape(size)
