"""RealSense's own recordings, `.bag` and `.db3`, played by its SDK: depth in the device's unit, colour, calibration.

Streams are not aligned by the SDK (`rs.align`), which moves depth pixels into the colour picture and leaves their
distances those of the depth camera, and which takes pairs from a part of the SDK that drops frames. Depth is stored as
recorded, bit by bit, with the calibration that is in the file, and the source `folder` registers it, as it does that of
other cameras.

The recording is played twice: once for the times of its pictures, which decide what belongs together, once for the
pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.plural import plural
from m33d_hf.data.recordings.rates import frames_per_second
from m33d_hf.data.recordings.realsense_files import count_pictures
from m33d_hf.data.recordings.realsense_sdk import load_sdk, open_playback, play, profiles_of
from m33d_hf.data.recordings.recording import About, Content, ImportOptions, PendingFrame
from m33d_hf.data.sources.frames.pairing import match_timestamps
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec
from m33d_hf.modeling.picture_files_m33d import check_pixels

Taken = TypeVar("Taken")
_NAMES = {"color": "Color_0", "depth": "Depth_0"}
_ORDERS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "y8": (0, 0, 0)}
_INTERLEAVED = ("yuyv", "uyvy")
_WHOLE = 1e-5  # a scale is stored as float32: 1 / 0.001 comes back as 999.99995
_DISTORTED = 1e-6


class _Stamp(NamedTuple):
    """When a frame was taken: milliseconds, and by which clock."""

    milliseconds: float
    clock: str


class _Picture(NamedTuple):
    """One frame as recorded, which outlives the SDK's own."""

    stamp: _Stamp
    format: str
    values: np.ndarray


class RealSenseRecording:
    """See the module's text.

    Raises:
        CorruptFileError: damaged, without colour or without depth, empty, or of streams that cannot be paired.
        MissingDependencyError: without pyrealsense2, libusb, or, for a `.bag`, rosbags.
    """

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options
        self._counts = self._counted()
        self._rs = load_sdk()
        stamps = self._stamps()
        self._refuse_clocks(stamps)
        times = {kind: [stamp.milliseconds / 1000 for stamp in found] for kind, found in stamps.items()}
        pairs = match_timestamps(times["color"], times["depth"], options.max_difference)
        # What was paired is known again by its time: the SDK numbers the frames of some devices from 0 twice.
        self._number = {
            "color": {stamps["color"][i]: number for number, (i, _) in enumerate(pairs)},
            "depth": {stamps["depth"][j]: number for number, (_, j) in enumerate(pairs)},
        }
        self.about = self._about(times, len(pairs))

    def _counted(self) -> dict[str, int]:
        counts = count_pictures(self.path)
        for kind, name in _NAMES.items():
            if not counts.get(name):
                if not any(counts.values()):
                    raise CorruptFileError(self.path, "holds no picture: was the recording stopped at its beginning?")
                held = ", ".join(f"{stream} ({plural(count, 'picture')})" for stream, count in counts.items())
                raise CorruptFileError(self.path, f"has no picture of the stream {name} ({kind}); it holds: {held}")
        return {kind: counts[name] for kind, name in _NAMES.items()}

    def _play(self, take: Callable[[Any], Taken]) -> Iterator[tuple[str, Taken]]:
        """(kind, what was taken) of every frame of colour and depth."""
        playback = open_playback(self._rs, self.path)
        chosen = self._chosen(playback)
        kinds = {profile.stream_name(): kind for kind, (_, profile) in chosen.items()}

        def named(frame: Any) -> tuple[str, Taken]:
            return kinds[frame.get_profile().stream_name()], take(frame)

        yield from play(self._rs, self.path, playback, list(chosen.values()), sum(self._counts.values()), named)

    def _chosen(self, playback: Any) -> dict[str, tuple[Any, Any]]:
        """Kind -> (sensor, profile)."""
        wanted = {"color": self._rs.stream.color, "depth": self._rs.stream.depth}
        found = {}
        for kind, stream in wanted.items():
            fitting = [each for each in profiles_of(playback) if each[1].stream_type() == stream]
            if len(fitting) != 1:
                raise CorruptFileError(
                    self.path, f"the SDK finds {plural(len(fitting), 'stream')} of {kind} in it; expected one"
                )
            found[kind] = fitting[0]
        return found

    def _stamps(self) -> dict[str, list[_Stamp]]:
        stamps: dict[str, list[_Stamp]] = {kind: [] for kind in _NAMES}
        for kind, stamp in self._play(_stamp_of):
            stamps[kind].append(stamp)
        return stamps

    def _refuse_clocks(self, stamps: dict[str, list[_Stamp]]) -> None:
        clocks = Counter(stamp.clock for found in stamps.values() for stamp in found)
        if len(clocks) > 1:
            raise CorruptFileError(
                self.path,
                f"its frames were timed by several clocks ({', '.join(clocks)}), so that colour and depth cannot be "
                "paired; record with global time enabled",
            )

    def _about(self, times: dict[str, list[float]], pairs: int) -> About:
        counts, notes = self._counts, []
        lost = max(counts[kind] - len(found) for kind, found in times.items())
        notes.append(
            f"{pairs} frames of {counts['color']} pictures and {counts['depth']} depth maps, at most "
            f"{self.options.max_difference:g} s apart"
        )
        fps = frames_per_second(times["color"])
        playback = open_playback(self._rs, self.path)
        chosen = self._chosen(playback)
        spec = self._spec(chosen["depth"][0])
        calibration = self._calibration({kind: profile for kind, (_, profile) in chosen.items()}, notes)
        name = self._rs.camera_info.name
        device = f" ({playback.get_info(name)})" if playback.supports(name) else ""
        return About(f"RealSense{device}", pairs + max(0, lost), calibration, spec, fps, notes)

    def _spec(self, sensor: Any) -> DepthSpec:
        if not sensor.is_depth_sensor():
            raise CorruptFileError(self.path, "does not state the unit of its depth (the sensor's option Depth Units)")
        unit = float(sensor.as_depth_sensor().get_depth_scale())
        if not (np.isfinite(unit) and unit > 0):
            raise CorruptFileError(self.path, f"states {unit} m as the unit of its depth")
        scale = 1 / unit
        near = round(scale)
        return DepthSpec(scale=float(near) if near and abs(scale - near) < _WHOLE * near else scale)

    def _calibration(self, profiles: dict[str, Any], notes: list[str]) -> Calibration | None:
        cameras = {}
        try:
            for kind, profile in profiles.items():
                found = profile.as_video_stream_profile().get_intrinsics()
                check_pixels(self.path, found.height, found.width)
                cameras[kind] = Camera(found.width, found.height, found.fx, found.fy, found.ppx, found.ppy)
                if any(abs(value) > _DISTORTED for value in found.coeffs):
                    notes.append(f"the lens distortion of {kind} ({found.model}) is left as it is")
            motion = profiles["depth"].get_extrinsics_to(profiles["color"])
            return Calibration(cameras["color"], cameras["depth"], _matrix(motion))
        except (RuntimeError, ConfigError) as error:  # the SDK has none, or it cannot be
            notes.append(f"no calibration: {error}")
            return None

    def frames(self) -> Iterator[PendingFrame]:
        """See `Recording`."""
        waiting: dict[int, dict[str, _Picture]] = {}
        wanted = {stamp for numbers in self._number.values() for stamp in numbers}
        for kind, picture in self._play(partial(_picture_of, wanted)):
            number = None if picture is None else self._number[kind].get(picture.stamp)
            if number is None or picture is None:
                continue
            pair = waiting.setdefault(number, {})
            pair[kind] = picture
            if len(pair) == len(_NAMES):
                seconds = pair["color"].stamp.milliseconds / 1000
                yield PendingFrame(number, seconds, partial(self._load, waiting.pop(number), number))

    def _load(self, pair: dict[str, _Picture], number: int) -> Content:
        color = rgb_of(Path(f"{self.path}#color-{number}"), pair["color"].format, pair["color"].values)
        depth = pair["depth"].values
        if depth.ndim != 2 or depth.dtype != np.uint16:
            where = Path(f"{self.path}#depth-{number}")
            raise CorruptFileError(where, f"is {depth.dtype} of shape {depth.shape}; depth of RealSense is Z16")
        return Content(color, (color.shape[0], color.shape[1]), depth)


