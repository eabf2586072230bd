"""A video file (or a folder of its frames) as a `VideoHandle`, with the depth maps beside it, if any."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from m33d_hf.data.sample import HOLES, Hole, RGBDSample
from m33d_hf.data.sources.videos.recorded_times import TABLE, recorded_times, recording_of
from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.depth_m33d import resize_depth
from m33d_hf.modeling.video_reading_m33d import (
    ForwardReader,
    VideoInfo,
    frame_files,
    frame_orientations,
    probe_video,
    read_video,
)
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack, restated

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m2ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv",
    ".gif", ".ts",
)  # fmt: skip


class DepthFrames(Protocol):
    """Depth of a video, frame by frame (`m33d_hf.data.depth.maps.DepthMaps`)."""

    def of_video(self, num_frames: int, video: object) -> DepthFrames:
        """The maps of a video with so many frames; raises a DataError where they are those of other frames."""

    @property
    def reading_rules(self) -> dict[str, Any]:
        """How stored values and numbers of frames are understood: plain values."""

    def require_upright(self, orientations: Sequence[int], picture: tuple[int, int], maps: torch.Tensor) -> None:
        """Raise a DataError where maps of pictures that their file says to turn may not be upright."""

    def require_same_view(self, picture: tuple[int, int], maps: torch.Tensor) -> None:
        """Raise a DataError where maps cannot show what pictures of that height and width show."""

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Return (T, 1, h, w) float32, NaN where invalid; raises a DataError for a frame that is not there."""

    def read_clip(self, indices: Sequence[int]) -> tuple[torch.Tensor | None, list[Hole]]:
        """As `read`, NaN for frames that are not there, which are told; None where none is."""

    def missing(self, num_frames: int) -> list[int]:
        """The frames that are known to be missing, of the maps that `of_video` gave."""


@lru_cache(maxsize=16384)
def _probed(path: str, backend: str, state: tuple[int, ...]) -> VideoInfo:
    info = probe_video(path, backend)
    if info.incomplete:
        logger.warning("%s is incomplete: %s", path, info.incomplete)
    return _with_recorded_times(Path(path), info)


def _with_recorded_times(path: Path, info: VideoInfo) -> VideoInfo:
    """Pictures of an imported recording have its times, which their files do not tell."""
    recording = recording_of(path)
    times = None if recording is None else recorded_times(recording / TABLE, [file.name for file in frame_files(path)])
    if times is None:
        return info
    return replace(info, fps=times.fps, uneven=None if times.starts is None else times)


def cached_info(path: Path | str, backend: str = "auto") -> VideoInfo:
    """The result of `probe_video`, cached per process and state of the file; logs what is missing from the file.

    The pictures of an imported recording have its times besides.

    Raises:
        CorruptFileError: as `probe_video`.
    """
    try:
        recording = recording_of(Path(path))
        files = [path] if recording is None else [path, recording / TABLE]
        states = [os.stat(file) for file in files]
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error.strerror or error})") from error
    return _probed(str(path), backend, tuple(n for state in states for n in (state.st_size, state.st_mtime_ns)))


