# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""PGM and PPM files, values as stored: Pillow rescales a PGM with an unusual maximum, and wraps others."""

from __future__ import annotations

import math
import re

import numpy as np

from .errors_m33d import CorruptFileError, decoding

_MAX_VALUES = 2**27 * 3
_MAX_TEXT_VALUES = 2**24  # a number in text costs many times its size while it is read
_MAX_DIGITS = 16  # of one number, blanks and leading zeros included
_COMMENTS = rb"(?:#[^\n]*\n\s*)*"
_HEADER = re.compile(rb"P([2356])\s+%b(\d{1,9})\s+%b(\d{1,9})\s+%b(\d{1,9})\s" % ((_COMMENTS,) * 3))


def is_netpbm(data: bytes) -> bool:
    """Whether a file begins as PGM or PPM does."""
    return re.match(rb"P[2356]\s", data) is not None


def read_netpbm(path: object, data: bytes) -> np.ndarray:
    """PGM / PPM (P2, P3, P5, P6) to (H, W) or (H, W, 3), uint8 where the maximum is below 256, else uint16.

    Raises:
        CorruptFileError: no such header, a senseless size, too few values, or one above the header's maximum.
    """
    header = _HEADER.match(data)
    if header is None:
        raise CorruptFileError(path, "not a PGM or PPM header")
    kind, width, height, maximum = (int(header[i]) for i in (1, 2, 3, 4))
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    count = math.prod(shape)
    if not (0 < maximum < 65536) or not 0 < count <= _MAX_VALUES:
        raise CorruptFileError(path, f"PGM header claims {width}x{height} with maximum {maximum}")
    dtype = np.dtype(">u2" if maximum > 255 else "u1")
    body = data[header.end() :]
    if kind in (2, 3):
        values = _numbers(path, body, count)
    else:
        values = np.frombuffer(body, dtype, min(count, len(body) // dtype.itemsize)) if body else np.empty(0, dtype)
    if values.size < count:
        raise CorruptFileError(path, f"truncated PGM: {values.size} of {count} values")
    if values.max() > maximum:
        raise CorruptFileError(path, f"contains the value {values.max()}, but its header states a maximum of {maximum}")
    return values.reshape(shape).astype(np.uint16 if maximum > 255 else np.uint8)


def _numbers(path: object, body: bytes, count: int) -> np.ndarray:
    """The first `count` numbers of a text, or fewer if there are fewer."""
    if count > _MAX_TEXT_VALUES or len(body) > _MAX_DIGITS * count + 1024:
        raise CorruptFileError(path, f"{len(body):,} bytes of text cannot hold {count:,} values")
    if not re.fullmatch(rb"[0-9\s]*", body):
        raise CorruptFileError(path, "has data other than numbers after its header")
    with decoding(path):
        return np.array(body.split()[:count], dtype=np.int64)
