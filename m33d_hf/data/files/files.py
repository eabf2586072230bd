"""Reads one picture, depth map or label map, exactly and upright, or explains why it cannot.

Pictures: JPEG, PNG, WebP, BMP, TIFF, PGM / PPM and NPY. Maps of one value per pixel: PNG, TIFF, PGM, NPY, NPZ, PFM and
OpenEXR, and JPEG. Either may lie inside a recording (`packed`). The first bytes of a file decide its type, and its name
only if they cannot. Label and depth values come back as they were stored; only the rows and columns of a file with an
EXIF (or TIFF) orientation are turned.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from m33d_hf.data.files.array_files import layout_of_file, parse_npy, parse_npz
from m33d_hf.data.files.float_maps import EXR_SIGNATURE, exr_size, is_pfm, pfm_size, read_exr, read_pfm
from m33d_hf.data.files.packed import packed_frame
from m33d_hf.data.files.tiff_maps import read_tiff_map, tiff_size
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.netpbm_m33d import is_netpbm, read_netpbm
from m33d_hf.modeling.picture_files_m33d import (
    check_pixels,
    decode_picture,
    is_tiff,
    loaded,
    opened,
    picture_size,
    read_file,
)

RGB_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".npy")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".npy", ".npz", ".pfm", ".exr", ".jpg", ".jpeg")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".npy")
_NPY_SIGNATURE = b"\x93NUMPY"
_ZIP_SIGNATURE = b"PK\x03\x04"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow modes that hold one exact number per pixel ("P" holds palette indices, which is what a label is).
_MAP_MODES = ("1", "L", "P", "I", "F", "I;16", "I;16B", "I;16L")
_ALPHA_MODES = ("LA", "RGBA")


class Oriented(NamedTuple):
    """The content of a file, upright, and the orientation in which it was stored.

    Attributes:
        values: (H, W, 3) uint8 of a picture, (H, W) of a map.
        orientation: EXIF's number: 1 for upright (or where nothing is said), 2 to 8 where the values were turned.
    """

    values: np.ndarray
    orientation: int


def load_rgb(path: Path | str) -> Oriented:
    """As `read_rgb`, with the orientation in which the picture was stored; raises the same errors."""
    if (frame := packed_frame(path)) is not None:
        return Oriented(_picture(frame.file, frame.read()), 1)
    path = Path(path)
    data = read_file(path)
    orientation = 1
    if path.suffix.lower() == ".npy" or data.startswith(_NPY_SIGNATURE):
        pixels = parse_npy(path, data)
    elif (kind := _map_kind(path, data)) is not None:
        raise DataError(f"{path}: expected an 8-bit picture, found {kind}. {_SWAPPED}")
    else:
        pixels, orientation = decode_picture(path, data)
    return Oriented(_picture(path, pixels), orientation)


def _picture(path: Path, pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of what was decoded, contiguous and writable, as torch wants it."""
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"{path}: expected an 8-bit picture, found {pixels.dtype} values of shape {pixels.shape}. {_SWAPPED}"
        )
    return np.require(pixels, requirements=["C", "W"])


_SWAPPED = "If this is a depth map, the options 'rgb' and 'depth' name the wrong folders."


def _map_kind(path: Path, data: bytes) -> str | None:
    """The name of a format that holds maps alone."""
    if is_pfm(data):
        return "PFM"
    if data.startswith(EXR_SIGNATURE):
        return "OpenEXR"
    return "NPZ" if path.suffix.lower() == ".npz" else None


