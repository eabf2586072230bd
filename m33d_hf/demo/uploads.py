"""What visitors drop on the page, read within bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from m33d_hf.data.files.files import load_map
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.depth_input_m33d import decoded
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.picture_files_m33d import PICTURE_SUFFIXES, read_picture
from m33d_hf.modeling.video_reading_m33d import VideoInfo, probe_video

LONGEST_SIDE = 1280  # of a picture, in pixels: results are kept in memory, and drawn, at this size
LONGEST_VIDEO = 10_000  # frames: everybody else waits meanwhile


def read_upload(path: str) -> tuple[np.ndarray, str]:
    """((H, W, 3) uint8 RGB, upright; a note for the visitor, or "").

    Raises:
        DataError: no picture, a broken one, or 16 bits of grey, which is depth mostly.
    """
    try:
        pixels, _ = read_picture(Path(path))
    except CorruptFileError as error:
        raise DataError(
            f"{Path(path).name} cannot be used as a picture ({error.reason}). Drop one of "
            f"{', '.join(PICTURE_SUFFIXES)}."
        ) from error
    height, width = pixels.shape[:2]
    if max(height, width) <= LONGEST_SIDE:
        return np.ascontiguousarray(pixels), ""
    factor = LONGEST_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    note = f"The picture of {width} x {height} was reduced to {size[0]} x {size[1]}; predict.py keeps its size."
    return np.asarray(smaller), note


def read_depth_upload(path: str, size: tuple[int, int], unit: str | None) -> np.ndarray:
    """(H, W): float32 metres, NaN where unknown, where a unit is given; otherwise as stored.

    Args:
        path: PNG of 16 bits, NPY, ..
        size: (H, W) of its picture, to which the map is brought (nearest values).
        unit: of a `DepthSpec`.

    Raises:
        DataError: no map, or one of another shape than the picture.
    """
    try:
        values = load_map(path).values
    except CorruptFileError as error:
        raise DataError(f"{Path(path).name} cannot be used as a depth map ({error.reason}).") from error
    return _fitted(Path(path).name, values, size, unit)


def _fitted(name: str, values: np.ndarray, size: tuple[int, int], unit: str | None) -> np.ndarray:
    ratio = (values.shape[1] / values.shape[0]) / (size[1] / size[0])
    if abs(ratio - 1) > 0.02:
        raise DataError(
            f"{name} has {values.shape[1]} x {values.shape[0]} values, the picture {size[1]} x {size[0]} "
            "pixels: they do not show the same."
        )
    rows, columns = ((np.arange(there) * have) // there for there, have in zip(size, values.shape, strict=True))
    values = values[rows[:, None], columns]
    return values if unit is None else decoded(values, DepthSpec(unit=unit).to_dict())


def read_clip_depth(paths: Sequence[str], frames: int, size: tuple[int, int], unit: str | None) -> np.ndarray:
    """(T, H, W): the depth of every frame of a video, see `read_depth_upload`.

    Args:
        paths: one file for each frame, which are taken in the order of their names, numbers by their value; or one NPY
            file (T, H, W).
        frames: T.
        size: (H, W) of the video.
        unit: of a `DepthSpec`.

    Raises:
        DataError: no maps, or another number of them than the video has frames.
    """
    if len(paths) == 1 and Path(paths[0]).suffix.lower() == ".npy":
        stack = _stack(Path(paths[0]))
        if len(stack) != frames:
            raise DataError(f"{Path(paths[0]).name} holds {plural(len(stack), 'map')}, the video {frames} frames.")
        return np.stack([_fitted(Path(paths[0]).name, values, size, unit) for values in stack])
    if len(paths) != frames:
        raise DataError(
            f"{plural(len(paths), 'depth map')} {agree(len(paths), 'was', 'were')} given, the video "
            f"has {frames} frames: drop one for each frame."
        )
    return np.stack([read_depth_upload(path, size, unit) for path in sorted(paths, key=_in_order)])


def _stack(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path.name} cannot be used as depth maps (it is no NPY file of numbers).") from error
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise DataError(f"{path.name} holds {values.dtype} of shape {values.shape}; maps of a video are (T, H, W).")
    return values


def _in_order(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", Path(path).stem)]


def check_video(path: str) -> VideoInfo:
    """What a video holds.

    Raises:
        DataError: no video, a broken one, or one that is too long for a page that others wait for.
    """
    try:
        info = probe_video(path)
    except CorruptFileError as error:
        raise DataError(
            f"{Path(path).name} cannot be used as a video ({error.reason}). Drop one of {', '.join(VIDEO_SUFFIXES)}."
        ) from error
    if info.num_frames > LONGEST_VIDEO:
        raise DataError(
            f"{Path(path).name} has {info.num_frames:,} frames; this page takes up to {LONGEST_VIDEO:,}. Use "
            "predict.py for longer ones."
        )
    return info