def _stamp_of(frame: Any) -> _Stamp:
    return _Stamp(float(frame.get_timestamp()), str(frame.get_frame_timestamp_domain()).rpartition(".")[2])


def _picture_of(wanted: set[_Stamp], frame: Any) -> _Picture | None:
    """A copy: the SDK lends its memory to few frames at a time. None for frames without a partner."""
    stamp = _stamp_of(frame)
    if stamp not in wanted:
        return None
    return _Picture(stamp, frame.get_profile().format().name, np.array(frame.get_data()))


def _matrix(motion: Any) -> tuple[tuple[float, ...], ...]:
    """4 x 4 of the SDK's extrinsics, whose rotation is stored by columns, rounded to float32."""
    turn = np.array(motion.rotation, np.float64).reshape(3, 3).T
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, motion.translation
    return tuple(tuple(row) for row in matrix.tolist())


def rgb_of(where: Path, format: str, values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a colour frame.

    Args:
        where: names the frame in messages.
        format: the SDK's name of it.
        values: (H, W, channels) uint8, or (H, W) of grey, or of pairs of brightness and colour (uint8 or uint16).

    Raises:
        CorruptFileError: a format that is not read, or values that do not fit it.
    """
    if format in _INTERLEAVED:
        return _from_yuv(where, format, values)
    if format not in _ORDERS:
        known = ", ".join((*_ORDERS, *_INTERLEAVED))
        raise CorruptFileError(where, f"is recorded as {format}, which is not read; record colour as one of {known}")
    pixels = values if values.ndim == 3 else values[..., None]
    if pixels.dtype != np.uint8 or pixels.shape[-1] <= max(_ORDERS[format]):
        raise CorruptFileError(where, f"is {values.dtype} of shape {values.shape}, which does not fit {format}")
    return np.ascontiguousarray(pixels[..., _ORDERS[format]])


def _from_yuv(where: Path, format: str, values: np.ndarray) -> np.ndarray:
    import av

    height, width = values.shape[:2]
    data = np.ascontiguousarray(values).view(np.uint8).reshape(height, -1)
    if data.shape[1] != 2 * width or width % 2:
        raise CorruptFileError(where, f"is {values.dtype} of shape {values.shape}, which does not fit {format}")
    pairs = data.reshape(height, width, 2)
    if format == "uyvy":
        pairs = pairs[..., ::-1]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pairs), format="yuyv422")
    return frame.to_ndarray(format="rgb24")