def read_rgb(path: Path | str) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8, upright; grey is repeated, an alpha channel dropped.

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: an array or a 16-bit map that is not an 8-bit picture.
    """
    return load_rgb(path).values


def load_map(path: Path | str) -> Oriented:
    """As `read_map`, with the orientation in which the map was stored; raises the same errors."""
    found = load_channels(path)
    if found.values.ndim != 2:
        raise DataError(
            f"{path}: expected one value per pixel, found an array of shape {found.values.shape}. Convert colour-coded "
            "depth to plain numbers first."
        )
    return found


def read_channels(path: Path | str) -> np.ndarray:
    """Read a map as (H, W), or a picture with more channels as (H, W, 2) grey and alpha, (H, W, 3) or (H, W, 4).

    Values and bit depth are those stored (palette images: the indices).

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: an array that is not a picture.
        MissingDependencyError: OpenEXR without its package.
    """
    return load_channels(path).values


def load_channels(path: Path | str) -> Oriented:
    """As `read_channels`, with the orientation in which the map was stored; raises the same errors."""
    return load_ranged_channels(path)[0]


def load_ranged_channels(path: Path | str) -> tuple[Oriented, int | None]:
    """As `load_channels`, and the largest number that the stored type holds, 1 of single bits; None of floats."""
    path = Path(path)
    frame = packed_frame(path)
    data = b"" if frame is not None else read_file(path)
    values, orientation = _map(path, data) if frame is None else (frame.read(), 1)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > 4):
        raise DataError(f"{path}: expected one value per pixel, found an array of shape {values.shape}.")
    if values.dtype == bool:
        return Oriented(values.astype(np.uint8), orientation), 1
    largest = int(np.iinfo(values.dtype).max) if np.issubdtype(values.dtype, np.integer) else None
    if (bits := _few_bits(data)) is not None:
        largest = 2**bits - 1
    return Oriented(np.require(values, values.dtype.newbyteorder("="), ["C", "W"]), orientation), largest


def _map(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """The stored values of any known format, upright, and their orientation."""
    suffix = path.suffix.lower()
    if suffix == ".npy" or data.startswith(_NPY_SIGNATURE):
        return parse_npy(path, data), 1
    if suffix == ".npz" or data.startswith(_ZIP_SIGNATURE):
        return parse_npz(path, data, preferred=("depth",)), 1
    if is_netpbm(data):
        return read_netpbm(path, data), 1
    if is_pfm(data):
        return read_pfm(path, data), 1
    if data.startswith(EXR_SIGNATURE):
        return read_exr(path), 1
    if is_tiff(data):
        return read_tiff_map(path, data)
    return decode_map(path, data)


def decode_map(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """Decode the bytes of a map that is a picture, PNG above all, wherever they come from.

    Returns:
        (values as stored, upright: (H, W), (H, W, 2) of grey and alpha, (H, W, 3) or (H, W, 4) of a colour picture; the
        orientation in which they were stored).

    Raises:
        CorruptFileError: of `path`: damaged, its checksums included; too large.
    """
    with opened(path, data) as image:
        as_numbers = image.mode in (*_MAP_MODES, *_ALPHA_MODES, "RGB")
        values, orientation = loaded(image, colour=not as_numbers)
    return _as_stored(path, data, values), orientation


def _few_bits(data: bytes) -> int | None:
    """Bits of each value of a grey PNG that has 2 or 4; None of all other files."""
    return data[24] if data.startswith(_PNG_SIGNATURE) and data[25] == 0 and data[24] in (2, 4) else None


def _as_stored(path: Path, data: bytes, values: np.ndarray) -> np.ndarray:
    """Undo what Pillow does to the values of a PNG: it spreads 2 and 4 bits of grey over 0 to 255."""
    if not data.startswith(_PNG_SIGNATURE):
        return values
    if (few := _few_bits(data)) is not None:
        return values // (255 // (2**few - 1))
    bits, kind = data[24], data[25]  # of the header chunk, which is always the first
    if kind != 0 and bits == 16:
        what = "has 16 bits per channel and colour or alpha, of which only 8 bits would be read; store a single channel"
        raise CorruptFileError(path, what)
    return values


def read_map(path: Path | str) -> np.ndarray:
    """Read a depth or label map as (H, W), with values and bit depth as stored (palette images: the indices).

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        DataError: a file with more than one channel.
        MissingDependencyError: OpenEXR without its package.
    """
    return load_map(path).values


def size_and_orientation(path: Path | str) -> tuple[int, int, int]:
    """(height, width, orientation) of any readable file: its upright size, from its header where the format has one.

    Raises:
        CorruptFileError: missing or without a readable header.
        MissingDependencyError: OpenEXR without its package.
    """
    if (frame := packed_frame(path)) is not None:
        return (*frame.size(), 1)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return (*_array_size(path, suffix), 1)
    data = read_file(path)
    if is_pfm(data):
        return (*pfm_size(path, data), 1)
    if data.startswith(EXR_SIGNATURE):
        return (*exr_size(path), 1)
    return tiff_size(path, data) if is_tiff(data) else picture_size(path, data)


def _array_size(path: Path, suffix: str) -> tuple[int, int]:
    data = read_file(path)
    shape = layout_of_file(path).shape if suffix == ".npy" else parse_npz(path, data, preferred=("depth",)).shape
    if len(shape) not in (2, 3):
        raise CorruptFileError(path, f"holds an array of shape {shape}; a picture has two or three dimensions")
    channels_first = len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)
    height, width = shape[1:] if channels_first else shape[:2]
    check_pixels(path, height, width)
    return height, width
