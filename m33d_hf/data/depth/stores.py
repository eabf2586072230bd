"""Storage of the depth frames of one video: numbered files in a folder, one Parquet file, one array, or one picture.

Each store answers two questions, `length` and `stored(numbers)`, opens its files for the call and closes them after it,
so that it may be pickled, forked and read from several processes at once.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from m33d_hf.data.depth.holes import frames_without_partner
from m33d_hf.data.files.array_files import MAX_UNPACKED, ArrayLayout, layout_of_file, parse_npy, parse_npz
from m33d_hf.data.files.files import MAP_SUFFIXES, read_map
from m33d_hf.data.files.json_objects import parse_json_object, read_json_object
from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, MissingDependencyError, decoding
from m33d_hf.modeling.depth_spec_m33d import choice
from m33d_hf.modeling.fields_m33d import Range, check_value
from m33d_hf.modeling.picture_files_m33d import loaded, opened, read_file

SCALE_FILE = "scale.json"
PNG_TEXT_KEY = "m33d_depth"
PARQUET_KEY = b"m33d_depth"
FRAME_SUFFIXES = tuple(suffix for suffix in MAP_SUFFIXES if suffix not in (".jpg", ".jpeg"))  # which are pictures
# What `extract_depth` records of a video; scale and offset alone where it is a picture.
_RECORD_KEYS = ("scale", "offset", "num_frames", "height", "width", "counts")
_MARKED = re.compile(r"[_.-](disp|disparity|depth)$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_CACHED_LISTINGS = 64  # a few bytes per frame and video; a worker seldom stays with more videos than that


_QUANTIZATION = {"scale": Range(low=1e-37, high=1e38), "offset": Range(low=-1e38, high=1e38)}


@dataclass(frozen=True)
class Quantization:
    """How stored integers become a model's values: stored / scale + offset; one for all frames of a video.

    Raises:
        ConfigError: a scale or an offset that is not a number or out of range (a scale must be above 0).
    """

    scale: float
    offset: float

    def __post_init__(self) -> None:
        for name, allowed in _QUANTIZATION.items():
            object.__setattr__(self, name, check_value(name, getattr(self, name), float, allowed))

    def to_dict(self) -> dict[str, float]:
        """JSON-ready; Python writes floats so that they come back exactly."""
        return {"scale": self.scale, "offset": self.offset}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Quantization:
        """Inverse of `to_dict`; the other keys of what `extract_depth` records are left alone.

        Raises:
            ConfigError: a missing or unknown key, or an error of the class.
        """
        for name in values:
            choice(name, _RECORD_KEYS, "a key of the depth scale")
        missing = [each.name for each in fields(cls) if each.name not in values]
        if missing:
            raise ConfigError(f"the depth scale has no {' and no '.join(missing)}")
        return cls(values["scale"], values["offset"])


class MissingFrameError(CorruptFileError):
    """A frame of a video for which nothing is stored; one that is there and cannot be decoded is a CorruptFileError."""


class DepthStore(Protocol):
    """The stored values of one video's depth frames.

    Those that know the number of each frame (`NUMBERED`) may lack some.
    """

    @property
    def length(self) -> int:
        """Number of frames, those missing in between included."""

    @property
    def quantization(self) -> Quantization | None:
        """The video's own scale; None if the data set's DepthSpec is sufficient."""

    def stored(self, frames: Sequence[int]) -> Sequence[np.ndarray] | np.ndarray:
        """(h, w) arrays of the given frames, counted from 0, as stored; or the same stacked.

        Raises:
            MissingFrameError: a missing frame, which is named. CorruptFileError: a frame that cannot be decoded.
            DataError: names or an array that make no sense.
        """


@dataclass(frozen=True)
class FolderStore:
    """One file per frame; the last number in a file's name is the frame's, `first_frame` the number of frame 0."""

    folder: Path
    first_frame: int | None = None

    @property
    def quantization(self) -> Quantization | None:
        """From scale.json where `extract_depth` wrote the folder."""
        record = _scale_record(self.folder)
        return None if record is None else Quantization.from_dict(record)

    @property
    def length(self) -> int:
        """From the first to the last number."""
        record = _scale_record(self.folder)
        if record is not None:
            return int(record["num_frames"])
        numbers = _numbered_files(self.folder, self.folder.stat().st_mtime_ns)
        return max(numbers) - self._first(numbers) + 1

    def of_video(self, num_frames: int) -> FolderStore | None:
        """The store whose frames are those of a video with so many; None if they are those of another.

        The numbers of files are those of frames. Some may be missing: in between, a few at the end
        (`frames_without_partner`), and at the beginning if it is known which number that has: `first_frame`, or by a
        last number that is that of the video's last frame counted from 1.

        Raises:
            DataError: numbers that leave open which frame is which.
        """
        if (record := _scale_record(self.folder)) is not None:
            return self if int(record["num_frames"]) == num_frames else None
        numbers = _numbered_files(self.folder, self.folder.stat().st_mtime_ns)
        lowest, highest, stated = min(numbers), max(numbers), self.first_frame
        candidates = [stated] if stated is not None else [0] if lowest == 0 else [0, 1]
        allowed = frames_without_partner(num_frames)
        fitting = [first for first in candidates if 0 <= num_frames - (highest + 1 - first) <= allowed]
        if len(fitting) > 1:
            raise DataError(
                f"{self.folder}: its numbers are {lowest} to {highest}, but the video has "
                f"{plural(num_frames, 'frame')}: some are missing, and it is unknown whether the first one is 0 or 1. "
                'Add "first_frame": 0 (or 1) to depth_spec.json.'
            )
        if fitting and lowest >= fitting[0]:
            return replace(self, first_frame=fitting[0])
        self._first(numbers)  # which refuses those that begin elsewhere
        return None

    def missing(self, num_frames: int) -> list[int]:
        """Frames of a video with so many that have no file; of a store that `of_video` made."""
        if _scale_record(self.folder) is not None:
            return [frame for frame in range(num_frames) if not (self.folder / frame_name(frame)).exists()]
        numbers = _numbered_files(self.folder, self.folder.stat().st_mtime_ns)
        first = self._first(numbers)
        return [frame for frame in range(num_frames) if frame + first not in numbers]

    def _first(self, numbers: dict[int, str]) -> int:
        lowest = min(numbers)
        if self.first_frame is None:
            if lowest in (0, 1):
                return lowest
            raise DataError(
                f"{self.folder}: the lowest frame number is {lowest} ({numbers[lowest]}), which is "
                'neither 0 nor 1. Add "first_frame": NUMBER, that of the video\'s first frame, to depth_spec.json.'
            )
        if lowest < self.first_frame:
            raise DataError(f"{self.folder}: {numbers[lowest]} comes before first_frame = {self.first_frame}.")
        return self.first_frame

    def stored(self, frames: Sequence[int]) -> list[np.ndarray]:
        """See `DepthStore`."""
        if (scale := self.quantization) is not None:
            files = [self.folder / frame_name(frame) for frame in frames]
            if (absent := next((file for file in files if not file.exists()), None)) is not None:
                raise MissingFrameError(self.folder, f"has no {absent.name}")
            return [_decode_frame(read_file(file), file, scale, f"{SCALE_FILE} beside it") for file in files]
        numbers = _numbered_files(self.folder, self.folder.stat().st_mtime_ns)
        first = self._first(numbers)
        maps = []
        for frame in frames:
            name = numbers.get(frame + first)
            if name is None:
                raise MissingFrameError(
                    self.folder,
                    f"no depth for frame {frame} (number {frame + first}; frame 0 has number {first}); there are "
                    f"{plural(len(numbers), 'file')}, numbers {min(numbers)} to {max(numbers)}.",
                )
            maps.append(_as_map(self.folder / name))
        return maps


@dataclass(frozen=True)
class ArrayStore:
    """One array (T, h, w), or (T, 1, h, w), in REL.npy (read frame by frame) or REL.npz (read whole each time)."""

    path: Path
    quantization: Quantization | None = None

    @property
    def length(self) -> int:
        """T."""
        try:
            state = self.path.stat()
        except OSError as error:
            raise CorruptFileError(self.path, f"cannot be read ({error.strerror or error})") from error
        return _array_length(self.path, state.st_mtime_ns, state.st_size)

    def stored(self, frames: Sequence[int]) -> np.ndarray:
        """See `DepthStore`."""
        array = self._mapped()
        if not all(0 <= frame < len(array) for frame in frames):
            raise MissingFrameError(
                self.path, f"no depth for frame {max(frames)}; it holds {plural(len(array), 'frame')}."
            )
        return np.array(array[list(frames)])

    def _mapped(self) -> np.ndarray:
        """The array; of an .npy the header is read once per file, for that takes as long as reading a clip."""
        if self.path.suffix == ".npz":
            return _as_video(self.path, parse_npz(self.path, read_file(self.path, MAX_UNPACKED)))
        try:
            state = self.path.stat()
            layout = _array_layout(self.path, state.st_mtime_ns, state.st_size)
            with self.path.open("rb") as file:
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CorruptFileError(self.path, f"cannot be read as an array ({error})") from error
        return _as_video(self.path, layout.array(held))


@dataclass(frozen=True)
class PictureStore:
    """One 16-bit PNG, or another format of maps: the depth of one image."""

    path: Path
    length: int = 1

    @property
    def quantization(self) -> Quantization | None:
        """From the PNG's text, where `extract_depth` put it."""
        return read_picture_scale(self.path)

    def stored(self, frames: Sequence[int]) -> list[np.ndarray]:
        """See `DepthStore`."""
        if any(frame != 0 for frame in frames):
            raise MissingFrameError(self.path, f"no depth for frame {max(frames)}; it is a single picture.")
        return [read_map(self.path)] * len(frames)


