"""Maps in TIFF files: 8 to 64 bits a pixel, whole numbers or floating point, values as stored.

Uncompressed and deflated files are decoded here: Pillow knows neither half nor double precision, reads unsigned 32-bit
numbers as signed ones, swaps the bytes of compressed big-endian floats twice, and does not verify the checksum of
deflated data. Other compressions (LZW, PackBits and so on) are left to Pillow where it reads them correctly.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from m33d_hf.errors import CorruptFileError, DataError, decoding
from m33d_hf.modeling.picture_files_m33d import check_pixels, loaded, opened, turned_upright

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _STRIP_BYTES, _ROWS, _ORIENTATION, _SAMPLES = 273, 279, 278, 274, 277
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT = 317, 322, 323, 324, 325, 339
_FILL_ORDER = 266
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # the only ones that the tags above have
_NONE, _DEFLATE = (1,), (8, 32946)
_KINDS = {1: "u", 2: "i", 3: "f"}
_WHITE_IS_ZERO = 0
_MAX_ENTRIES = 4096

Tags = dict[int, tuple[int, ...]]


def read_tiff_map(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """((H, W) upright values as stored, orientation of the stored ones) of a TIFF with one channel.

    Raises:
        CorruptFileError: damaged, truncated, with several pages, or of a kind that cannot be read correctly.
        DataError: several channels.
    """
    order = _order(data)
    tags = _tags(path, data, order)
    if tags.get(_PHOTOMETRIC, (1,))[0] == _WHITE_IS_ZERO:
        raise CorruptFileError(
            path,
            "is a TIFF that stores white as zero, so its values are inverted; save it with black as zero",
        )
    samples = tags.get(_SAMPLES, (1,))[0]
    if samples != 1:
        raise DataError(f"{path}: expected one value per pixel, found {samples} channels.")
    bits, kind = tags.get(_BITS, (1,))[0], _KINDS.get(tags.get(_FORMAT, (1,))[0])
    if tags.get(_COMPRESSION, _NONE)[0] not in (*_NONE, *_DEFLATE) or bits < 8 or tags.get(_FILL_ORDER, (1,)) != (1,):
        if order == ">" and (bits > 16 or _is_big(data)):
            raise CorruptFileError(
                path,
                "is a compressed big-endian TIFF (BigTIFF, or more than 16 bits), which "
                "cannot be read; save it with deflate compression",
            )
        return _by_pillow(path, data)
    if kind is None or bits not in (8, 16, 32, 64) or (kind, bits) == ("f", 8):
        raise CorruptFileError(
            path, f"is a TIFF of {bits} bits in the format {tags.get(_FORMAT)}, which cannot be read"
        )
    values = _decode(path, data, tags, np.dtype(f"{order}{kind}{bits // 8}"))
    orientation = _orientation(tags)
    return turned_upright(values, orientation), orientation


def tiff_size(path: Path, data: bytes) -> tuple[int, int, int]:
    """(height, width, orientation) of a TIFF, map or picture; height and width are those of the upright one.

    Raises:
        CorruptFileError: no readable header, or a size that no picture has.
    """
    tags = _tags(path, data, _order(data))
    height, width = _size(path, tags)
    orientation = _orientation(tags)
    return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def _is_big(data: bytes) -> bool:
    """Whether this is BigTIFF, whose offsets have 64 bits."""
    return 43 in data[2:4]


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _orientation(tags: Tags) -> int:
    value = tags.get(_ORIENTATION, (1,))[0]
    return value if value in range(1, 9) else 1


def _size(path: Path, tags: Tags) -> tuple[int, int]:
    if not {_WIDTH, _HEIGHT} <= set(tags):
        raise CorruptFileError(path, "is a TIFF whose header states no width or height")
    height, width = tags[_HEIGHT][0], tags[_WIDTH][0]
    check_pixels(path, height, width)
    return height, width


def _by_pillow(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    with opened(path, data) as image:
        if image.mode not in ("1", "L", "P", "I", "F", "I;16", "I;16B", "I;16L"):
            raise DataError(f"{path}: expected one value per pixel, found a TIFF of Pillow mode {image.mode}.")
        values, orientation = loaded(image)
        unsigned = image.mode == "I" and image.tag_v2.get(_FORMAT, (1,))[0] == 1  # type: ignore[attr-defined]
        return values.view(np.uint32) if unsigned else values, orientation


def _tags(path: Path, data: bytes, order: str) -> Tags:
    """The whole-number tags of the only page."""
    with decoding(path, "has no readable TIFF header"):
        # BigTIFF has 64 bits for places and lengths, its value lies further behind, and so do entries.
        big = _is_big(data)
        number, counts, room = ("Q", "Q", 8) if big else ("I", "H", 4)
        first, entry_bytes = struct.calcsize(counts), 4 + 2 * room
        (at,) = struct.unpack_from(f"{order}{number}", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{counts}", data, at)
        tags: Tags = {}
        for entry in range(min(count, _MAX_ENTRIES)):
            start = at + first + entry_bytes * entry
            tag, kind, length = struct.unpack_from(f"{order}HH{number}", data, start)
            if kind not in _TYPES:
                continue
            size = struct.calcsize(_TYPES[kind]) * length
            if size > len(data):
                raise CorruptFileError(path, f"truncated TIFF: tag {tag} claims {length:,} values")
            value = start + 4 + room
            place = value if size <= room else struct.unpack_from(f"{order}{number}", data, value)[0]
            tags[tag] = struct.unpack_from(f"{order}{length}{_TYPES[kind]}", data, place)
        (following,) = struct.unpack_from(f"{order}{number}", data, at + first + entry_bytes * count)
    if following:
        raise CorruptFileError(path, "holds several pages; expected one per frame")
    if any(not values for values in tags.values()):
        raise CorruptFileError(path, "has a TIFF tag without a value")
    return tags


def _decode(path: Path, data: bytes, tags: Tags, dtype: np.dtype) -> np.ndarray:
    """Strips or tiles, one below or beside the other."""
    height, width = _size(path, tags)
    tiled = _TILES in tags
    if tiled:
        block = tags.get(_TILE_HEIGHT, (0,))[0], tags.get(_TILE_WIDTH, (0,))[0]
    else:
        block = min(tags.get(_ROWS, (height,))[0], height), width
    check_pixels(path, *block)
    across, down = -(-width // block[1]), -(-height // block[0])
    offsets = tags.get(_TILES if tiled else _STRIPS, ())
    lengths = tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if len(offsets) != across * down or len(lengths) != len(offsets):
        raise CorruptFileError(path, f"has {len(offsets)} strips or tiles, but its size requires {across * down}")
    values = np.empty((height, width), dtype.newbyteorder("="))
    for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        top, left = number // across * block[0], number % across * block[1]
        rows = block[0] if tiled else min(block[0], height - top)
        stored = _unpacked(path, data, offset, length, tags, rows * block[1] * dtype.itemsize)
        part = _undo_predictor(path, stored, (rows, block[1]), dtype, tags)
        values[top : top + rows, left : left + block[1]] = part[: height - top, : width - left]
    return values


def _unpacked(path: Path, data: bytes, offset: int, length: int, tags: Tags, size: int) -> bytes:
    """`size` bytes of a strip or tile."""
    packed = data[offset : offset + length]
    if len(packed) < length:
        raise CorruptFileError(path, f"truncated TIFF: {len(data)} of {offset + length} bytes")
    if tags.get(_COMPRESSION, _NONE)[0] in _NONE:
        stored = packed
    else:
        with decoding(path):
            inflater = zlib.decompressobj()
            stored = inflater.decompress(packed, size + 1)
        if not inflater.eof:
            raise CorruptFileError(path, "a strip or tile of the TIFF has more data than it should")
    if len(stored) != size:
        raise CorruptFileError(path, f"a strip or tile of the TIFF has {len(stored)} bytes instead of {size}")
    return stored


def _undo_predictor(path: Path, stored: bytes, shape: tuple[int, int], dtype: np.dtype, tags: Tags) -> np.ndarray:
    """(rows, columns) values of a strip or tile whose rows may be stored as differences."""
    predictor = tags.get(_PREDICTOR, (1,))[0]
    if predictor == 1:
        return np.frombuffer(stored, dtype).reshape(shape)
    if predictor == 2:
        # Differences of whole numbers, even where these are the bits of a float.
        whole = np.dtype(f"{dtype.byteorder}u{dtype.itemsize}")
        differences = np.frombuffer(stored, whole).reshape(shape)
        return np.cumsum(differences, axis=1, dtype=whole.newbyteorder("=")).view(dtype.newbyteorder("="))
    if predictor == 3 and dtype.kind == "f":
        # Differences of single bytes; all first bytes of a row, the most significant ones, then all second, and so on.
        planes = np.cumsum(np.frombuffer(stored, np.uint8).reshape(shape[0], -1), axis=1, dtype=np.uint8)
        planes = planes.reshape(shape[0], dtype.itemsize, shape[1]).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))[..., 0]
    raise CorruptFileError(path, f"is a TIFF with predictor {predictor} on {dtype} values, which cannot be read")
