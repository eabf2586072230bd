"""Made-up recordings of Azure Kinect of any length: a few frames, over and over, so that writing them costs little."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

COLOR, DEPTH = (720, 1280), (288, 320)
_DIFFERENT = 16
_HEADER = 1 << 16


def write_recording(path: Path, frames: int, fps: int) -> None:
    """Matroska as the device's recorder writes it: JPEG colour, raw depth of 16 bits, the calibration attached."""
    pictures, maps = _pictures(), _maps()
    with av.open(str(path), "w", format="matroska", options={"allow_raw_vfw": "1"}) as file:
        tracks = [_track(file, "mjpeg", "yuvj420p", COLOR, "COLOR", fps)]
        tracks.append(_track(file, "rawvideo", "gray16be", DEPTH, "DEPTH", fps))
        text = json.dumps(_calibration()).encode()
        file.add_attachment("calibration.json", "application/octet-stream", text)
        file.metadata["K4A_CALIBRATION_FILE"] = "calibration.json"
        file.start_encoding()
        for number in range(frames):
            # There and back, so that no frame jumps.
            place = number % (2 * _DIFFERENT - 2)
            place = min(place, 2 * _DIFFERENT - 2 - place)
            for track, payload in zip(tracks, (pictures[place], maps[place]), strict=True):
                packet = av.Packet(payload)
                packet.stream, packet.time_base = track, Fraction(1, 1000)
                packet.pts = packet.dts = round(number * 1000 / fps)
                packet.duration, packet.is_keyframe = 1000 // fps, True
                file.mux(packet)
    _name_depth(path)


def _pictures() -> list[bytes]:
    """JPEGs of a scene that moves, with the noise of a camera."""
    rng = np.random.default_rng(0)
    height, width = COLOR
    small = Image.fromarray(rng.integers(0, 256, (height // 16, width // 8, 3), np.uint8))
    scene = np.asarray(small.resize((2 * width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    found = []
    for number in range(_DIFFERENT):
        noise = rng.integers(-4, 5, (height, width, 1), np.int16)
        frame = np.clip(scene[:, 20 * number : 20 * number + width] + noise, 0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(frame).save(data, "JPEG", quality=85)
        found.append(data.getvalue())
    return found


def _maps() -> list[bytes]:
    """Millimetres of a sloping floor with a box that moves, noise, and holes; big-endian, as in the file."""
    rng = np.random.default_rng(1)
    height, width = DEPTH
    rows, columns = np.mgrid[:height, :width]
    found = []
    for number in range(_DIFFERENT):
        far = 3200 - 4 * rows + rng.normal(0, 3, DEPTH)
        box = (abs(columns - 100 - 5 * number) < 40) & (abs(rows - 150) < 50)
        far = np.where(box, 1400, far)
        far[rng.random(DEPTH) < 0.05] = 0
        found.append(far.astype(">u2").tobytes())
    return found


def _calibration() -> dict[str, Any]:
    """Two cameras beside each other; parameters are shares of the sensors' sides, as the device states them."""

    def camera(location: str, parameters: list[float], shift: list[float]) -> dict[str, Any]:
        return {
            "Intrinsics": {"ModelParameterCount": 14, "ModelParameters": [*parameters, *[0.0] * 10]},
            "Location": location,
            "Rt": {"Rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "Translation": shift},
        }

    depth = camera("CALIBRATION_CameraLocationD0", [0.5, 0.51, 0.49, 0.492], [0, 0, 0])
    color = camera("CALIBRATION_CameraLocationPV0", [0.498, 0.503, 0.475, 0.633], [-0.032, -0.002, 0.004])
    return {"CalibrationInformation": {"Cameras": [depth, color]}}


def _track(file: Any, codec: str, pixels: str, size: tuple[int, int], title: str, fps: int) -> Any:
    track = file.add_stream(codec, rate=fps)
    track.height, track.width, track.pix_fmt = *size, pixels
    track.metadata["title"] = title
    return track


def _name_depth(path: Path) -> None:
    """PyAV leaves the FourCC of raw video at 0 and its rows upside down; the recorder writes b16g and a height."""
    height, width = DEPTH
    head, kind = np.array([40, width, -height], "<i4").tobytes(), np.array([1, 16], "<u2").tobytes()
    with path.open("r+b") as file:
        data = file.read(_HEADER)
        place = data.index(head + kind + bytes(4))
        file.seek(place)
        file.write(np.array([40, width, height], "<i4").tobytes() + kind + b"b16g")