@dataclass(frozen=True)
class ParquetStore:
    """Columns `frame` (int32, from 0) and `png` (bytes of a 16-bit PNG); the scale is in the schema's metadata."""

    path: Path

    @property
    def quantization(self) -> Quantization | None:
        """From the metadata."""
        text = _parquet_index(self.path)[1]
        return None if text is None else Quantization.from_dict(_parsed(text, self.path))

    @property
    def length(self) -> int:
        """From frame 0 to the last."""
        return max(_parquet_index(self.path)[0]) + 1

    def of_video(self, num_frames: int) -> ParquetStore | None:
        """As that of `FolderStore`; frames are numbered from 0, and a file of ours misses none at the end."""
        allowed = 0 if self.quantization is not None else frames_without_partner(num_frames)
        return self if 0 <= num_frames - self.length <= allowed else None

    def missing(self, num_frames: int) -> list[int]:
        """Frames of a video with so many that have no row."""
        rows = _parquet_index(self.path)[0]
        return [frame for frame in range(num_frames) if frame not in rows]

    def stored(self, frames: Sequence[int]) -> list[np.ndarray]:
        """See `DepthStore`; reads only the row groups that hold the frames."""
        rows = _parquet_index(self.path)[0]
        for frame in frames:
            if frame not in rows:
                raise MissingFrameError(
                    self.path, f"no depth for frame {frame}; it holds {plural(len(rows), 'frame')}."
                )
        found: dict[int, np.ndarray] = {}
        scale = self.quantization
        with _open_parquet(self.path) as file:
            for group in sorted({rows[frame][0] for frame in frames}):
                with _reading_parquet(self.path):
                    column = file.read_row_group(group, columns=["png"]).column(0)
                for frame in {frame for frame in frames if rows[frame][0] == group}:
                    where = Path(f"{self.path}, frame {frame}")
                    found[frame] = _decode_frame(column[rows[frame][1]].as_py(), where, scale, "the file's metadata")
        return [found[frame] for frame in frames]


