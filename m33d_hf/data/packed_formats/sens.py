"""ScanNet's `.sens` recordings: colour, depth and camera poses of a scan in one file, read frame by frame.

Little-endian, as the data set's SensorData tools write it: a header with both cameras, then for every frame its pose
(camera to world), two timestamps, the sizes of the two compressed pictures and the pictures; at the end, readings of
the inertial sensor, which are not read. The offset of each picture is found by stepping from frame to frame, once per
file, and cached under `$M33D_CACHE/sens` (`~/.cache/m33d_hf/sens`).
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.data.files.cache_folder import cache_folder
from m33d_hf.data.plural import plural
from m33d_hf.errors import CorruptFileError, decoding
from m33d_hf.modeling.picture_files_m33d import check_pixels, decode_picture, file_size

logger = logging.getLogger(__name__)

VERSION = 4
STREAMS = ("color", "depth")
_COLOR_KINDS = {0: "raw", 1: "PNG", 2: "JPEG"}
_DEPTH_KINDS = {0: "raw", 1: "zlib", 2: "occi"}
_MATRICES = ("color_intrinsic", "color_extrinsic", "depth_intrinsic", "depth_extrinsic")
_AFTER_NAME = struct.Struct("<64f 2i 4I f Q")
_FRAME = struct.Struct("<16f 4Q")
_LONGEST_NAME = 4096
_MOST_FRAMES = 10**8


@dataclass(frozen=True)
class SensHeader:
    """The header of a recording.

    Attributes:
        sensor: name of the device.
        matrices: 4 x 4 each, row by row: color_intrinsic, color_extrinsic, depth_intrinsic, depth_extrinsic. An
            intrinsic holds fx, fy, cx, cy in pixels of its own stream.
        color_kind, depth_kind: compression of the pictures: JPEG, PNG or raw; zlib, occi or raw.
        color_size, depth_size: (height, width).
        depth_shift: stored value / depth_shift = metres.
        num_frames: as stated in the header.
    """

    sensor: str
    matrices: dict[str, tuple[float, ...]]
    color_kind: str
    depth_kind: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    num_frames: int


@dataclass(frozen=True)
class SensIndex:
    """A recording's header and the offsets of its frames.

    Attributes:
        header: see `SensHeader`.
        places: (frames, 4) int64: offset and number of bytes of the colour picture, then of the depth map.
        lack: what is missing of the frames in the header; None for a complete file.
    """

    header: SensHeader
    places: np.ndarray
    lack: str | None

    @property
    def num_frames(self) -> int:
        """Number of frames in the file."""
        return len(self.places)


def read_index(path: Path | str) -> SensIndex:
    """Header and frame offsets of a recording, from the cache if it has been read before.

    A file that ends early, or has impossible lengths, is read up to that frame, which `lack` states.

    Raises:
        CorruptFileError: missing, not a `.sens` of version 4, a damaged header, or no complete frame.
    """
    path = Path(path)
    file_size(path)  # raises a clear error if it is not a file
    state = path.stat()
    return _index(path, state.st_size, state.st_mtime_ns)


# All of ScanNet's 1,513 scans, of which frames are drawn at random: 50 kB each.
@lru_cache(maxsize=2048)
def _index(path: Path, size: int, modified: int) -> SensIndex:
    with _opened(path) as file:
        header, begin = _header(path, file, size)
    kept = _cache_file(path, size, modified)
    found = _load(kept, header)
    if found is None:
        with _opened(path) as file:
            found = _scan(path, file, size, header, begin)
        _keep(kept, found)
    if not found.num_frames:
        raise CorruptFileError(path, f"has no complete frame: {found.lack}")
    return found


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error


def _header(path: Path, file: BinaryIO, size: int) -> tuple[SensHeader, int]:
    """The header, and the offset of the first frame."""
    version, length = struct.unpack("<IQ", _bytes(path, file, 12))
    if version != VERSION:
        raise CorruptFileError(path, f"is not a ScanNet recording of version {VERSION} (its first number is {version})")
    if length > min(_LONGEST_NAME, size):
        raise CorruptFileError(path, f"its header claims a sensor name of {length:,} bytes, but the file has {size:,}")
    sensor = _bytes(path, file, length).decode("utf-8", "replace")
    values = _AFTER_NAME.unpack(_bytes(path, file, _AFTER_NAME.size))
    matrices = {name: tuple(values[16 * i : 16 * i + 16]) for i, name in enumerate(_MATRICES)}
    color, depth, color_width, color_height, depth_width, depth_height, shift, frames = values[64:]
    for what, kind, known in (("colour", color, _COLOR_KINDS), ("depth", depth, _DEPTH_KINDS)):
        if kind not in known:
            raise CorruptFileError(path, f"its {what} compression is {kind}, but must be one of {known}")
    if color_height * color_width:  # depth alone is allowed
        check_pixels(path, color_height, color_width)
    check_pixels(path, depth_height, depth_width)
    if not (np.isfinite(shift) and shift > 0):
        raise CorruptFileError(path, f"its depth shift is {shift}; it must be above 0 (stored value / shift = metres)")
    if frames > _MOST_FRAMES:
        raise CorruptFileError(path, f"its header claims {frames:,} frames; at most {_MOST_FRAMES:,} are supported")
    header = SensHeader(
        sensor,
        matrices,
        _COLOR_KINDS[color],
        _DEPTH_KINDS[depth],
        (color_height, color_width),
        (depth_height, depth_width),
        float(shift),
        int(frames),
    )
    return header, file.tell()


def _bytes(path: Path, file: BinaryIO, count: int) -> bytes:
    try:
        data = file.read(count)
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error
    if len(data) < count:
        raise CorruptFileError(path, f"ends in the middle of its header ({file.tell():,} bytes)")
    return data


def _scan(path: Path, file: BinaryIO, size: int, header: SensHeader, begin: int) -> SensIndex:
    """Step from frame to frame; payloads are skipped."""
    places, lack, at = [], None, begin
    for number in range(header.num_frames):
        try:
            file.seek(at)
            data = file.read(_FRAME.size)
        except OSError as error:
            raise CorruptFileError(path, f"cannot be read at byte {at:,} ({error})") from error
        if len(data) < _FRAME.size:
            lack = f"it ends before frame {number} of {header.num_frames}"
            break
        *_, color_bytes, depth_bytes = _FRAME.unpack(data)
        start = at + _FRAME.size
        if color_bytes + depth_bytes > size - start:
            claimed = f"{color_bytes:,} bytes of colour and {depth_bytes:,} of depth"
            lack = f"frame {number} of {header.num_frames} claims {claimed}, but only {size - start:,} are left"
            break
        places.append((start, color_bytes, start + color_bytes, depth_bytes))
        at = start + color_bytes + depth_bytes
    return SensIndex(header, np.array(places, np.int64).reshape(-1, 4), lack)


def _cache_file(path: Path, size: int, modified: int) -> Path:
    name = hashlib.sha256(f"{path.resolve()}\n{size}\n{modified}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return cache_folder("sens") / f"{path.stem}-{name}.npz"


def _load(kept: Path, header: SensHeader) -> SensIndex | None:
    """The index from an earlier run; None if it is missing or damaged (zip's checksums detect this)."""
    if not kept.is_file():
        return None
    try:
        with decoding(kept), np.load(kept, allow_pickle=False) as held:
            places, lack = held["places"], held["lack"]
    except CorruptFileError as error:
        logger.warning("%s; it is built again", error)
        return None
    return SensIndex(header, places, str(lack) or None) if places.shape[1:] == (4,) else None


def _keep(kept: Path, index: SensIndex) -> None:
    def write(temporary: Path) -> None:
        np.savez(temporary, places=index.places, lack=np.array(index.lack or ""))

    try:
        write_atomically(kept, write)
    except OSError as error:  # without a cache, only time is lost
        logger.info("the index of frames cannot be cached in %s (%s)", kept.parent, error)


def read_track(file: Path | str, number: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the camera stood when a frame was taken, and when: ((4, 4) float32 camera to world, infinite where tracking
    was lost; time stamps of colour and depth in the device's own unit).

    Raises:
        CorruptFileError: the file cannot be read, or has no such frame.
    """
    file = Path(file)
    index = read_index(file)
    where = Path(f"{file}#{number}")
    if not 0 <= number < index.num_frames:
        raise CorruptFileError(where, f"does not exist: there are {plural(index.num_frames, 'frame')}")
    data = _read_bytes(file, where, int(index.places[number, 0]) - _FRAME.size, _FRAME.size)
    *pose, color_time, depth_time, _, _ = _FRAME.unpack(data)
    return np.array(pose, np.float32).reshape(4, 4), (color_time, depth_time)


def read_frame(file: Path, stream: str, number: int) -> np.ndarray:
    """(H, W, 3) uint8 of a colour picture, (H, W) uint16 of a depth map as stored (see `SensHeader.depth_shift`).

    Raises:
        CorruptFileError: the file, or this frame of it, cannot be read, or its depth is compressed with occi.
    """
    index = read_index(file)
    where = Path(f"{file}#{stream}-{number}")
    if stream not in STREAMS or not 0 <= number < index.num_frames:
        raise CorruptFileError(
            where, f"does not exist: there are {plural(index.num_frames, 'frame')} of {' and '.join(STREAMS)}"
        )
    at, count = (int(value) for value in index.places[number, 2 * STREAMS.index(stream) :][:2])
    data = _read_bytes(file, where, at, count)
    return _color(where, data, index.header) if stream == "color" else _depth(where, data, index.header)


def _read_bytes(file: Path, where: Path, at: int, count: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(at)
            data = opened.read(count)
    except OSError as error:
        raise CorruptFileError(where, f"cannot be read ({error})") from error
    if len(data) < count:
        raise CorruptFileError(where, f"has {len(data):,} of {count:,} bytes: the file was truncated")
    return data


def _color(where: Path, data: bytes, header: SensHeader) -> np.ndarray:
    height, width = header.color_size
    if header.color_kind == "raw":
        pixels = _array(where, data, np.uint8, (height, width, 3))
    else:
        pixels, _ = decode_picture(where, data)
    if pixels.shape[:2] != (height, width):
        raise CorruptFileError(where, f"is {pixels.shape[0]}x{pixels.shape[1]}, but the header states {height}x{width}")
    return np.require(pixels, requirements=["C", "W"])


def _depth(where: Path, data: bytes, header: SensHeader) -> np.ndarray:
    if header.depth_kind == "occi":
        raise CorruptFileError(
            where, "its depth is compressed with occi, which is not supported; export it with ScanNet's own tools"
        )
    if header.depth_kind == "zlib":
        expected = 2 * header.depth_size[0] * header.depth_size[1]
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(data, expected + 1)
        except zlib.error as error:
            raise CorruptFileError(where, f"its depth cannot be decompressed ({error})") from error
        if not unpacking.eof:
            raise CorruptFileError(where, "its compressed depth is truncated, or too long for its size")
    return _array(where, data, np.dtype("<u2"), header.depth_size)


def _array(where: Path, data: bytes, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = np.frombuffer(data, np.uint8)
    if len(values) != np.dtype(kind).itemsize * int(np.prod(shape)):
        raise CorruptFileError(where, f"has {len(values):,} bytes after decompression, which do not fit {shape}")
    return values.view(kind).reshape(shape).astype(np.dtype(kind).newbyteorder("="), copy=True)


def frame_size(file: Path, stream: str, number: int) -> tuple[int, int]:
    """(height, width) of a frame, by the header.

    Raises:
        CorruptFileError: the file cannot be read.
    """
    header = read_index(file).header
    return header.color_size if stream == "color" else header.depth_size
