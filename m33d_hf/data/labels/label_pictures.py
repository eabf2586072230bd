"""Reads one label map: class numbers, or colours if there is a palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m33d_hf.data.files.files import read_channels, read_rgb
from m33d_hf.errors import CorruptFileError, DataError, LabelError


def read_numbers(path: Path) -> np.ndarray:
    """(H, W) stored values; grey that was saved with alpha, or as three equal channels, is the same numbers.

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        LabelError: colour-coded labels, or an alpha channel that varies.
    """
    values = _without_alpha(_channels(path), path)
    if values.ndim == 2:
        return values
    if values.shape[2] == 3 and (values[..., :1] == values[..., 1:]).all():
        return np.ascontiguousarray(values[..., 0])
    coloured = values[(values != values[..., :1]).any(axis=2)]
    first = tuple(int(level) for level in coloured[0])
    raise LabelError(
        f"{path}: labels are colours, not numbers: {len(coloured)} of {values[..., 0].size} pixels are not grey, the "
        f"first of them is {first}. Pass --data.options.palette FILE with a line 'R G B name' for every class, or "
        "store class numbers."
    )


def read_colours(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 colours of a colour-coded label map; for a file with its own palette, the colours that it shows.

    Raises:
        CorruptFileError: missing, truncated or undecodable.
        LabelError: not an 8-bit picture, or an alpha channel that varies.
    """
    values = _without_alpha(_channels(path), path)
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return values
    try:
        return read_rgb(path)  # grey, or indices of the file's own palette
    except CorruptFileError:
        raise
    except DataError as error:
        raise LabelError(
            f"{path}: a palette is given, but the label map is not an 8-bit picture ({values.dtype})"
        ) from error


def _channels(path: Path) -> np.ndarray:
    try:
        return read_channels(path)
    except CorruptFileError:
        raise
    except DataError as error:
        raise LabelError(str(error)) from error


def _without_alpha(values: np.ndarray, path: Path) -> np.ndarray:
    """Drop an alpha channel that is the same everywhere."""
    if values.ndim == 2 or values.shape[2] not in (2, 4):
        return values
    alpha = values[..., -1]
    if alpha.min() != alpha.max():
        kind = "grey" if values.shape[2] == 2 else "RGB"
        raise LabelError(
            f"{path}: {kind} with an alpha channel that differs between pixels ({int((alpha != alpha.max()).sum())} of "
            f"{alpha.size} are more transparent than the others). It is unknown whether these pixels have a label: set "
            "them to a value of label_ignore and save the file without alpha."
        )
    return values[..., 0] if values.shape[2] == 2 else values[..., :3]
