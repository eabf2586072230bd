"""SUN RGB-D's labels in one file, `SUNRGBD2Dseg.mat` (MATLAB 7.3): 10,335 references to label maps, read one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.packed_formats.hdf5 import open_hdf5
from m33d_hf.data.plural import plural
from m33d_hf.errors import CorruptFileError, decoding
from m33d_hf.modeling.picture_files_m33d import check_pixels

_STRUCT, _FIELD = "SUNRGBD2Dseg", "seglabel"
_WHOLE = "180 MB"


def num_frames(path: Path | str) -> int:
    """Number of label maps of the file.

    Raises:
        CorruptFileError: missing, truncated, of another version of MATLAB, or without label maps.
    """
    return len(_references(Path(path))[1])


def read_frame(file: Path, stream: str, number: int) -> np.ndarray:
    """(H, W) label ids as stored: 0 for none, 1 to 37.

    Raises:
        CorruptFileError: the file, or this map of it, cannot be read.
    """
    where = Path(f"{file}#{stream}-{number}")
    array = _map_of(file, where, number)
    with decoding(where):
        return np.ascontiguousarray(array[()].T)


def frame_size(file: Path, stream: str, number: int) -> tuple[int, int]:
    """(height, width) of a map; raises as `read_frame`."""
    width, height = _map_of(file, Path(f"{file}#{stream}-{number}"), number).shape
    check_pixels(file, height, width)
    return height, width


def _references(path: Path) -> tuple[Any, Any]:
    """The open file, and its references in the order of the data set."""
    file = open_hdf5(path, _WHOLE)
    with decoding(path, f"has no list {_STRUCT}/{_FIELD}, which SUNRGBD2Dseg.mat has"):
        references = file[_STRUCT][_FIELD]
        if references.dtype.kind != "O" or 1 not in references.shape or references.ndim != 2:
            raise CorruptFileError(path, f"its {_STRUCT}/{_FIELD} is not a list of references: {references.shape}")
        return file, references[()].ravel()


def _map_of(path: Path, where: Path, number: int) -> Any:
    file, references = _references(path)
    if not 0 <= number < len(references):
        raise CorruptFileError(where, f"does not exist: the file has {plural(len(references), 'label map')}")
    with decoding(where):
        array = file[references[number]]
        if array.ndim != 2 or array.dtype.kind not in "uif":
            raise CorruptFileError(where, f"is not a label map: {array.dtype} {array.shape}")
        return array
