# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures in files, by Pillow: whole, within bounds, and upright; or the reason why not.

Pillow forgives a lot: image data of a PNG with a wrong checksum, a JPEG that ends early, a header that asks for more
memory than there is. Here a file is looked at before it is decoded. What its EXIF note says about the camera's position
is obeyed, as transformers' pipelines do: every picture that leaves this module is upright.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from .errors_m33d import CorruptFileError, decoding
from .netpbm_m33d import is_netpbm, read_netpbm

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
# More than any camera gives; what a damaged header asks for is mostly far beyond it.
MAX_PIXELS = 2**27
_MAX_BYTES = 8 * MAX_PIXELS
_ORIENTATION = 274  # number of the EXIF (and TIFF) tag
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NOTES = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp", b"zTXt", b"iTXt")
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Pillow modes that hold more than 8 bits a pixel: conversion to RGB would cut them off.
_WIDE_MODES = ("I", "F")


def read_file(path: Path, most: int = _MAX_BYTES) -> bytes:
    """The bytes of a file that has `most` at most.

    Raises:
        CorruptFileError: missing, empty, unreadable, too large, or no file (reading a named pipe waits for ever).
    """
    if (size := file_size(path)) > most:
        raise CorruptFileError(path, f"has {size:,} bytes; at most {most:,} are read")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error
    if not data:
        raise CorruptFileError(path, "is empty (0 bytes)")
    return data


def file_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        CorruptFileError: missing, unreadable, or no file (opening a named pipe waits for ever).
    """
    try:
        state = path.stat()
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise CorruptFileError(path, f"cannot be read ({error})") from error
    if not stat.S_ISREG(state.st_mode):
        raise CorruptFileError(path, f"is a {_kind_of(state.st_mode)}, not a file")
    return state.st_size


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def kinds_of(paths: Iterable[Path]) -> str:
    """What lies there, for messages that find nothing: "12 .heic, 1 .txt"."""
    counts = Counter(path.suffix.lower() or "no suffix" for path in paths)
    return ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common(8)) or "nothing"


def check_pixels(path: object, height: int, width: int) -> None:
    """Refuse a size that no picture has, before memory is asked for.

    Raises:
        CorruptFileError: less than one or more than `MAX_PIXELS` pixels.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        reason = f"its header claims {height} x {width} pixels; at most {MAX_PIXELS:,} are supported"
        raise CorruptFileError(path, reason)


def check_png(path: object, data: bytes) -> None:
    """Walk a PNG's chunks: every checksum right, the last one there. Pillow checks neither for image data.

    Raises:
        CorruptFileError: no PNG, or a damaged one.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise CorruptFileError(path, "is not a PNG")
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


def _check_webp(path: Path, data: bytes) -> None:
    """The length that the container states, which libraries take for an upper bound."""
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise CorruptFileError(path, f"truncated WebP: {len(data)} of {length + 8} bytes")


def _check_bmp(path: Path, data: bytes) -> None:
    """The length that the header states."""
    (length,) = struct.unpack_from("<I", data, 2) if len(data) >= 6 else (7,)
    if length > len(data):
        raise CorruptFileError(path, f"truncated BMP: {len(data)} of {length} bytes")


def _check_tiff(path: Path, data: bytes, image: Image.Image) -> None:
    """Every strip or tile inside the file."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    for offsets, lengths in ((273, 279), (324, 325)):
        if offsets in tags and lengths in tags:
            ends = [at + length for at, length in zip(tags[offsets], tags[lengths], strict=True)]
            if max(ends) > len(data):
                raise CorruptFileError(path, f"truncated TIFF: {len(data)} of {max(ends)} bytes")


def _format_of(path: Path, data: bytes) -> str:
    """Pillow's name of the format, after the checks that Pillow leaves out."""
    if data.startswith(_PNG_SIGNATURE):
        check_png(path, data)
        return "PNG"
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(path, data)
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(path, data)
        return "WEBP"
    if data.startswith(b"BM"):
        _check_bmp(path, data)
        return "BMP"
    if is_tiff(data):
        return "TIFF"
    raise CorruptFileError(path, "is not a JPEG, PNG, WebP, BMP, TIFF, PGM or PPM file")


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as TIFF, or BigTIFF, does."""
    return data.startswith(_TIFF_SIGNATURES)


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    """One still picture, by its header; what the block does with it is decoding.

    Raises:
        CorruptFileError: damage, a size beyond all bounds, several pictures in one file; whatever decoding raises.
    """
    name = _format_of(path, data)
    with decoding(path), Image.open(io.BytesIO(data), formats=[name]) as image:
        check_pixels(path, image.height, image.width)
        # Phones put a preview behind the picture of a JPEG; elsewhere a second picture is another frame.
        frames = 1 if name == "JPEG" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise CorruptFileError(path, f"holds {frames} pictures (an animation, or pages); expected one per frame")
        if name == "TIFF":
            _check_tiff(path, data, image)
        yield image


def orientation_of(image: Image.Image) -> int:
    """EXIF's number for how a picture is stored, 1 (upright) to 8; 1 where nothing, or nothing sensible, is said."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def is_wide(image: Image.Image) -> bool:
    """Whether a picture's mode holds more than 8 bits a channel, which conversion to RGB would cut off.

    Of 16-bit colour Pillow gives the upper 8 bits as RGB, which is as right as 8 bits can be.
    """
    return image.mode.startswith(_WIDE_MODES)