NUMBERED = (FolderStore, ParquetStore)
"""Stores in which every frame has its number, so that missing ones are known."""


def frame_name(frame: int) -> str:
    """File name of a frame in a folder written by us."""
    return f"{frame:06d}.png"


def read_picture_scale(path: Path) -> Quantization | None:
    """The scale that a PNG carries as text, None in a PNG that was not written by us.

    Raises:
        CorruptFileError: no readable header, or a text that is no scale.
    """
    if path.suffix.lower() != ".png":
        return None
    with opened(path, read_file(path)) as image:
        text = image.info.get(PNG_TEXT_KEY)
    return None if text is None else Quantization.from_dict(_parsed(text, path))


def _as_video(path: Path, array: np.ndarray) -> np.ndarray:
    """(T, h, w) of an array in a file."""
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "uif":
        raise DataError(f"{path}: expected numbers of shape (T, h, w), found {array.dtype} {array.shape}.")
    return array


@lru_cache(maxsize=4096)
def _array_length(path: Path, modified: int, size: int) -> int:
    """T, asked before every read; an .npz has to be unpacked for it."""
    return len(ArrayStore(path)._mapped())


@lru_cache(maxsize=4096)
def _array_layout(path: Path, modified: int, size: int) -> ArrayLayout:
    """Shape, type and first byte of an .npy."""
    return layout_of_file(path)


