"""Writes small ROS bags with the library rosbags, ROS 1 and ROS 2, as camera drivers fill them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from helpers.recordings import COLOR, DEPTH, encoded, metres, millimetres, picture

SHIFT, TURN = (0.015, 0.001, -0.002), (0.02, -0.01, 0.03, 0.9993)  # of the colour camera, seen from the depth camera
START = 1_700_000_000


@cache
def types_of(version: int) -> Any:
    """The messages of ROS 1 or 2; those of tf2 are not among the library's of ROS 1."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    if version == 2:
        return get_typestore(Stores.ROS2_HUMBLE)
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
    return store


class BagWriter:
    """One bag; `put` serialises a message by the library's own types."""

    def __init__(self, path: Path, version: int) -> None:
        from rosbags import rosbag1, rosbag2

        self.version = version
        self.store = types_of(version)
        self.writer: Any = rosbag1.Writer(path) if version == 1 else rosbag2.Writer(path, version=8)
        self.connections: dict[str, Any] = {}
        self.writer.open()

    def make(self, kind: str, **fields: Any) -> Any:
        """A message; fields of ROS 1 that ROS 2 lacks are added."""
        cls = self.store.types[kind]
        if self.version == 1 and kind == "std_msgs/msg/Header":
            fields = {"seq": 0} | fields
        if self.version == 1 and kind == "sensor_msgs/msg/CameraInfo":
            fields = {name.upper() if name in "dkrp" else name: value for name, value in fields.items()}
        return cls(**fields)

    def header(self, frame_id: str, seconds: float) -> Any:
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        stamp = self.make("builtin_interfaces/msg/Time", sec=START + whole, nanosec=rest)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def put(self, topic: str, kind: str, message: Any, seconds: float, cut: int | None = None) -> None:
        """Write it, or its first `cut` bytes alone."""
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        pack = self.store.serialize_ros1 if self.version == 1 else self.store.serialize_cdr
        at = START * 10**9 + round(seconds * 1e9)
        self.writer.write(self.connections[topic], at, bytes(pack(message, kind))[:cut])

    def image(self, topic: str, values: np.ndarray, encoding: str, frame_id: str, seconds: float, **more: Any) -> None:
        """An Image whose rows are four bytes longer than their pixels."""
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)
        rows = np.pad(rows, ((0, 0), (0, 4)))
        message = self.make(
            "sensor_msgs/msg/Image", header=self.header(frame_id, seconds), height=values.shape[0],
            width=values.shape[1], encoding=encoding, is_bigendian=int(values.dtype.byteorder == ">"),
            step=rows.shape[1], data=rows.ravel(),
        )  # fmt: skip
        self.put(topic, "sensor_msgs/msg/Image", message, seconds, **more)

    def compressed(self, topic: str, data: bytes, format: str, frame_id: str, seconds: float) -> None:
        kind = "sensor_msgs/msg/CompressedImage"
        data_array = np.frombuffer(data, np.uint8)
        message = self.make(kind, header=self.header(frame_id, seconds), format=format, data=data_array)
        self.put(topic, kind, message, seconds)

    def camera(self, topic: str, size: tuple[int, int], focal: float, frame_id: str, distortion: float = 0.0) -> None:
        height, width = size
        k = np.array([focal, 0, width / 2 - 1, 0, focal + 1, height / 2 + 1, 0, 0, 1])
        p = np.array([focal + 2, 0, width / 2, 0, 0, focal + 2, height / 2, 0, 0, 0, 1, 0])
        region = self.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self.make(
            "sensor_msgs/msg/CameraInfo", header=self.header(frame_id, 0), height=height, width=width,
            distortion_model="plumb_bob", d=np.array([distortion, 0, 0, 0, 0.0]), k=k, r=np.eye(3).ravel(), p=p,
            binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip
        self.put(topic, "sensor_msgs/msg/CameraInfo", message, 0)

    def transform(self, parent: str, child: str, shift: tuple[float, ...], turn: tuple[float, ...]) -> None:
        vector = self.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", shift)))
        quaternion = self.make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", turn)))
        motion = self.make("geometry_msgs/msg/Transform", translation=vector, rotation=quaternion)
        stamped = self.make(
            "geometry_msgs/msg/TransformStamped", header=self.header(parent, 0), child_frame_id=child, transform=motion
        )
        kind = "tf2_msgs/msg/TFMessage"
        self.put("/tf_static", kind, self.make(kind, transforms=[stamped]), 0)


def compressed_depth(values: np.ndarray, a: float = 0.0, b: float = 0.0) -> bytes:
    """A 16-bit PNG behind the header of compressed depth."""
    return struct.pack("<iff", 0, a, b) + encoded(values, "PNG")


def write_bag(
    path: Path,
    version: int,
    count: int = 4,
    color: str = "rgb8",
    depth: str = "16UC1",
    frames: bool = True,
    **more: Any,
) -> Path:
    """Colour at 0, 1/30, .. s, depth 4 ms later, camera_info of both and the transforms of a chain between them."""
    bag = BagWriter(path, version)
    color_frame, depth_frame = "color_optical", "depth_optical"
    if frames:
        bag.transform("base", depth_frame, (0.0, 0.0, 0.1), (0.0, 0.0, 0.0, 1.0))
        bag.transform(depth_frame, color_frame, SHIFT, TURN)
    bag.camera("/cam/color/camera_info", COLOR, 60.0, color_frame)
    bag.camera("/cam/depth/camera_info", DEPTH, 30.0, depth_frame, more.get("distortion", 0.0))
    for number in range(count):
        seconds = number / 30
        _put_color(bag, color, number, color_frame, seconds)
        _put_depth(bag, depth, number, depth_frame, seconds + 0.004, more.get("cut", {}))
    bag.writer.close()
    return path


def _put_color(bag: BagWriter, color: str, number: int, frame_id: str, seconds: float) -> None:
    pixels, topic = picture(number), "/cam/color/image_raw"
    if color == "jpeg":
        data = encoded(pixels)
        bag.compressed(f"{topic}/compressed", data, "rgb8; jpeg compressed bgr8", frame_id, seconds)
        return
    if color.startswith("bgr"):
        pixels = pixels[..., ::-1]
    if color.endswith("a8"):
        pixels = np.concatenate([pixels, np.full((*COLOR, 1), 9, np.uint8)], -1)
    bag.image(topic, pixels[..., 0] if color == "mono8" else pixels, color, frame_id, seconds)


def _put_depth(bag: BagWriter, depth: str, number: int, frame_id: str, seconds: float, cut: Mapping[int, int]) -> None:
    topic = "/cam/depth/image_rect" if depth == "rect" else "/cam/depth/image_raw"
    if depth == "16UC1 png":
        data = compressed_depth(millimetres(number))
        bag.compressed(f"{topic}/compressedDepth", data, "16UC1; compressedDepth png", frame_id, seconds)
    elif depth == "32FC1 png":
        a, b = 800.0, -100.0
        far = metres(number)
        valid = np.nan_to_num(far) > 0
        stored = np.where(valid, np.rint(a / np.where(valid, far, 1) + b), 0).astype(np.uint16)
        data = compressed_depth(stored, a, b)
        bag.compressed(f"{topic}/compressedDepth", data, "32FC1; compressedDepth", frame_id, seconds)
    elif depth == "32FC1":
        bag.image(topic, metres(number), "32FC1", frame_id, seconds, cut=cut.get(number))
    else:
        values = millimetres(number).astype(">u2" if depth == "big" else "<u2")
        bag.image(topic, values, "16UC1", frame_id, seconds, cut=cut.get(number))
