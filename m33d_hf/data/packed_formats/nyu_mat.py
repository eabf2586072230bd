"""NYU Depth v2's labelled frames in one file, `nyu_depth_v2_labeled.mat`, read frame by frame.

It is MATLAB 7.3, which is HDF5: the dimensions of arrays are reversed, with the frames first and every picture
transposed: `images` (N, 3, W, H) uint8, `depths` and `rawDepths` (N, W, H) float32 metres, `labels` (N, W, H) uint16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.packed_formats.hdf5 import open_hdf5
from m33d_hf.data.plural import plural
from m33d_hf.errors import CorruptFileError, decoding
from m33d_hf.modeling.picture_files_m33d import check_pixels

# Stream -> its array. `measured` is `depths` where `rawDepths` has a value, else 0.
ARRAYS = {"rgb": "images", "filled": "depths", "measured": "depths", "raw": "rawDepths", "labels": "labels"}
_WHOLE = "2.8 GB"


def num_frames(path: Path | str, streams: tuple[str, ...] = ("rgb",)) -> int:
    """Number of frames of the file, equal for all given streams.

    Raises:
        CorruptFileError: missing, truncated, of another version of MATLAB, or without these arrays.
    """
    arrays = open_hdf5(Path(path), _WHOLE)
    counts = {ARRAYS[stream]: len(_array(Path(path), arrays, stream)) for stream in streams}
    if len(set(counts.values())) > 1:
        raise CorruptFileError(path, f"its arrays differ in length: {counts}")
    return next(iter(counts.values()))


def read_frame(file: Path, stream: str, number: int) -> np.ndarray:
    """(H, W, 3) uint8 of `rgb`; (H, W) float32 metres of `filled`, `measured` and `raw`; (H, W) uint16 of `labels`.

    Raises:
        CorruptFileError: the file, or this frame of it, cannot be read.
    """
    arrays = open_hdf5(file, _WHOLE)
    array = _array(file, arrays, stream)
    where = Path(f"{file}#{stream}-{number}")
    if not 0 <= number < len(array):
        raise CorruptFileError(where, f"does not exist: the file has {plural(len(array), 'frame')}")
    with decoding(where):
        stored = array[number]
        if stream == "measured":  # before it is turned, while both lie the same way in memory
            np.copyto(stored, 0, where=_array(file, arrays, "raw")[number] == 0)
        return np.ascontiguousarray(stored.T)


def frame_size(file: Path, stream: str, number: int) -> tuple[int, int]:
    """(height, width) of a frame; raises as `read_frame`."""
    width, height = _array(file, open_hdf5(file, _WHOLE), stream).shape[-2:]
    check_pixels(file, height, width)
    return height, width


def _array(path: Path, arrays: Any, stream: str) -> Any:
    name = ARRAYS.get(stream)
    if name is None or name not in arrays:
        raise CorruptFileError(path, f"has no array {name or stream!r}; it holds {', '.join(sorted(arrays))}")
    array = arrays[name]
    kind = "u" if stream in ("rgb", "labels") else "f"
    shaped = array.ndim == 4 and array.shape[1] == 3 if stream == "rgb" else array.ndim == 3
    if not shaped or array.dtype.kind != kind:
        raise CorruptFileError(path, f"its array {name} is {array.dtype} {array.shape}, unlike NYUv2's")
    return array
