"""Bags of ROS 1 (.bag) and ROS 2 (a folder with metadata.yaml, .db3 or .mcap), read by rosbags, without ROS.

The bag is read twice: once for the times of its pictures, which decide what belongs together, once for the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.data.plural import plural
from m33d_hf.data.recordings.rates import frames_per_second
from m33d_hf.data.recordings.recording import About, Content, ImportOptions, PendingFrame
from m33d_hf.data.recordings.ros_messages import (
    CAMERA,
    COMPRESSED,
    IMAGE,
    TRANSFORMS,
    camera_of,
    color_of,
    depth_of,
    is_distorted,
    kind_of,
    motion_between,
    seconds_of,
    transforms_of,
)
from m33d_hf.data.sources.frames.pairing import match_timestamps
from m33d_hf.errors import ConfigError, CorruptFileError, MissingDependencyError, first_line

_STATIC = ("/tf_static", "tf_static")
_REALSENSE = re.compile(r"/device_\d+/sensor_\d+/")


@cache
def _known_types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


class _Stream(NamedTuple):
    """A topic of pictures, the coordinate frame that they are in, and how many the bag's index counts."""

    topic: str
    frame_id: str
    messages: int


class RosRecording:
    """See the module's text.

    Raises:
        CorruptFileError: no bag, or a damaged one.
        ConfigError: no colour or depth in it, or several and none named.
        MissingDependencyError: without rosbags.
    """

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path = path.parent if path.suffix.lower() in (".db3", ".mcap") else path
        self.options = options
        with self._opened() as reader:
            streams = self._streams(reader)
            self._topics = {kind: stream.topic for kind, stream in streams.items()}
            self._stamps, lost = self._times(reader, streams)
            matched = match_timestamps(self._stamps["color"], self._stamps["depth"], options.max_difference)
            self._partner = dict(matched)
            self.about = self._about(reader, streams, lost)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            from rosbags.highlevel import AnyReader, AnyReaderError
        except ImportError as error:
            raise MissingDependencyError("ROS bags need rosbags: pip install 'm33d-hf[cameras]'.") from error
        try:
            # For bags of ROS 2 that do not hold the definitions of their messages; those read here never changed.
            reader = AnyReader([self.path], default_typestore=None if self.path.is_file() else _known_types())
            reader.open()
        except (AnyReaderError, OSError, ValueError, KeyError) as error:
            raise CorruptFileError(self.path, f"cannot be read as a ROS bag ({error})") from error
        try:
            yield reader
        except AnyReaderError as error:
            raise CorruptFileError(self.path, f"cannot be read to its end ({error})") from error
        finally:
            reader.close()

    def _streams(self, reader: Any) -> dict[str, _Stream]:
        """The topics of colour and depth."""
        found: dict[str, list[_Stream]] = {"color": [], "depth": []}
        pictures = [each for each in reader.connections if each.msgtype in (IMAGE, COMPRESSED)]
        if any(_REALSENSE.match(each.topic) for each in pictures):
            raise ConfigError(
                f"{self.path} holds what RealSense's SDK records, not ROS: its depth unit and its cameras are stored "
                "in the SDK's own way. Give the file (.bag or .db3) that the SDK wrote."
            )
        for connection in {each.topic: each for each in pictures}.values():  # a topic may have several publishers
            first = next(reader.messages([connection]), None)
            if first is None:
                continue
            try:
                message = reader.deserialize(first[2], connection.msgtype)
            except Exception:  # of generated code, which raises anything; a topic that cannot be told
                continue
            if kind := kind_of(message, connection.msgtype):
                count = sum(each.msgcount for each in pictures if each.topic == connection.topic)
                found[kind].append(_Stream(connection.topic, str(message.header.frame_id), count))
        wanted = {"color": self.options.color_topic, "depth": self.options.depth_topic}
        return {kind: self._only(kind, streams, wanted[kind]) for kind, streams in found.items()}

    def _only(self, kind: str, streams: list[_Stream], wanted: str | None) -> _Stream:
        chosen = [stream for stream in streams if wanted in (None, stream.topic)]
        if len(chosen) == 1:
            return chosen[0]
        topics = ", ".join(stream.topic for stream in streams) or "none"
        why = "several topics" if len(chosen) > 1 else "no topic" + (f" {wanted}" if wanted else "")
        raise ConfigError(f"{self.path} has {why} of {kind}; choose with --{kind}_topic. It holds: {topics}.")

    def _times(self, reader: Any, streams: dict[str, _Stream]) -> tuple[dict[str, list[float]], int]:
        """Seconds of the pictures of each kind, in the order of the bag, and messages that it counts and lacks."""
        stamps: dict[str, list[float]] = {"color": [], "depth": []}
        received: dict[str, list[float]] = {"color": [], "depth": []}
        kinds = {stream.topic: kind for kind, stream in streams.items()}
        for connection, at, raw in reader.messages([each for each in reader.connections if each.topic in kinds]):
            kind = kinds[connection.topic]
            received[kind].append(1e-9 * at)
            try:
                stamps[kind].append(seconds_of(reader.deserialize(raw, connection.msgtype)))
            except Exception:  # of generated code; the picture is counted as damaged where it is read
                stamps[kind].append(1e-9 * at)
        lost = max(stream.messages - len(stamps[kind]) for kind, stream in streams.items())
        stamped = all(any(values) for values in stamps.values())
        return (stamps if stamped else received), max(0, lost)

    def _about(self, reader: Any, streams: dict[str, _Stream], lost: int) -> About:
        color, depth = (len(self._stamps[kind]) for kind in ("color", "depth"))
        notes = [
            f"{plural(len(self._partner), 'frame')} of {color} pictures ({streams['color'].topic}) and {depth} "
            "depth maps "
            f"({streams['depth'].topic}), at most {self.options.max_difference:g} s apart"
        ]
        fps = frames_per_second([self._stamps["color"][i] for i in self._partner])
        calibration = self._calibration(reader, streams, notes)
        version = "ROS 2" if reader.is2 else "ROS 1"
        return About(f"{version} bag", len(self._partner) + lost, calibration, fps=fps, notes=notes)

    def _calibration(self, reader: Any, streams: dict[str, _Stream], notes: list[str]) -> Calibration | None:
        infos = {kind: self._camera_info(reader, stream.topic) for kind, stream in streams.items()}
        if missing := [streams[kind].topic for kind, info in infos.items() if info is None]:
            notes.append(f"no calibration: there is no camera_info beside {' and '.join(missing)}")
            return None
        cameras = {}
        for kind, info in infos.items():
            rectified = "rect" in streams[kind].topic
            try:
                cameras[kind] = camera_of(info, rectified)
            except ConfigError as error:
                notes.append(f"no calibration: the camera_info of {streams[kind].topic} cannot be: {error}")
                return None
            if is_distorted(info) and not rectified:
                notes.append(f"the lens distortion of {streams[kind].topic} is left as it is")
        motion = self._motion(reader, streams)
        if motion is None:
            frames = " and ".join(repr(stream.frame_id) for stream in streams.values())
            notes.append(f"no calibration: /tf_static does not join the frames {frames} of colour and depth")
            return None
        return Calibration(cameras["color"], cameras["depth"], tuple(tuple(row) for row in motion.tolist()))

    def _camera_info(self, reader: Any, topic: str) -> Any:
        """The first CameraInfo in the name space of a topic of pictures, or above it for compressed ones."""
        known = {each.topic: each for each in reader.connections if each.msgtype == CAMERA}
        for parent in list(PurePosixPath(topic).parents)[:3]:
            connection = known.get(f"{str(parent).rstrip('/')}/camera_info")
            first = None if connection is None else next(reader.messages([connection]), None)
            if first is not None:
                return reader.deserialize(first[2], CAMERA)
        return None

    def _motion(self, reader: Any, streams: dict[str, _Stream]) -> np.ndarray | None:
        depth, color = streams["depth"].frame_id, streams["color"].frame_id
        if depth == color:
            return np.eye(4)
        edges: dict[tuple[str, str], np.ndarray] = {}
        static = [each for each in reader.connections if each.topic in _STATIC and each.msgtype == TRANSFORMS]
        for connection, _, raw in reader.messages(static) if static else ():
            edges |= transforms_of(reader.deserialize(raw, connection.msgtype))
        return motion_between(edges, depth, color)

    def frames(self) -> Iterator[PendingFrame]:
        """See `Recording`."""
        partner = {"color": self._partner, "depth": {j: i for i, j in self._partner.items()}}
        other = {"color": "depth", "depth": "color"}
        kinds = {topic: kind for kind, topic in self._topics.items()}
        waiting: dict[tuple[str, int], tuple[bytes, str]] = {}
        seen, number = {"color": 0, "depth": 0}, 0
        with self._opened() as reader:
            connections = [each for each in reader.connections if each.topic in kinds]
            for connection, _, raw in reader.messages(connections):
                kind = kinds[connection.topic]
                index, seen[kind] = seen[kind], seen[kind] + 1
                match = partner[kind].get(index)
                if match is None:
                    continue
                waiting[kind, index] = (raw, connection.msgtype)
                if (other[kind], match) not in waiting:
                    continue
                at = index if kind == "color" else match
                pair = {name: waiting.pop((name, i)) for name, i in ((kind, index), (other[kind], match))}
                yield PendingFrame(number, self._stamps["color"][at], partial(self._load, reader, pair, at))
                number += 1

    def _load(self, reader: Any, pair: dict[str, tuple[bytes, str]], at: int) -> Content:
        decoded = {}
        for kind, (raw, msgtype) in pair.items():
            where = Path(f"{self.path}#{self._topics[kind]}-{at}")
            try:
                decoded[kind] = (where, reader.deserialize(raw, msgtype), msgtype)
            except Exception as error:  # of generated code, which raises anything
                raise CorruptFileError(where, f"cannot be read ({first_line(error)})") from error
        color, size = color_of(*decoded["color"])
        return Content(color, size, depth_of(*decoded["depth"]))
