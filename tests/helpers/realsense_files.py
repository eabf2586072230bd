"""Writes small recordings by RealSense's own SDK, from a software device: `.db3` with 2.59, `.bag` with 2.57 and older.

The `.bag` in tests/data/recordings was written by `python -m helpers.realsense_files FILE.bag`, in an environment with
pyrealsense2 2.57 and without 2.59, which cannot write it any more.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from helpers.recordings import COLOR, DEPTH, millimetres, picture

UNIT = 0.00025  # metres, as L515 stores
SHIFT = (0.015, 0.001, -0.002)
TURN = (0.9998, 0.0175, 0.0, -0.0175, 0.9998, 0.0, 0.0, 0.0, 1.0)  # about a degree around the optical axis
LATE = 2.0  # milliseconds between depth and colour of one frame
FOCAL = {"color": 60.0, "depth": 30.0, "infrared": 30.0}
_SIZES = {"color": COLOR, "depth": DEPTH, "infrared": DEPTH}
_BYTES = {"rgb8": 3, "bgr8": 3, "bgra8": 4, "y8": 1, "yuyv": 2, "z16": 2, "raw8": 1}


def intrinsics(rs: Any, kind: str, distortion: float = 0.0) -> Any:
    """Of a camera whose optical axis is beside the middle."""
    found = rs.intrinsics()
    found.height, found.width = _SIZES[kind]
    found.fx, found.fy = FOCAL[kind], FOCAL[kind] + 1
    found.ppx, found.ppy = found.width / 2 - 1, found.height / 2 + 1
    found.model, found.coeffs = rs.distortion.brown_conrady, [distortion, 0, 0, 0, 0]
    return found


class Device:
    """A software device with the given streams, kind -> format."""

    def __init__(self, rs: Any, streams: dict[str, str], related: bool = True, distortion: float = 0.0) -> None:
        self.rs, self.device = rs, rs.software_device()
        self.streams: dict[str, tuple[Any, Any, str]] = {}
        stereo = self.device.add_sensor("Stereo Module")
        camera = self.device.add_sensor("RGB Camera") if "color" in streams else None
        for number, (kind, name) in enumerate(streams.items()):
            sensor, size = camera if kind == "color" else stereo, _SIZES[kind]
            stream = rs.video_stream()
            stream.type, stream.index, stream.uid = getattr(rs.stream, kind), int(kind == "infrared"), number
            stream.width, stream.height, stream.fps, stream.bpp = size[1], size[0], 30, _BYTES[name]
            stream.fmt, stream.intrinsics = getattr(rs.format, name), intrinsics(rs, kind, distortion)
            self.streams[kind] = (sensor, sensor.add_video_stream(stream), name)
        if "depth" in streams:
            stereo.add_read_only_option(rs.option.depth_units, UNIT)
        if related and {"color", "depth"} <= set(streams):
            motion = rs.extrinsics()
            motion.rotation, motion.translation = list(TURN), list(SHIFT)
            self.streams["depth"][1].register_extrinsics_to(self.streams["color"][1], motion)

    def send(self, kind: str, number: int, values: np.ndarray, clock: str = "system_time") -> None:
        """One frame; colour is late."""
        sensor, profile, name = self.streams[kind]
        frame = self.rs.software_video_frame()
        frame.pixels, frame.bpp = np.ascontiguousarray(values), _BYTES[name]
        frame.stride = values.nbytes // values.shape[0]
        frame.timestamp = number * 1000 / 30 + (LATE if kind == "color" else 0)
        frame.domain, frame.frame_number = getattr(self.rs.timestamp_domain, clock), number
        frame.profile = profile.as_video_stream_profile()
        if kind == "depth":
            frame.depth_units = UNIT
        sensor.on_video_frame(frame)


def yuyv(number: int) -> np.ndarray:
    """(H, 2 W) uint8: brightness and colour in turn."""
    height, width = COLOR
    rows, columns = np.mgrid[0:height, 0 : 2 * width]
    return (60 + rows + 2 * (columns // 8) + number).clip(16, 235).astype(np.uint8)


def color_of(name: str, number: int) -> np.ndarray:
    """The pixels of a frame in a format."""
    pixels = picture(number)
    if name == "yuyv":
        return yuyv(number)
    if name == "y8":
        return pixels[..., 0]
    if name == "bgra8":
        return np.concatenate([pixels[..., ::-1], np.full((*COLOR, 1), 9, np.uint8)], -1)
    return pixels[..., ::-1] if name == "bgr8" else pixels


def write_realsense(
    path: Path, count: int = 5, color: str | None = "rgb8", depth: bool = True, clock: str = "system_time", **more: Any
) -> Path:
    """A recording of both streams, and of infrared, which is not read; compressed as the SDK does it."""
    from m33d_hf.data.recordings.realsense_sdk import load_sdk

    rs = load_sdk()
    streams = ({"depth": "z16"} if depth else {}) | ({} if color is None else {"color": color}) | {"infrared": "y8"}
    device = Device(rs, streams, **more)
    recorder = rs.recorder(str(path), device.device)
    frames, sensors = rs.frame_queue(1000), recorder.query_sensors()
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(frames)
    for number in range(count):
        for kind, (_, _, name) in device.streams.items():
            values = color_of(name, number) if kind == "color" else millimetres(number)
            values = values if kind != "infrared" else (values // 16).astype(np.uint8)
            device.send(kind, number, values, clock if kind == "color" else "system_time")
        time.sleep(0.01)
    time.sleep(0.2)
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    return path


if __name__ == "__main__":
    write_realsense(Path(sys.argv[1]), 3)