def _parsed(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        return _checked_record(parse_json_object(text))
    except ValueError as error:  # ConfigError is one
        raise CorruptFileError(path, f"its depth scale is unreadable ({error})") from error


def _checked_record(record: dict[str, Any]) -> dict[str, Any]:
    Quantization.from_dict(record)
    for name in ("num_frames", "height", "width"):
        if name in record:
            check_value(name, record[name], int, Range(low=1))
    return record


def _scale_record(folder: Path) -> dict[str, Any] | None:
    """scale.json of a folder written by us, None in any other folder."""
    path = folder / SCALE_FILE
    try:
        record = _checked_record(read_json_object(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CorruptFileError(path, f"its depth scale is unreadable ({error})") from error
    if "num_frames" not in record:
        raise CorruptFileError(path, "has no valid num_frames")
    return record


@lru_cache(maxsize=_CACHED_LISTINGS)
def _numbered_files(folder: Path, modified: int) -> dict[int, str]:
    """Frame number to file name; `modified` only tells a changed folder from the cached one.

    Files marked as depth (`0001_disp.npy`) are taken alone where there are any: the pictures may lie beside them.
    """
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES and p.name[0] != ".")
    names = [name for name in names if _MARKED.search(Path(name).stem)] or names
    suffixes = {Path(name).suffix.lower() for name in names}
    if len(suffixes) > 1:
        raise DataError(f"{folder}: depth frames as both {' and '.join(sorted(suffixes))}; keep only one kind.")
    numbers: dict[int, str] = {}
    for name in names:
        digits = _NUMBER.findall(Path(name).stem)
        if not digits:
            raise DataError(f"{folder / name}: no frame number in the name; expected names such as 000012.png.")
        if (number := int(digits[-1])) in numbers:
            raise DataError(f"{folder}: {numbers[number]} and {name} have the same frame number {number}.")
        numbers[number] = name
    if not numbers:
        raise DataError(f"{folder}: no depth frames ({', '.join(FRAME_SUFFIXES)}).")
    return numbers


def _as_map(path: Path) -> np.ndarray:
    """One frame's file; leading dimensions of 1, as monodepth2 writes, are dropped."""
    if path.suffix.lower() != ".npy":
        return read_map(path)
    array = parse_npy(path, read_file(path))
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind not in "uif":
        raise DataError(f"{path}: expected numbers of shape (h, w) or (1, 1, h, w), found {array.dtype} {array.shape}.")
    return array


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path} requires pyarrow, which comes with `pip install datasets`.") from error
    with _reading_parquet(path):
        return parquet.ParquetFile(path, page_checksum_verification=True)


def _reading_parquet(path: Path) -> AbstractContextManager[None]:
    return decoding(path, "cannot be read as Parquet")


@lru_cache(maxsize=_CACHED_LISTINGS)
def _parquet_index(path: Path) -> tuple[dict[int, tuple[int, int]], bytes | None]:
    """(frame -> (row group, row in it), scale text) of one file."""
    rows: dict[int, tuple[int, int]] = {}
    with _open_parquet(path) as file:
        missing = {"frame", "png"} - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{path}: no column {' or '.join(sorted(missing))}; columns are {file.schema_arrow.names}.")
        for group in range(file.num_row_groups):
            with _reading_parquet(path):
                numbers = [int(frame) for frame in file.read_row_group(group, columns=["frame"]).column(0).to_pylist()]
            rows.update({frame: (group, row) for row, frame in enumerate(numbers)})
        metadata = file.schema_arrow.metadata or {}
    if not rows:
        raise DataError(f"{path}: no rows.")
    return rows, metadata.get(PARQUET_KEY)


def _decode_frame(data: bytes, where: Path, expected: Quantization | None, record: str) -> np.ndarray:
    """A frame that was written here, with the checks that a file of its own gets.

    Every frame carries the scale of its video too: where the two differ, one of them is damaged, and nothing else would
    tell that.
    """
    with opened(where, data) as image:
        values, _ = loaded(image)
        text = image.info.get(PNG_TEXT_KEY)
    own = None if text is None else Quantization.from_dict(_parsed(text, where))
    if own is not None and own != expected:
        said = "nothing" if expected is None else f"scale {expected.scale:g}, offset {expected.offset:g}"
        raise CorruptFileError(
            where,
            f"was stored with scale {own.scale:g}, offset {own.offset:g}, and {record} says {said}: one of them is "
            "damaged. Extract the depth again (scripts/extract_depth.py)",
        )
    return values.astype(np.uint16) if values.dtype == np.int32 else values
