"""Near-duplicates between splits: pictures that look the same whatever they are called and however they were encoded.

The hash is the difference hash (dHash) of 16 x 16 comparisons of neighbouring grey values: 256 bits that survive
re-encoding, resizing and small changes of brightness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

BITS = 16  # comparisons per side
MOST_DIFFERENT = 10  # of the 256 bits between two pictures that count as the same
_LEAST_CONTRAST = 4.0  # standard deviation of the reduced grey values (0 to 255); a blank wall looks like any other
_ROWS = 256  # hashes compared with all others at once


class Pair(NamedTuple):
    """Two samples of different splits and the number of bits (of 256) by which their pictures differ."""

    first: str
    second: str
    distance: int


def perceptual_hash(rgb_3HW: np.ndarray) -> str | None:
    """64 hexadecimal digits; None of a picture without contrast.

    Args:
        rgb_3HW: uint8.
    """
    picture = Image.fromarray(np.ascontiguousarray(rgb_3HW.transpose(1, 2, 0))).convert("L")
    small = np.asarray(picture.resize((BITS + 1, BITS), Image.Resampling.BOX), dtype=np.int16)
    if small.std() < _LEAST_CONTRAST:
        return None
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def near_duplicates(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> Iterator[Pair]:
    """Pairs of (key, hash) from two splits whose hashes differ by at most `MOST_DIFFERENT` bits, in their order."""
    if not first or not second:
        return
    others = _words([digest for _, digest in second])
    for start in range(0, len(first), _ROWS):
        block = first[start : start + _ROWS]
        own = _words([digest for _, digest in block])
        distances = np.bitwise_count(own[:, None] ^ others[None]).sum(axis=-1, dtype=np.int64)
        for row, column in np.argwhere(distances <= MOST_DIFFERENT):
            yield Pair(block[row][0], second[column][0], int(distances[row, column]))


def _words(digests: Sequence[str]) -> np.ndarray:
    """(N, 4) uint64."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint64).reshape(len(digests), -1)
