"""Frames whose picture is a frame of a video beside a folder of depth, as Stray Scanner records them.

In a `Frame`, such a picture is written `FILE#NUMBER`, numbers from 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m33d_hf.data.files.packed import file_of
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES, cached_info
from m33d_hf.modeling.video_reading_m33d import read_video


def video_frame(file: str, number: int) -> str:
    """The name of a frame of a video."""
    return f"{file}#{number}"


def video_of(file: str) -> str:
    """The file that has to be there for `file`: the video or the recording that a frame lies in, else itself."""
    return file.rpartition("#")[0] if is_video_frame(file) else file_of(file)


def is_video_frame(file: str) -> bool:
    """Whether `file` names a frame of a video."""
    video, mark, number = file.rpartition("#")
    return bool(mark) and number.isdecimal() and video.lower().endswith(VIDEO_SUFFIXES)


def video_frame_size(root: Path, file: str) -> tuple[int, int, int]:
    """(height, width, orientation) of a frame of a video: upright, and EXIF's number for how the file stores it.

    Raises:
        CorruptFileError: the video cannot be read.
    """
    info = cached_info(root / video_of(file))
    return info.height, info.width, info.orientation


def read_video_frames(root: Path, files: Sequence[str | None]) -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 of those of `files` that are frames of videos, each video opened once.

    Raises:
        CorruptFileError: a video, or a frame of it, cannot be read.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file is not None and is_video_frame(file):
            wanted[video_of(file)].append(file)
    found: dict[str, np.ndarray] = {}
    for video, names in wanted.items():
        numbers = [int(name.rpartition("#")[2]) for name in names]
        found.update(zip(names, read_video(root / video, numbers, info=cached_info(root / video))))
    return found
