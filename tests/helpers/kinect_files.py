"""Writes recordings as Azure Kinect's recorder does: Matroska by PyAV, the depth track's FourCC set to b16g."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from helpers.recordings import encoded, millimetres, picture

COLOR, DEPTH = (720, 1280), (288, 320)


def calibration() -> dict[str, Any]:
    """The device's: shares of sensors of 1024 x 1024 and 4096 x 3072; the colour camera is 32 mm to the side."""

    def camera(location: str, parameters: list[float], rotation: list[float], shift: list[float]) -> dict[str, Any]:
        values = [*parameters, 0.5, -2.6, 1.5, 0.4, -2.4, 1.4, 0, 0, -0.0001, 0.0004]
        kind = "CALIBRATION_LensDistortionModelBrownConrady"
        return {
            "Intrinsics": {"ModelParameterCount": 14, "ModelParameters": values, "ModelType": kind},
            "Location": location,
            "Rt": {"Rotation": rotation, "Translation": shift},
        }

    angle = 0.1  # between the cameras, about x
    turn = [1, 0, 0, 0, np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle)]
    identity = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    depth = camera("CALIBRATION_CameraLocationD0", [0.5, 0.51, 0.49, 0.492], identity, [0, 0, 0])
    color = camera("CALIBRATION_CameraLocationPV0", [0.498, 0.503, 0.475, 0.633], turn, [-0.032, -0.002, 0.004])
    return {"CalibrationInformation": {"Cameras": [depth, color]}}


def write_kinect(
    path: Path, count: int = 3, attached: bytes | None = None, infrared: bool = True, **sizes: Any
) -> Path:
    """`count` frames at 30 Hz: JPEG colour, depth and infrared of 16 bits a millisecond later, the calibration."""
    color, depth = sizes.get("color", COLOR), sizes.get("depth", DEPTH)
    with av.open(str(path), "w", format="matroska", options={"allow_raw_vfw": "1"}) as file:
        tracks = [_track(file, "mjpeg", "yuvj420p", color, "COLOR")]
        tracks += [_track(file, "rawvideo", "gray16be", depth, name) for name in ("DEPTH", "IR")[: 1 + infrared]]
        data = json.dumps(calibration()).encode() if attached is None else attached
        if data:
            file.add_attachment("calibration.json", "application/octet-stream", data)
        file.metadata["K4A_CALIBRATION_FILE"] = "calibration.json"
        file.start_encoding()
        for number in range(count):
            far = millimetres(number, depth).astype(">u2")
            payloads = [encoded(picture(number, color)), far.tobytes(), (far // 7).tobytes()]
            for place, (track, payload) in enumerate(zip(tracks, payloads)):
                packet = av.Packet(payload)
                packet.stream, packet.time_base = track, Fraction(1, 1000)
                packet.pts = packet.dts = round(number * 1000 / 30) + (place > 0)
                packet.duration, packet.is_keyframe = 33, True
                file.mux(packet)
    path.write_bytes(_with_fourcc(path.read_bytes(), depth))
    return path


def _track(file: Any, codec: str, pixels: str, size: tuple[int, int], title: str) -> Any:
    track = file.add_stream(codec, rate=30)
    track.height, track.width, track.pix_fmt = *size, pixels
    track.metadata["title"] = title
    return track


def _with_fourcc(data: bytes, size: tuple[int, int]) -> bytes:
    """PyAV leaves the FourCC of raw video at 0 and its rows upside down; Kinect's recorder writes b16g and a height."""
    height, width = size
    words = [np.array([40, width, -height], "<i4").tobytes(), np.array([1, 16], "<u2").tobytes(), bytes(4)]
    wanted = [np.array([40, width, height], "<i4").tobytes(), words[1], b"b16g"]
    assert data.count(b"".join(words)) in (1, 2)
    return data.replace(b"".join(words), b"".join(wanted))
