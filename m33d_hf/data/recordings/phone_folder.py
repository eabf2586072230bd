"""Exports of phone apps: a folder with pictures `rgb/` (or `rgb.mp4`), `depth/`, and mostly `confidence/`.

Record3D exports `rgb/N.jpg`, `depth/N.exr` and `metadata.json`; Stray Scanner `rgb.mp4`, `depth/000000.png`,
`confidence/000000.png` and `camera_matrix.csv`. Files belong together by the last number in their names. Depth of 16
bits is millimetres, floating point metres; it shows the view of the picture, at a smaller size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.depth.holes import first_number
from m33d_hf.data.files.files import MAP_SUFFIXES, RGB_SUFFIXES, read_map, size_and_orientation
from m33d_hf.data.files.json_objects import read_json_object
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.plural import plural
from m33d_hf.data.recordings.record3d import intrinsics_of
from m33d_hf.data.recordings.recording import (
    About,
    Content,
    ImportOptions,
    PendingFrame,
    refuse_other_view,
    stored_picture,
    with_confidence,
)
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.data.sources.videos.frames import read_video_frames, video_frame
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.modeling.picture_files_m33d import read_file
from m33d_hf.modeling.video_times_m33d import frames_lost_at_the_end

_COLOR, _DEPTH, _CONFIDENCE = ("rgb", "color"), ("depth",), ("confidence", "conf")
_VIDEOS = ("rgb.mp4", "rgb.mov")
_METADATA, _MATRIX = ("metadata.json", "metadata"), "camera_matrix.csv"
_NUMBER = re.compile(r"\d+")


class PhoneFolder:
    """See the module's text.

    Raises:
        CorruptFileError: no such folder, a calibration that cannot be read, a video that is to be turned, depth of
            another aspect ratio than the picture, or a video cut short by an unknown number of frames whose depth
            counts from 1.
    """

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options
        self._depth = _numbered(path, _DEPTH, MAP_SUFFIXES)
        self._confidence = _numbered(path, _CONFIDENCE, MAP_SUFFIXES)
        self._video = next((name for name in _VIDEOS if (path / name).is_file()), None)
        self._color = {} if self._video else _numbered(path, _COLOR, RGB_SUFFIXES)
        count = 0
        if self._video:
            info = cached_info(path / self._video)
            if info.orientation != 1:
                raise CorruptFileError(
                    path / self._video,
                    f"is to be turned (EXIF's orientation {info.orientation}), and nothing says whether its depth and "
                    "intrinsics are. If they are as the video stores its pictures, take the turn out: ffmpeg "
                    f"-display_rotation 0 -i {self._video} -c copy upright.mp4, and name that {self._video}",
                )
            count, lost = info.num_frames, frames_lost_at_the_end(info.lacks, info.num_frames)
            if first := first_number(self._depth, path / self._video, count, lost):
                self._depth = {number - first: file for number, file in self._depth.items()}
                if 0 not in self._confidence:
                    self._confidence = {number - first: file for number, file in self._confidence.items()}
        pictures = set(range(count)) if self._video else set(self._color)
        self._numbers = sorted(pictures & self._depth.keys())
        if not self._numbers:
            raise CorruptFileError(
                path,
                f"is no export of a phone: it needs rgb/ (or {_VIDEOS[0]}) and depth/ with files of the same numbers; "
                f"there are {plural(len(pictures), 'picture')} and "
                f"{plural(len(self._depth), 'depth map')}",
            )
        self._refuse_other_view(self._numbers[0])
        self.about = self._about(len(pictures))

    def _refuse_other_view(self, number: int) -> None:
        try:
            color, depth = self._size_of_color(number), size_and_orientation(self._depth[number])[:2]
        except CorruptFileError:
            return  # counted and listed where the frame is read
        refuse_other_view(self._depth[number], depth, color)

    def _about(self, pictures: int) -> About:
        metadata = next((self.path / name for name in _METADATA if (self.path / name).is_file()), None)
        values = _described(metadata)
        notes = ["depth shows the view of the picture; its calibration is the picture's, resized"]
        if not self._confidence:
            notes.append("there are no confidence maps, so that no depth becomes a hole by its confidence")
        if alone := max(pictures, len(self._depth)) - len(self._numbers):
            notes.append(f"{alone} pictures or depth maps have no partner of their number")
        stamps = values.get("frameTimestamps") or []
        rate = values.get("fps")
        fps = float(rate) if isinstance(rate, (int, float)) and rate > 0 else None
        if fps is None and self._video:
            fps = cached_info(self.path / self._video).fps
        if not stamps and self._video and (times := cached_info(self.path / self._video).times) is not None:
            stamps = times.at(range(times.count)).tolist()  # frames that a phone dropped are gaps
        self._stamps = stamps if len(stamps) > self._numbers[-1] else []
        try:
            calibration = self._calibration(metadata, values)
        except (ConfigError, ValueError, KeyError, TypeError, IndexError) as error:
            raise CorruptFileError(self.path, f"its intrinsics are not usable ({error!r})") from error
        if calibration is None:
            notes.append(f"no calibration: there is neither {_METADATA[0]} nor {_MATRIX}")
        return About("phone export", len(self._numbers), calibration, fps=fps, notes=notes)

    def _calibration(self, metadata: Path | None, values: dict[str, Any]) -> Calibration | None:
        first = self._numbers[0]
        height, width = self._size_of_color(first)
        if metadata is not None:
            fx, fy, cx, cy = intrinsics_of(values)
        elif (self.path / _MATRIX).is_file():
            words = read_text(self.path / _MATRIX).replace(",", " ").split()
            matrix = np.array([float(word) for word in words]).reshape(3, 3)
            fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        else:
            return None
        camera = Camera(width, height, fx, fy, cx, cy)
        return Calibration(camera, camera.resized(*size_and_orientation(self._depth[first])[:2]))

    def _size_of_color(self, number: int) -> tuple[int, int]:
        if self._video:
            info = cached_info(self.path / self._video)
            return info.height, info.width
        return size_and_orientation(self._color[number])[:2]

    def frames(self) -> Iterator[PendingFrame]:
        """See `Recording`."""
        for number in self._numbers:
            seconds = float(self._stamps[number]) if self._stamps else None
            yield PendingFrame(number, seconds, partial(self._load, number))

    def _load(self, number: int) -> Content:
        if self._video:
            name = video_frame(self._video, number)
            color: bytes | np.ndarray = read_video_frames(self.path, [name])[name]
            size = (color.shape[0], color.shape[1])  # type: ignore[union-attr]
        else:
            color, size = stored_picture(self._color[number], read_file(self._color[number]))
        depth = _as_stored(self._depth[number])
        if self._confidence:
            where = self._confidence.get(number)
            if where is None:
                raise CorruptFileError(self._depth[number], "has no confidence map of its number")
            depth = with_confidence(depth, read_map(where), self.options.min_confidence, where)
        return Content(color, size, depth)


def _as_stored(path: Path) -> np.ndarray:
    """(h, w) uint16 millimetres or floating point metres.

    Raises:
        CorruptFileError: integers of other sizes, such as pictures of depth.
    """
    depth = read_map(path)
    if depth.dtype == np.uint16 or depth.dtype.kind == "f":
        return depth
    if depth.dtype.kind in "iu" and depth.dtype.itemsize > 2 and depth.min() >= 0 and depth.max() <= 65535:
        return depth.astype(np.uint16)
    raise CorruptFileError(path, f"holds {depth.dtype}; depth is 16 bits of millimetres or floating point metres")


def _numbered(path: Path, names: tuple[str, ...], suffixes: tuple[str, ...]) -> dict[int, Path]:
    """Number -> file of the first of some folders that is there."""
    folder = next((path / name for name in names if (path / name).is_dir()), None)
    if folder is None:
        return {}
    found: dict[int, Path] = {}
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        stem, suffix = os.path.splitext(entry.name)
        digits = _NUMBER.findall(stem)
        if suffix.lower() not in suffixes or entry.name.startswith(".") or not digits:
            continue
        if (number := int(digits[-1])) in found:
            raise CorruptFileError(folder / entry.name, f"has the number of {found[number].name}")
        found[number] = folder / entry.name
    return found


def _described(metadata: Path | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    try:
        return read_json_object(metadata)
    except (OSError, ValueError) as error:
        raise CorruptFileError(metadata, f"is unreadable ({error})") from error
