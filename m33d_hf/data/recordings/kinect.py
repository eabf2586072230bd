"""Azure Kinect's recordings: Matroska with a colour track (MJPG mostly), a depth track of 16 bits, and a calibration.

The depth track has the FourCC `b16g`: big-endian 16-bit millimetres, uncompressed. The calibration is attached as JSON;
it states each camera for its whole sensor, of which the recording's mode is a binned and cropped part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.files.json_objects import parse_json_object
from m33d_hf.data.plural import plural
from m33d_hf.data.recordings.rates import frames_per_second
from m33d_hf.data.recordings.recording import About, Content, ImportOptions, PendingFrame, stored_picture
from m33d_hf.data.sources.frames.pairing import match_timestamps
from m33d_hf.errors import ConfigError, CorruptFileError, MissingDependencyError
from m33d_hf.modeling.picture_files_m33d import check_pixels

_DEPTH_TAG = "b16g"
_DEPTH_CAMERA, _COLOR_CAMERA = "CALIBRATION_CameraLocationD0", "CALIBRATION_CameraLocationPV0"
# (height, width) of a picture -> (sides of the whole, binned sensor (width, height), corner of the crop (x, y)).
_DEPTH_MODES = {
    (288, 320): ((512, 512), (96, 90)),
    (576, 640): ((1024, 1024), (192, 180)),
    (512, 512): ((512, 512), (0, 0)),
    (1024, 1024): ((1024, 1024), (0, 0)),
}
_COLOR_MODES = {
    (720, 1280): ((1280, 960), (0, 120)),
    (1080, 1920): ((1920, 1440), (0, 180)),
    (1440, 2560): ((2560, 1920), (0, 240)),
    (1536, 2048): ((2048, 1536), (0, 0)),
    (2160, 3840): ((3840, 2880), (0, 360)),
    (3072, 4096): ((4096, 3072), (0, 0)),
}
_HUFFMAN_TABLES = b"\xff\xc4"


class KinectRecording:
    """See the module's text.

    Raises:
        CorruptFileError: cannot be opened, or has no colour or no depth track.
        MissingDependencyError: without PyAV.
    """

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options
        with self._opened() as container:
            tracks = self._tracks(container)
            self._index = {kind: stream.index for kind, stream in tracks.items()}
            self._sizes = {kind: (stream.height, stream.width) for kind, stream in tracks.items()}
            for height, width in self._sizes.values():
                check_pixels(path, height, width)
            attached = self._calibration_text(container)
            end = None if container.duration is None else container.duration / 1e6
            self._stamps = self._times(container, tracks)
        matched = match_timestamps(self._stamps["color"], self._stamps["depth"], options.max_difference)
        self._partner = dict(matched)
        self.about = self._about(attached, end)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import av
        except ImportError as error:
            raise MissingDependencyError("Azure Kinect's recordings need PyAV: pip install av") from error
        try:
            container = av.open(str(self.path), metadata_errors="ignore")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CorruptFileError(self.path, f"cannot be opened ({error})") from error
        try:
            yield container
        finally:
            container.close()

    def _tracks(self, container: Any) -> dict[str, Any]:
        """The streams of colour and depth; the infrared track is of the depth's kind and named otherwise."""
        raw = [each for each in container.streams.video if each.codec_context.codec_tag == _DEPTH_TAG]
        named = [each for each in raw if str(each.metadata.get("title", "")).upper() == "DEPTH"]
        depth = named or raw
        color = [each for each in container.streams.video if each not in raw]
        if len(depth) != 1 or len(color) != 1:
            raise CorruptFileError(
                self.path,
                f"is no recording of Azure Kinect: it has {plural(len(depth), 'depth track')} (FourCC b16g) and "
                f"{len(color)} "
                "colour tracks; expected one of each",
            )
        return {"color": color[0], "depth": depth[0]}

    def _packets(self, container: Any, tracks: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
        """(kind, number in its track, packet) until the end, or until the file is cut."""
        import av

        kinds = {stream.index: kind for kind, stream in tracks.items()}
        count = dict.fromkeys(tracks, 0)
        try:
            for packet in container.demux(*tracks.values()):
                if packet.pts is None or not packet.size:
                    continue
                kind = kinds[packet.stream.index]
                yield kind, count[kind], packet
                count[kind] += 1
        except (av.error.FFmpegError, OSError):  # what is missing is told by the times: see `_about`
            return

    def _times(self, container: Any, tracks: Mapping[str, Any]) -> dict[str, list[float]]:
        stamps: dict[str, list[float]] = {kind: [] for kind in tracks}
        for kind, _, packet in self._packets(container, tracks):
            stamps[kind].append(float(packet.pts * packet.time_base))
        return stamps

    def _about(self, attached: bytes | None, end: float | None) -> About:
        color, depth = (len(self._stamps[kind]) for kind in ("color", "depth"))
        steps = np.diff(sorted(self._stamps["color"]))
        step = float(np.median(steps)) if len(steps) else 0.0
        notes = [f"{plural(len(self._partner), 'frame')} of {color} pictures and {depth} depth maps"]
        lost = 0
        if end is not None and step > 0:
            last = min(max(values, default=0.0) for values in self._stamps.values())
            lost = max(0, round((end - last) / step) - 1)
            lost = lost if lost > 1 else 0  # the header's end is that of the last block of any track
        calibration = None
        if attached is None:
            notes.append("no calibration: none is attached")
        else:
            calibration = calibration_of(self.path, attached, self._sizes["color"], self._sizes["depth"], notes)
        fps = frames_per_second(self._stamps["color"])
        return About("Azure Kinect", len(self._partner) + lost, calibration, fps=fps, notes=notes)

    def _calibration_text(self, container: Any) -> bytes | None:
        wanted = container.metadata.get("K4A_CALIBRATION_FILE", "calibration.json")
        for stream in container.streams:
            if stream.type == "attachment" and stream.metadata.get("filename") == wanted:
                return bytes(stream.data).rstrip(b"\0")
        return None

    def frames(self) -> Iterator[PendingFrame]:
        """See `Recording`."""
        partner = {"color": self._partner, "depth": {j: i for i, j in self._partner.items()}}
        other = {"color": "depth", "depth": "color"}
        waiting: dict[tuple[str, int], Any] = {}
        number = 0
        with self._opened() as container:
            tracks = {kind: container.streams[index] for kind, index in self._index.items()}
            for kind, index, packet in self._packets(container, tracks):
                match = partner[kind].get(index)
                if match is None:
                    continue
                waiting[kind, index] = packet
                if (other[kind], match) not in waiting:
                    continue
                pair = {name: waiting.pop((name, i)) for name, i in ((kind, index), (other[kind], match))}
                at = index if kind == "color" else match
                yield PendingFrame(number, self._stamps["color"][at], partial(self._load, pair, number))
                number += 1

    def _load(self, pair: dict[str, Any], number: int) -> Content:
        color, size = self._color(Path(f"{self.path}#color-{number}"), pair["color"])
        height, width = self._sizes["depth"]
        data = bytes(pair["depth"])
        if len(data) != (needed := 2 * height * width):
            where = Path(f"{self.path}#depth-{number}")
            raise CorruptFileError(where, f"has {len(data):,} bytes; {height} x {width} of 16 bits need {needed:,}")
        depth = np.frombuffer(data, ">u2").reshape(height, width).astype(np.uint16)
        return Content(color, size, depth)

    def _color(self, where: Path, packet: Any) -> tuple[bytes | np.ndarray, tuple[int, int]]:
        """A JPEG as it is; other codecs, and JPEGs that leave their tables out, decoded."""
        import av

        data = bytes(packet)
        if packet.stream.codec_context.name == "mjpeg" and _HUFFMAN_TABLES in data:
            return stored_picture(where, data)
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            raise CorruptFileError(where, f"cannot be decoded ({error})") from error
        if len(frames) != 1:
            raise CorruptFileError(where, f"its packet holds {plural(len(frames), 'picture')}; expected one")
        pixels = frames[0].to_ndarray(format="rgb24")
        return pixels, (pixels.shape[0], pixels.shape[1])


def calibration_of(
    path: Path, text: bytes, color: tuple[int, int], depth: tuple[int, int], notes: list[str]
) -> Calibration | None:
    """The calibration of a recording's two pictures, by the device's own.

    Args:
        path: of the recording, for messages.
        text: the attached JSON.
        color, depth: (height, width) of the pictures, which tell the modes.
        notes: gets a sentence on what was left out.

    Raises:
        CorruptFileError: JSON of another kind. None is returned for sizes of no known mode.
    """
    for size, modes, what in ((color, _COLOR_MODES, "colour"), (depth, _DEPTH_MODES, "depth")):
        if size not in modes:
            notes.append(f"no calibration: no {what} mode of Azure Kinect is {size[1]} x {size[0]}")
            return None
    try:
        content = parse_json_object(text)["CalibrationInformation"]["Cameras"]
        cameras = {each["Location"]: each for each in content}
        whole = [
            _camera(cameras[_COLOR_CAMERA], color, *_COLOR_MODES[color]),
            _camera(cameras[_DEPTH_CAMERA], depth, *_DEPTH_MODES[depth]),
        ]
        motions = [_motion(cameras[name]) for name in (_COLOR_CAMERA, _DEPTH_CAMERA)]
        motion = motions[0] @ np.linalg.inv(motions[1])
        found = Calibration(whole[0], whole[1], tuple(tuple(row) for row in motion.tolist()))
    except (KeyError, TypeError, IndexError, ValueError, ConfigError) as error:
        raise CorruptFileError(path, f"its attached calibration is not that of an Azure Kinect ({error!r})") from error
    notes.append(
        "the lens distortion of both cameras is left as it is: registered depth is off by some pixels far from the "
        "middle of a wide field of view"
    )
    return found


def _camera(
    values: Mapping[str, Any], size: tuple[int, int], whole: tuple[int, int], corner: tuple[int, int]
) -> Camera:
    """The camera of a mode: parameters are shares of the whole sensor's sides, from the corner of its first pixel."""
    cx, cy, fx, fy = (float(value) for value in values["Intrinsics"]["ModelParameters"][:4])
    width, height = whole
    middle = cx * width - corner[0] - 0.5, cy * height - corner[1] - 0.5
    return Camera(size[1], size[0], fx * width, fy * height, *middle)


def _motion(values: Mapping[str, Any]) -> np.ndarray:
    """4 x 4 from the device's place to the camera, in metres."""
    motion = np.eye(4)
    motion[:3, :3] = np.array(values["Rt"]["Rotation"], np.float64).reshape(3, 3)
    motion[:3, 3] = np.array(values["Rt"]["Translation"], np.float64)
    return motion
