# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of videos behind one function: PyAV, else decord, else a folder of pictures.

Every call opens its own reader and closes it: readers shared between threads abort the process, and across fork they
hang. Frame numbers count what really decodes, in display order, from the first frame that does; frames are upright,
those of folders too, as their EXIF says.

A file is decoded or refused with a reason, never guessed. "auto" is PyAV, which reads all files that decord does, more
besides, and each of them faster (`benchmarks/data_loading.py`), and decord where PyAV is not installed. No backend
gives way to another for a file that it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors_m33d import ConfigError, CorruptFileError, MissingDependencyError, nearest_name_hint
from .picture_files_m33d import PICTURE_SUFFIXES, file_orientation, kinds_of, read_picture
from .video_decord_m33d import available as decord_available
from .video_decord_m33d import count_frames as count_decord_frames
from .video_decord_m33d import decode as decode_decord
from .video_decord_m33d import probe as probe_decord
from .video_decord_m33d import stamps as decord_stamps
from .video_decord_m33d import stamps_usable
from .video_decord_m33d import times as decord_times
from .video_index_m33d import VideoIndex
from .video_pyav_m33d import Cursor
from .video_pyav_m33d import available as pyav_available
from .video_pyav_m33d import decode as decode_pyav
from .video_scan_m33d import count_frames as count_pyav_frames
from .video_scan_m33d import scan as scan_pyav
from .video_times_m33d import FrameTimes, Lack

BACKENDS = ("auto", "decord", "pyav", "frames")
_NOT_FOR_DECORD = ("mpegts",)
FRAME_SUFFIXES = PICTURE_SUFFIXES
# What EXIF calls pictures that so many quarter turns, counter-clockwise, make upright.
_EXIF_OF_TURNS = (1, 8, 3, 6)


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Attributes:
        num_frames: frames that really decode, whatever the header says; a damaged one in the middle counts, and
            raises when it is read.
        fps: frames per second on average, by their time stamps where those can be trusted; None when unknown, as for a
            folder of pictures.
        height, width: pixels of the upright picture.
        backend: "decord", "pyav" or "frames": what reads it.
        index: where the frames of a file are; spares `read_video` a scan. None for folders and where nobody has looked.
        uneven: when the frames are shown, where that is not one every 1 / fps; None otherwise. See `times`.
        lacks: stretches that are missing, for all that is known, in the order of time: what the header announces beyond
            the last frame that decodes, holes between frames, frames at the start that do not decode.
    """

    num_frames: int
    fps: float | None
    height: int
    width: int
    backend: str
    index: VideoIndex | None = field(default=None, repr=False, compare=False)
    uneven: FrameTimes | None = field(default=None, repr=False, compare=False)
    lacks: tuple[Lack, ...] = field(default=(), repr=False, compare=False)

    @property
    def times(self) -> FrameTimes | None:
        """When each frame is shown, in seconds from the first one; None when unknown."""
        return self.uneven or (FrameTimes(self.num_frames, self.fps) if self.fps else None)

    @property
    def orientation(self) -> int:
        """EXIF's number for how the frames of a file are stored (3, 6 or 8 where it says to turn them); else 1.

        Frames are read upright. Pictures of a folder have each their own: `frame_orientations`.
        """
        return _EXIF_OF_TURNS[self.index.rotation] if self.index is not None else 1

    @property
    def incomplete(self) -> str:
        """What is missing, in words; empty where nothing is, as far as anybody knows."""
        return "; ".join(lack.reason for lack in self.lacks)


def probe_video(path: str | Path, backend: str = "auto") -> VideoInfo:
    """Look at a video: packets are scanned, its first and last frames decoded.

    Args:
        path: a file, or a folder of pictures (natural order of their names).
        backend: "auto", "decord", "pyav" or "frames".

    Raises:
        CorruptFileError: missing, empty, no video, or nothing decodes.
        ConfigError: an unknown backend.
        MissingDependencyError: the backend, or for "auto" every backend, is not installed.
    """
    return _inspect(Path(path), backend, counted=True)


def read_video(
    path: str | Path, indices: Sequence[int], backend: str = "auto", info: VideoInfo | None = None
) -> np.ndarray:
    """Read frames of a video.

    Args:
        path: a file, or a folder of pictures.
        indices: frame numbers from 0, in any order; they may repeat.
        backend: as for `probe_video`; ignored with `info`.
        info: of `probe_video` on the same file; spares looking at the file again.

    Returns:
        (T, H, W, 3) uint8 RGB, T = len(indices).

    Raises:
        IndexError: a number outside the video.
        CorruptFileError: a frame that does not decode, or what `probe_video` raises.
    """
    path = Path(path)
    info = _inspect(path, backend, counted=False) if info is None else _present(path, info)
    return _clip(path, info, indices, lambda numbers: _decode(path, info, numbers))


class ForwardReader:
    """`read_video` for who asks for later and later frames of one video: between two calls the file stays open.

    Opening a file and decoding from the start point before a frame, for every clip anew, costs several times what the
    frames of the clip do. Earlier frames can be asked for as well, at that price. Only PyAV goes on like this; other
    backends open the file in each call. Not to be shared by threads, nor to be taken across a fork while it is open.

    Args:
        path: a file, or a folder of pictures.
        info: of `probe_video` on it.
    """

    def __init__(self, path: str | Path, info: VideoInfo) -> None:
        self.path, self.info = Path(path), info
        self._cursor: Cursor | None = None

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB; see `read_video`, also for what is raised."""
        _present(self.path, self.info)
        try:
            return _clip(self.path, self.info, indices, self._frames)
        except Exception:
            self.close()  # what comes next is looked for anew
            raise

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        if self.info.backend != "pyav" or self.info.index is None:
            yield from _decode(self.path, self.info, numbers)
            return
        for number in numbers:
            if self._cursor is None or number <= self._cursor.passed:
                self.close()
                self._cursor = Cursor(self.path, self.info.index, (self.info.height, self.info.width))
            yield number, self._cursor.fetch(number)


