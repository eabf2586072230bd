"""Arrays in NPY and NPZ files, whose headers are checked against the size of the file.

NumPy allocates the memory that a header claims before it checks whether the file holds as much, silently reads the
first of several arrays, and silently accepts an array shorter than was written.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Literal

import numpy as np

from m33d_hf.errors import CorruptFileError, DataError, decoding
from m33d_hf.modeling.picture_files_m33d import file_size

_HEADER_BYTES = 2**16  # NumPy's own limit on a header is below it
MAX_UNPACKED = 2**32  # of an .npz, bytes; what is larger belongs into an .npy, of which single frames can be read
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayLayout:
    """Where an array lies in its file.

    Attributes:
        shape, dtype: of the array.
        order: of its values, "C" or "F" (columns first).
        offset: its first byte.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    offset: int

    def array(self, data: bytes | mmap) -> np.ndarray:
        """The array in `data`, the file's bytes (or a map of them), without a copy."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.offset)
        return flat.reshape(self.shape, order=self.order)


def npy_layout(path: Path, start: bytes, size: int) -> ArrayLayout:
    """Read the header of an NPY file.

    Args:
        path: the file.
        start: its first bytes, at least 64 KiB if it has as many.
        size: bytes of the whole file.

    Raises:
        CorruptFileError: no such header, not one array of real numbers, or not the size that the header asks for.
    """
    with decoding(path, "cannot be read as an array"):
        stream = io.BytesIO(start[:_HEADER_BYTES])
        version = np.lib.format.read_magic(stream)
        if version not in _READERS:
            raise CorruptFileError(
                path,
                f"is an NPY file of version {version}, but only arrays of plain numbers can be read",
            )
        shape, columns_first, dtype = _READERS[version](stream)
    if dtype.kind not in "uifb" or any(side < 0 for side in shape):
        raise CorruptFileError(path, f"does not hold one array of real numbers but {dtype} of shape {shape}")
    layout = ArrayLayout(tuple(map(int, shape)), dtype, "F" if columns_first else "C", stream.tell())
    claimed = math.prod(layout.shape) * dtype.itemsize
    if layout.offset + claimed != size:
        claims = f"its header claims {claimed:,} bytes, but the file holds {size - layout.offset:,}"
        raise CorruptFileError(path, f"cannot be read as an array ({claims})")
    return layout


def parse_npy(path: Path, data: bytes) -> np.ndarray:
    """The array in the bytes of an NPY file, read-only.

    Raises:
        CorruptFileError: as `npy_layout`; an array without values.
    """
    layout = npy_layout(path, data, len(data))
    if 0 in layout.shape:
        raise CorruptFileError(path, f"holds no values (shape {layout.shape})")
    return layout.array(data)


def layout_of_file(path: Path) -> ArrayLayout:
    """`npy_layout` of a file; only the header is read.

    Raises:
        CorruptFileError: as `npy_layout`, or the file cannot be read.
    """
    size = file_size(path)
    try:
        with path.open("rb") as file:
            return npy_layout(path, file.read(_HEADER_BYTES), size)
    except OSError as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error


def parse_npz(path: Path, data: bytes, preferred: Sequence[str] = ()) -> np.ndarray:
    """The only array in the bytes of an NPZ file, or the only one with one of the `preferred` names.

    Raises:
        CorruptFileError: not an archive, an archive without arrays, too large, or damaged (checksums are verified).
        DataError: several arrays.
    """
    with decoding(path, "cannot be read as an array"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        if not members:
            raise CorruptFileError(path, "is a zip archive that holds no array")
        named = [entry for entry in members if entry.filename.removesuffix(".npy") in preferred]
        chosen = named if len(members) > 1 and len(named) == 1 else members
        if len(chosen) != 1:
            names = [entry.filename.removesuffix(".npy") for entry in members]
            wanted = f", or one called {' or '.join(preferred)}" if preferred else ""
            raise DataError(f"{path} holds the arrays {names}; expected one{wanted}.")
        if chosen[0].file_size > MAX_UNPACKED:
            raise CorruptFileError(
                path,
                f"claims {chosen[0].file_size:,} bytes unpacked; store an array of this size as .npy, which is read "
                "in parts",
            )
        with archive.open(chosen[0]) as member:
            # One byte more than was announced: reading to the end is what verifies the checksum.
            unpacked = member.read(chosen[0].file_size + 1)
    if len(unpacked) != chosen[0].file_size:
        raise CorruptFileError(path, f"unpacks to {len(unpacked):,} bytes, but claims {chosen[0].file_size:,}")
    return parse_npy(path, unpacked)