@dataclass(frozen=True)
class VideoFile:
    """A `VideoHandle` over a video file; nothing is opened before its length, rate or frames are asked for.

    Attributes:
        key: stable name of the video.
        path: the file, or a folder of pictures; relative to `root` where that is given.
        depth: depth of its frames by the same numbers, or None.
        label: class id of the whole video.
        root: folder that `path` is relative to.
        backend: of `probe_video`.
        stated_fps: frames per second that override those of the file; None takes the file's times.
    """

    key: str
    path: Path
    depth: DepthFrames | None = None
    label: int | None = None
    root: Path | None = None
    backend: str = "auto"
    stated_fps: float | None = None

    @property
    def file(self) -> Path:
        """Path of the video."""
        return Path(self.path) if self.root is None else self.root / self.path

    @property
    def has_depth(self) -> bool:
        """Whether depth lies beside it."""
        return self.depth is not None

    @property
    def info(self) -> VideoInfo:
        """Frames, rate, size; the first call per process looks at the file.

        Raises:
            CorruptFileError: it cannot be read.
        """
        return cached_info(self.file, self.backend)

    @property
    def length(self) -> int:
        """Number of frames that decode; raises as `info` does."""
        return self.info.num_frames

    @property
    def fps(self) -> float | None:
        """Frames per second on average, None when unknown; raises as `info` does."""
        return self.stated_fps or self.info.fps

    @property
    def times(self) -> FrameTimes | None:
        """Presentation time of each frame, in seconds from the first one; None if unknown; raises as `info` does."""
        return FrameTimes(self.length, self.stated_fps) if self.stated_fps else self.info.times

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What is missing from the file, see `VideoInfo`; raises as `info` does."""
        found = self.info.lacks
        return restated(found, self.length, self.stated_fps) if self.stated_fps else found

    @property
    def reading_rules(self) -> dict[str, Any]:
        """How the files are read: plain values, for features that are stored; raises as `info` does."""
        rules = {} if self.depth is None else self.depth.reading_rules
        return {"reader": self.info.backend, **rules}

    @property
    def missing_depth(self) -> list[int]:
        """Frames whose depth is known to be missing; raises as `info` does.

        Raises:
            DataError: depth of another number of frames.
        """
        if self.depth is None or self.info.num_frames == 1:
            return []
        return self.depth.of_video(self.info.num_frames, self.file).missing(self.info.num_frames)

    def forwards(self) -> ForwardFile:
        """A handle on the same video, to be closed, for who reads it from front to back."""
        return ForwardFile(**{each.name: getattr(self, each.name) for each in fields(VideoFile)})

    def _pictures(self, numbers: Sequence[int], info: VideoInfo) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        return read_video(self.file, numbers, info=info)

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames.

        Returns:
            rgb (T, 3, H, W) uint8; with depth also depth (T, 1, H, W), resized to the picture without mixing valid
            depth with holes, NaN for frames whose depth is missing or damaged, None where all are missing; label; meta
            with path, frames, fps and, where there are any, those without depth (`holes_of`).

        Raises:
            IndexError: a frame outside the video.
            CorruptFileError: a frame that cannot be decoded, or no depth of a clip that can.
            DataError: depth of another number of frames or aspect ratio, or none where RGB is not read.
        """
        return self.read_maps(indices, None).align()

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, with the named maps only, of RGB and depth; None, or names of neither, for both.

        Depth that is not named is not opened, so that an RGB-only run keeps a video whose depth is damaged or of
        another length. Without RGB the picture is not decoded, which alone would tell damaged frames. Beside RGB, depth
        of another resolution is left at that (`RGBDSample.aligned`).
        """
        numbers = [int(index) for index in indices]
        info = self.info
        held = {"rgb"} if self.depth is None else {"rgb", "depth"}
        wanted = held if maps is None else held & set(maps) or held
        rgb = depth = None
        holes: list[Hole] = []
        for number in numbers:
            if not 0 <= number < info.num_frames:
                raise IndexError(f"{self.file}: frame {number} of a video of {info.num_frames} frames")
        if "rgb" in wanted:
            # As decoded, pixel by pixel: resizing reads that faster than planes, and a copy of a clip costs as much.
            rgb = torch.from_numpy(self._pictures(numbers, info)).permute(0, 3, 1, 2)
        if self.depth is not None and "depth" in wanted:
            depth, holes = self._read_depth(self.depth, info, numbers)
            if rgb is None:
                if depth is None:
                    raise CorruptFileError(holes[0].path, holes[0].reason)
                depth = resize_depth(depth, (info.height, info.width))
        listing = ",".join(map(str, numbers))
        key = self.key if info.num_frames == 1 else f"{self.key}[{listing}]"
        meta: dict[str, Any] = {"path": str(self.file), "frames": numbers, "fps": self.fps}
        if holes:
            meta[HOLES] = tuple(holes)
        aligned = depth is None or depth.shape[-2:] == (info.height, info.width)
        return RGBDSample(key=key, rgb=rgb, depth=depth, label=self.label, meta=meta, aligned=aligned)

    def _read_depth(
        self, depth: DepthFrames, info: VideoInfo, numbers: Sequence[int]
    ) -> tuple[torch.Tensor | None, list[Hole]]:
        """(T, 1, h, w) at the size in which depth is stored, and the frames of a clip without it."""
        maps = depth.of_video(info.num_frames, self.file)
        found, holes = maps.read_clip(numbers) if info.num_frames > 1 else (maps.read(numbers), [])
        if found is not None:
            folder = info.backend == "frames"
            orientations = frame_orientations(self.file, numbers) if folder else [info.orientation] * len(numbers)
            maps.require_upright(orientations, (info.height, info.width), found)
            maps.require_same_view((info.height, info.width), found)
        return found, holes


@dataclass(frozen=True)
class ForwardFile(VideoFile):
    """A `VideoFile` whose file stays open between reads (`ForwardReader`, whose limits are its own), until `close`."""

    _open: list[ForwardReader] = field(default_factory=list, init=False, repr=False, compare=False)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        while self._open:
            self._open.pop().close()

    def _pictures(self, numbers: Sequence[int], info: VideoInfo) -> np.ndarray:
        if not self._open or self._open[0].info is not info:  # another file lies there since
            self.close()
            self._open.append(ForwardReader(self.file, info))
        return self._open[0].read(numbers)