def _clip(
    path: Path,
    info: VideoInfo,
    indices: Sequence[int],
    decoded: Callable[[Sequence[int]], Iterator[tuple[int, Any]]],
) -> np.ndarray:
    """(T, H, W, 3) uint8 of frames in any order; `decoded` gives those of ascending numbers, each once.

    Raises:
        IndexError: a number outside the video.
    """
    numbers = [int(index) for index in indices]
    for number in numbers:
        if not 0 <= number < info.num_frames:
            raise IndexError(f"{path}: frame {number} of a video of {info.num_frames} frames")
    clip = np.empty((len(numbers), info.height, info.width, 3), np.uint8)
    places: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        places.setdefault(number, []).append(place)
    for number, frame in decoded(sorted(places)):
        for place in places[number]:
            clip[place] = frame
    return clip


def iterate_video(
    path: str | Path,
    backend: str = "auto",
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    info: VideoInfo | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Go through a video of any length at constant memory.

    Args:
        path: a file, or a folder of pictures.
        backend: as for `probe_video`; ignored with `info`.
        start, stop, step: which frames, as in `range`; `stop` None or beyond the end is the end.
        info: of `probe_video` on the same file; spares walking through hours of it again.

    Yields:
        (frame number, (H, W, 3) uint8 RGB).

    Raises:
        ConfigError: a negative start or a step below 1.
        CorruptFileError: a frame that does not decode, or what `probe_video` raises.
    """
    if start < 0 or step < 1:
        raise ConfigError(f"start is {start} and step {step}; start must be at least 0 and step at least 1")
    path = Path(path)
    info = _inspect(path, backend, counted=True) if info is None else _present(path, info)
    end = info.num_frames if stop is None else min(stop, info.num_frames)
    yield from _decode(path, info, range(start, end, step))


def iterate_wanted(
    path: str | Path, wanted: Callable[[int], bool], start: int = 0, info: VideoInfo | None = None
) -> Iterator[tuple[int, np.ndarray | None]]:
    """`iterate_video` to the end for who needs some of the frames; damage shows in the others as well.

    Args:
        path: a file, or a folder of pictures.
        wanted: whether the pixels of a frame are; the others are not converted to RGB.
        start: the first frame.
        info: as for `iterate_video`.

    Yields:
        (frame number, (H, W, 3) uint8 RGB, or None where they are not wanted).

    Raises:
        ConfigError: a negative start.
        CorruptFileError: a frame that does not decode, or what `probe_video` raises.
    """
    if start < 0:
        raise ConfigError(f"start is {start}; it must be at least 0")
    path = Path(path)
    info = _inspect(path, "auto", counted=True) if info is None else _present(path, info)
    for number, frame in _decode(path, info, range(start, info.num_frames), wanted):
        yield number, frame if wanted(number) else None


def _present(path: Path, info: VideoInfo) -> VideoInfo:
    if not path.exists():
        raise CorruptFileError(path, "does not exist")
    return info


def _inspect(path: Path, backend: str, counted: bool) -> VideoInfo:
    if backend not in BACKENDS:
        hint = nearest_name_hint(str(backend), BACKENDS)
        raise ConfigError(f"video backend is {backend!r}; it must be one of {', '.join(BACKENDS)}.{hint}")
    if path.is_dir():
        if backend not in ("auto", "frames"):
            raise ConfigError(
                f"{path} is a folder of pictures; the backend must be 'frames' or 'auto', not {backend!r}"
            )
        return _inspect_folder(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise CorruptFileError(path, reason) from error
    if size == 0:
        raise CorruptFileError(path, "is empty (0 bytes)")
    if backend == "frames":
        raise ConfigError(f"{path} is a file; the backend 'frames' reads folders of pictures")
    if backend == "auto":
        backend = _installed()
    return _inspect_pyav(path, counted) if backend == "pyav" else _inspect_decord(path, counted)


def _installed() -> str:
    """The backend that "auto" is for files."""
    if pyav_available():
        return "pyav"
    if decord_available():
        return "decord"
    raise MissingDependencyError("reading videos requires PyAV or decord: pip install av, or pip install decord")


def _inspect_pyav(path: Path, counted: bool) -> VideoInfo:
    index, fps, (height, width) = scan_pyav(path)
    if counted or not index.whole:
        index = count_pyav_frames(path, index)
    return _info((height, width), "pyav", index, index.times(fps), counted)


def _inspect_decord(path: Path, counted: bool) -> VideoInfo:
    if pyav_available():
        index = scan_pyav(path)[0]
        if not index.whole:
            reason = (
                "its container is damaged, which can make decord abort the process; backend 'pyav' may read the rest"
            )
            raise CorruptFileError(path, reason)
        if index.container in _NOT_FOR_DECORD:
            raise CorruptFileError(path, "decord misnumbers the frames of transport streams; backend 'pyav' reads them")
    promised, fps, (height, width) = probe_decord(path)
    stamps = decord_stamps(path)
    if not pyav_available():
        announced = promised / fps if fps else None
        index = VideoIndex(promised, seekable_by_number=stamps_usable(stamps), announced=announced)
    count = promised
    if counted or not index.seekable_by_number:
        count = count_decord_frames(path, promised, index.seekable_by_number)
    times = index.times(fps) if len(index.pts) == count else decord_times(stamps[:count], fps)
    return _info((height, width), "decord", replace(index, count=count), times, counted)


def _info(size: tuple[int, int], backend: str, index: VideoIndex, times: FrameTimes | None, counted: bool) -> VideoInfo:
    """What is known of a file; what is missing can only be told where the end of it was decoded."""
    uneven = times if times is not None and times.starts is not None else None
    lacks = tuple(index.lacks(times)) if counted else ()
    return VideoInfo(index.count, times.fps if times else None, *size, backend, index, uneven, lacks)


def _decode(
    path: Path, info: VideoInfo, numbers: Sequence[int], wanted: Callable[[int], bool] | None = None
) -> Iterator[tuple[int, Any]]:
    """Frames in ascending order from the backend of `info`; not always the pixels of those that are not wanted."""
    size = (info.height, info.width)
    if info.backend == "frames":
        yield from _decode_folder(path, info, numbers)
    elif info.backend == "pyav":
        yield from decode_pyav(path, info.index or scan_pyav(path)[0], size, numbers, wanted)
    else:
        for number, frame in decode_decord(path, numbers, info.index is not None and info.index.seekable_by_number):
            if frame.shape[:2] != size:
                raise CorruptFileError(path, f"frame {number} is {frame.shape[:2]}, but the others are {size}")
            yield number, frame


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame10 comes after frame9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a frame folder in natural order of their names."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    return sorted((path for path in files if not path.name.startswith(".")), key=_natural)


def frame_orientations(folder: Path, numbers: Iterable[int]) -> list[int]:
    """EXIF's orientation of single pictures of a frame folder, 1 for upright; `read_video` returns them upright.

    Raises:
        CorruptFileError: a picture that cannot be read.
    """
    files = frame_files(folder)
    return [file_orientation(files[number]) for number in numbers]


def _inspect_folder(folder: Path) -> VideoInfo:
    files = frame_files(folder)
    if not files:
        there = kinds_of(folder.iterdir())
        raise CorruptFileError(folder, f"holds no pictures ({', '.join(FRAME_SUFFIXES)}); it holds {there}")
    height, width = read_picture(files[0])[0].shape[:2]
    return VideoInfo(len(files), None, height, width, "frames")


def _decode_folder(folder: Path, info: VideoInfo, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    files = frame_files(folder)
    if len(files) < info.num_frames:
        raise CorruptFileError(folder, f"holds {len(files)} pictures, but had {info.num_frames} before")
    for number in numbers:
        frame, _ = read_picture(files[number])
        if frame.shape[:2] != (info.height, info.width):
            found = f"{frame.shape[0]} x {frame.shape[1]}"
            raise CorruptFileError(files[number], f"is {found}, but the first picture is {info.height} x {info.width}")
        yield number, frame