def file_orientation(path: Path) -> int:
    """EXIF's orientation of a picture file, without decoding it where no note can be in it.

    Raises:
        CorruptFileError: as `decode_picture`.
    """
    data = read_file(path)
    # Pillow looks for a PNG's note behind its pixels too, and decodes them on the way.
    if is_netpbm(data) or (data.startswith(_PNG_SIGNATURE) and not any(word in data for word in _PNG_NOTES)):
        return 1
    with opened(path, data) as image:
        return orientation_of(image)


def turned_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as stored to upright, for `orientation` 1 to 8 of EXIF; a view."""
    if orientation in (3, 4, 6, 7):
        values = values[::-1]
    if orientation in (2, 3, 7, 8):
        values = values[:, ::-1]
    return values.swapaxes(0, 1) if orientation >= 5 else values


def lies_unknown(orientation: int, picture: tuple[int, int], values: tuple[int, int]) -> bool:
    """Whether nobody can tell if a map without a note of its own is upright, or lies as its picture is stored.

    Where a picture is turned by a quarter and neither is square, a map that lies as the upright picture does can only
    be upright. One that lies as the stored picture, and every map of a picture that is mirrored or upside down, may be
    meant both ways.

    Args:
        orientation: EXIF's, of the picture.
        picture: (height, width) of the upright picture.
        values: (height, width) of the map, which has no orientation of its own.
    """
    if orientation == 1:
        return False
    quarter = orientation >= 5 and picture[0] != picture[1] and values[0] != values[1]
    return not (quarter and (picture[0] > picture[1]) == (values[0] > values[1]))


def loaded(image: Image.Image, colour: bool = False) -> tuple[np.ndarray, int]:
    """(upright pixels, EXIF's orientation of the stored ones) of an opened picture.

    With `colour` they are 8-bit RGB, unless the picture has more than 8 bits a channel, which stay as they are.
    """
    orientation = orientation_of(image)
    image.load()  # NumPy would hide what goes wrong
    converted = colour and image.mode != "RGB" and not is_wide(image)
    pixels = np.array(image.convert("RGB") if converted else image)
    # Pillow turns TIFF when it loads it, and nothing else.
    return (pixels if image.format == "TIFF" else turned_upright(pixels, orientation)), orientation


def decode_picture(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """Decode the bytes of a picture: (upright pixels, (H, W, 3) uint8 or of more bits as stored; EXIF's orientation).

    Raises:
        CorruptFileError: damaged, too large, or several pictures in one file.
    """
    if is_netpbm(data):
        return read_netpbm(path, data), 1
    with opened(path, data) as image:
        return loaded(image, colour=True)


def read_picture(path: Path) -> tuple[np.ndarray, int]:
    """Read a picture: ((H, W, 3) uint8, upright; the orientation that its EXIF states, 1 for upright).

    Raises:
        CorruptFileError: missing, damaged, too large, several pictures, or more than 8 bits a channel.
    """
    pixels, orientation = decode_picture(path, read_file(path))
    if pixels.dtype != np.uint8:
        raise CorruptFileError(path, f"is not an 8-bit picture ({pixels.dtype}); is it a depth map?")
    return (pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)), orientation


def picture_size(path: Path, data: bytes) -> tuple[int, int, int]:
    """(height, width, orientation) of a picture's bytes; height and width are those of the upright picture.

    Raises:
        CorruptFileError: as `decode_picture`.
    """
    if is_netpbm(data):
        return (*read_netpbm(path, data).shape[:2], 1)
    with opened(path, data) as image:
        orientation = orientation_of(image)
        # Pillow gives the upright size of a TIFF, and the stored one of everything else.
        turned = orientation >= 5 and image.format != "TIFF"
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        return height, width, orientation
