"""Messages of ROS 1 and 2 as arrays: pictures, depth, cameras and transforms.

Depth follows REP 118: 16UC1 is millimetres with 0 for none, 32FC1 metres with NaN for none. A compressed depth image is
a PNG behind a header of 12 bytes (int32, two float32 a and b); of 32FC1 it holds a / depth + b, and 0 for none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.depth.calibration import Camera
from m33d_hf.data.files.files import decode_map
from m33d_hf.data.recordings.recording import stored_picture
from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.picture_files_m33d import check_pixels

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA, TRANSFORMS = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
_DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
_WIDTH = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_DEPTH_HEADER = struct.Struct("<iff")


def kind_of(message: Any, kind: str) -> str | None:
    """`color`, `depth` or None (something else) of an Image or a CompressedImage."""
    if kind == IMAGE:
        return "depth" if message.encoding in _DEPTH else "color" if message.encoding in _CHANNELS else None
    if "compressedDepth" in message.format:
        return "depth"
    return "color" if any(name in message.format.lower() for name in ("jpeg", "jpg", "png")) else None


def seconds_of(message: Any) -> float:
    """Of the header: when the picture was taken."""
    stamp = message.header.stamp
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def color_of(where: Path, message: Any, kind: str) -> tuple[bytes | np.ndarray, tuple[int, int]]:
    """The picture, as `stored_picture` gives it.

    Raises:
        CorruptFileError: damaged, or not of the encodings that are known.
    """
    if kind == COMPRESSED:
        return stored_picture(where, bytes(message.data))
    if message.encoding not in _CHANNELS:
        raise CorruptFileError(where, f"is encoded as {message.encoding!r}; known are {', '.join(_CHANNELS)}")
    pixels = _rows(where, message, np.dtype("u1"), _WIDTH[message.encoding])
    return np.ascontiguousarray(pixels[..., _CHANNELS[message.encoding]]), (message.height, message.width)


def depth_of(where: Path, message: Any, kind: str) -> np.ndarray:
    """(h, w) uint16 millimetres or float32 metres.

    Raises:
        CorruptFileError: damaged, or not of the encodings that are known.
    """
    if kind == COMPRESSED:
        return _compressed_depth(where, message)
    if message.encoding not in _DEPTH:
        raise CorruptFileError(where, f"is encoded as {message.encoding!r}; known are {', '.join(_DEPTH)}")
    order = ">" if message.is_bigendian else "<"
    stored = np.dtype(order + _DEPTH[message.encoding])
    return _rows(where, message, stored, 1)[..., 0].astype(stored.newbyteorder("="))


def _rows(where: Path, message: Any, kind: np.dtype[Any], channels: int) -> np.ndarray:
    """(H, W, channels) of an Image, whose rows may be longer than their pixels."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    check_pixels(where, height, width)
    used = width * channels * kind.itemsize
    data = np.asarray(message.data, np.uint8)
    if step < used or len(data) != step * height:
        raise CorruptFileError(where, f"has {len(data):,} bytes in rows of {step}; {height} x {width} do not fit them")
    rows = np.ascontiguousarray(data.reshape(height, step)[:, :used])
    return rows.view(kind).reshape(height, width, channels)


def _compressed_depth(where: Path, message: Any) -> np.ndarray:
    data = bytes(message.data)
    if len(data) <= _DEPTH_HEADER.size or not data[_DEPTH_HEADER.size :].startswith(b"\x89PNG"):
        raise CorruptFileError(where, f"is compressed depth of another kind than PNG ({message.format!r})")
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    stored, _ = decode_map(where, data[_DEPTH_HEADER.size :])
    if stored.ndim != 2 or stored.dtype.itemsize < 2:
        raise CorruptFileError(where, f"holds {stored.dtype} of shape {stored.shape}; expected 16 bits and one channel")
    stored = stored.astype(np.uint16)
    if not message.format.startswith("32FC1"):
        return stored
    with np.errstate(divide="ignore"):
        metres = a / (stored.astype(np.float64) - b)
    return np.where(stored > 0, metres, np.nan).astype(np.float32)


def camera_of(message: Any, rectified: bool) -> Camera:
    """The camera of a CameraInfo: `P` of rectified pictures, else `K`.

    Raises:
        ConfigError: numbers that cannot be.
    """
    k, p = (np.asarray(_either(message, name), np.float64) for name in ("k", "p"))
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if rectified and p[0] > 0 else (k[0], k[4], k[2], k[5])
    return Camera(int(message.width), int(message.height), float(fx), float(fy), float(cx), float(cy))


def is_distorted(message: Any) -> bool:
    """Whether a CameraInfo names distortion."""
    return bool(np.abs(np.asarray(_either(message, "d"), np.float64)).max(initial=0) > 1e-6)


def _either(message: Any, name: str) -> Any:
    """A field that ROS 1 writes in capitals."""
    return getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())


def transforms_of(message: Any) -> dict[tuple[str, str], np.ndarray]:
    """(child, parent) -> 4 x 4 from child to parent, of a TFMessage."""
    found = {}
    for each in message.transforms:
        shift, turn = each.transform.translation, each.transform.rotation
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(turn.x, turn.y, turn.z, turn.w)
        matrix[:3, 3] = shift.x, shift.y, shift.z
        found[_frame(each.child_frame_id), _frame(each.header.frame_id)] = matrix
    return found


def _frame(name: str) -> str:
    return str(name).lstrip("/")


def rotation(x: float, y: float, z: float, w: float) -> np.ndarray:
    """(3, 3) of a quaternion of any length but 0."""
    q = np.array([x, y, z, w], np.float64)
    x, y, z, w = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def motion_between(edges: Mapping[tuple[str, str], np.ndarray], start: str, goal: str) -> np.ndarray | None:
    """4 x 4 from the frame `start` to the frame `goal`, through a tree of transforms; None if it does not join them."""
    start, goal = _frame(start), _frame(goal)
    ways = {start: np.eye(4)}
    fresh: Iterable[str] = [start]
    while fresh:
        reached = []
        for here in fresh:
            for (child, parent), matrix in edges.items():
                for source, target, step in ((child, parent, matrix), (parent, child, None)):
                    if source == here and target not in ways:
                        ways[target] = (np.linalg.inv(matrix) if step is None else step) @ ways[here]
                        reached.append(target)
        fresh = reached
    return ways.get(goal)
