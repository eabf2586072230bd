"""Maps of floating-point numbers in PFM and OpenEXR files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.plural import plural
from m33d_hf.errors import CorruptFileError, DataError, MissingDependencyError, decoding
from m33d_hf.modeling.picture_files_m33d import check_pixels

EXR_SIGNATURE = b"\x76\x2f\x31\x01"
_PFM_HEADER = re.compile(rb"P([Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.0-9eE]{1,32})\s")
_WINDOWS = ("dataWindow", "displayWindow")
# What a depth pass is called by those that write more than one channel.
_EXR_CHANNELS = ("Z", "depth", "Depth", "depth.Z", "Depth.Z", "Y")


def is_pfm(data: bytes) -> bool:
    """Whether a file begins as PFM does."""
    return re.match(rb"P[Ff]\s", data) is not None


def _pfm_header(path: Path, data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """(shape, dtype, first byte of the values)."""
    header = _PFM_HEADER.match(data)
    if header is None:
        raise CorruptFileError(path, "not a PFM header")
    width, height = int(header[2]), int(header[3])
    check_pixels(path, height, width)
    with decoding(path, "its PFM header has no valid scale"):
        scale = float(header[4])
    if not (scale < 0 or scale > 0) or scale in (float("inf"), float("-inf")):
        raise CorruptFileError(path, f"its PFM header states the scale {header[4].decode('latin-1')}")
    shape = (height, width, 3) if header[1] == b"F" else (height, width)
    return shape, np.dtype("<f4" if scale < 0 else ">f4"), header.end()


def read_pfm(path: Path, data: bytes) -> np.ndarray:
    """PFM to (H, W) float32, or (H, W, 3) of a colour file, top row first.

    The sign of the header's number gives the byte order. Its magnitude is a scale that writers set arbitrarily and
    readers ignore: values are returned as stored.

    Raises:
        CorruptFileError: no such header, or a number of values that differs from it.
    """
    shape, dtype, start = _pfm_header(path, data)
    claimed = int(np.prod(shape)) * 4
    if len(data) - start != claimed:
        raise CorruptFileError(
            path, f"its PFM header claims {claimed:,} bytes, but the file holds {len(data) - start:,}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)[::-1].astype(np.float32)


def read_exr(path: Path) -> np.ndarray:
    """One channel of an OpenEXR file to (H, W) float16, float32 or uint32: the only one, or Z, depth or Y.

    Raises:
        MissingDependencyError: the package OpenEXR is not installed.
        CorruptFileError: damaged, several parts, or a window that is not the whole picture.
        DataError: several channels, none of which is named as depth.
    """
    part = _exr_part(path, header_only=False)
    channels: dict[str, Any] = part.channels
    names = list(channels)
    chosen = names if len(names) == 1 else [name for name in _EXR_CHANNELS if name in names][:1]
    if not chosen and len(layers := [name for name in names if name.endswith(".Depth.Z")]) == 1:
        chosen = layers  # as Blender calls it: "ViewLayer.Depth.Z"
    if len(chosen) != 1:
        raise DataError(
            f"{path} holds the channels {', '.join(names)}; depth is read from a file with one channel, or from one "
            f"called {' or '.join(_EXR_CHANNELS)}."
        )
    with decoding(path, "cannot be decoded as OpenEXR"):
        pixels = np.asarray(channels[chosen[0]].pixels)
    size = _exr_size(path, part.header)
    if pixels.shape != size or pixels.dtype.kind not in "fu":
        raise CorruptFileError(path, f"its channel {chosen[0]} is {pixels.dtype} {pixels.shape} in a picture of {size}")
    return pixels


def _exr_part(path: Path, header_only: bool) -> Any:
    """The only part of a file, after its header was found sane."""
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} needs the package OpenEXR: pip install OpenEXR, or pip install 'm33d-hf[formats]'."
        ) from error
    with decoding(path, "cannot be decoded as OpenEXR"):
        header = OpenEXR.File(str(path), header_only=True)
        if len(header.parts) != 1:
            raise CorruptFileError(path, f"holds {plural(len(header.parts), 'part')}; expected one")
    _exr_size(path, header.parts[0].header)
    if header_only:
        return header.parts[0]
    with decoding(path, "cannot be decoded as OpenEXR"):
        return OpenEXR.File(str(path), separate_channels=True).parts[0]


def _exr_size(path: Path, header: dict[str, Any]) -> tuple[int, int]:
    """(height, width) that a header states."""
    with decoding(path, "has no readable OpenEXR header"):
        corners = [[int(value) for corner in header[name] for value in corner] for name in _WINDOWS]
    (left, top, right, bottom), shown = corners
    if corners[0] != shown:
        raise CorruptFileError(
            path,
            f"holds the window {corners[0]} of a picture of {shown}; expected the whole picture",
        )
    height, width = bottom - top + 1, right - left + 1
    check_pixels(path, height, width)
    return height, width


def exr_size(path: Path) -> tuple[int, int]:
    """(height, width) of an OpenEXR file from its header; raises as `read_exr`."""
    return _exr_size(path, _exr_part(path, header_only=True).header)


def pfm_size(path: Path, data: bytes) -> tuple[int, int]:
    """(height, width) of a PFM file from its header; raises as `read_pfm`."""
    height, width = _pfm_header(path, data)[0][:2]
    return height, width
