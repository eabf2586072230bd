"""Reads one picture, depth map or label map from JPEG, PNG, PGM / PPM or NPY, exactly, or says why it cannot.

Image libraries forgive a lot: a JPEG that ends early becomes grey at the bottom, a PGM with an unusual
maximum is rescaled, a palette is turned into colours. Here the file's end and checksums are looked at first,
and label and depth values come back as they were stored.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from m33d_hf.errors import CorruptFileError, DataError

RGB_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".npy")
MAP_SUFFIXES = (".png", ".pgm", ".npy", ".jpg", ".jpeg")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Pillow modes that hold one exact number per pixel ("P" holds palette indices, which is what a label is).
_MAP_MODES = ("1", "L", "P", "I", "F", "I;16", "I;16B", "I;16L")
_ALPHA_MODES = ("LA", "RGBA")


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error
    if not data:
        raise CorruptFileError(path, "is empty (0 bytes)")
    return data


def _check_png(path: Path, data: bytes) -> None:
    """Walk the chunks: every checksum right, the last one there. Pillow checks neither for image data."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        kind = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != checksum:
            raise CorruptFileError(path, f"PNG chunk {kind.decode('latin-1')!r} has a wrong checksum")
        if kind == b"IEND":
            return
        position = end
    raise CorruptFileError(path, f"truncated PNG: ends after {len(data)} bytes without its end chunk")


def _check_jpeg(path: Path, data: bytes) -> None:
    """Step over the header segments (they may hold a whole thumbnail), then ask for the end marker."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise CorruptFileError(path, f"JPEG segment expected at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
        if marker == 0xDA:
            if data.rfind(b"\xff\xd9", position) >= 0:  # from behind, where it lies
                return
            break
    raise CorruptFileError(path, f"truncated JPEG: ends after {len(data)} bytes without its end marker")


def _read_netpbm(path: Path, data: bytes) -> np.ndarray:
    """PGM / PPM (P2, P3, P5, P6), values as stored: (H, W) or (H, W, 3), uint8 or uint16."""
    comments = rb"(?:#[^\n]*\n)*"
    pattern = rb"P([2356])\s+%b(\d+)\s+%b(\d+)\s+%b(\d+)\s" % (comments, comments, comments)
    header = re.match(pattern, data)
    if header is None:
        raise CorruptFileError(path, "not a PGM or PPM header")
    kind = int(header[1])
    width, height, maximum = (int(header[i]) for i in (2, 3, 4))
    if not (0 < maximum < 65536) or width < 1 or height < 1:
        raise CorruptFileError(path, f"PGM header claims {width}x{height} with maximum {maximum}")
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    count = int(np.prod(shape))
    if kind in (2, 3):
        values = np.array(data[header.end() :].split()[:count], dtype=np.int64)
    else:
        dtype = np.dtype(">u2" if maximum > 255 else "u1")
        values = np.frombuffer(data[header.end() : header.end() + count * dtype.itemsize], dtype)
    if values.size < count:
        raise CorruptFileError(path, f"truncated PGM: {values.size} of {count} values")
    return values.reshape(shape).astype(np.uint16 if maximum > 255 else np.uint8)


def _read_npy(path: Path, data: bytes) -> np.ndarray:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb":
        raise CorruptFileError(path, "does not hold one array of real numbers")
    return array


def _decode(path: Path, colour: bool) -> np.ndarray:
    """The stored values of any known format; with `colour`, Pillow's 8-bit RGB of a picture."""
    data = _read_bytes(path)
    try:
        if path.suffix.lower() == ".npy":
            return _read_npy(path, data)
        if re.match(rb"P[2356]\s", data):
            return _read_netpbm(path, data)
        if data.startswith(_PNG_SIGNATURE):
            _check_png(path, data)
        elif data.startswith(b"\xff\xd8"):
            _check_jpeg(path, data)
        else:
            raise CorruptFileError(path, "neither JPEG, PNG, PGM / PPM nor NPY")
        with Image.open(io.BytesIO(data)) as image:
            wide = image.mode.startswith("I") or image.mode == "F"
            if image.mode != "RGB" and (not wide if colour else image.mode not in (*_MAP_MODES, *_ALPHA_MODES)):
                return np.array(image.convert("RGB"))
            image.load()  # NumPy would hide what goes wrong
            return np.array(image) if colour else _as_stored(path, data, np.array(image))
    except CorruptFileError:
        raise
    except _DECODE_ERRORS as error:
        raise CorruptFileError(path, f"cannot be decoded ({error})") from error


def _as_stored(path: Path, data: bytes, values: np.ndarray) -> np.ndarray:
    """Undo what Pillow does to the values of a PNG: it spreads 2 and 4 bits of grey over 0 to 255."""
    if not data.startswith(_PNG_SIGNATURE):
        return values
    bits, kind = data[24], data[25]  # of the header chunk, which is always the first
    if kind == 0 and bits in (2, 4):
        return values // (255 // (2**bits - 1))
    if kind != 0 and bits == 16:
        what = "holds 16-bit values with colour or alpha, of which only 8 bits would be read; store one channel"
        raise CorruptFileError(path, what)
    return values


def read_rgb(path: Path | str) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8; grey is repeated, an alpha channel dropped.

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: an array or a 16-bit map that is no 8-bit picture.
    """
    path = Path(path)
    pixels = _decode(path, colour=True)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"{path}: expected an 8-bit picture, found {pixels.dtype} values of shape {pixels.shape}. "
            "If this is a depth map, the options 'rgb' and 'depth' name the wrong folders."
        )
    return np.ascontiguousarray(pixels)


def read_channels(path: Path | str) -> np.ndarray:
    """Read a map as (H, W), or a picture with more channels as (H, W, 2) grey and alpha, (H, W, 3) or (H, W, 4).

    Values and width in bits are those stored (palette images: the indices).

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: an array that is no picture.
    """
    path = Path(path)
    values = _decode(path, colour=False)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > 4):
        raise DataError(f"{path}: expected one value per pixel, found an array of shape {values.shape}.")
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def read_map(path: Path | str) -> np.ndarray:
    """Read a depth or label map as (H, W), values and width in bits as stored (palette images: the indices).

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: a file with more than one channel.
    """
    values = read_channels(path)
    if values.ndim != 2:
        raise DataError(
            f"{path}: expected one value per pixel, found an array of shape {values.shape}. "
            "Colour-coded depth must be stored as plain numbers first."
        )
    return values


def map_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of any readable file, from its header where the format has one.

    Raises:
        CorruptFileError: missing or without a readable header.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        shape = _decode(path, colour=False).shape
        channels_first = len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)
        height, width = shape[1:] if channels_first else shape[:2]
        return int(height), int(width)
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error
    except _DECODE_ERRORS as error:
        raise CorruptFileError(path, f"has no readable header ({error})") from error
