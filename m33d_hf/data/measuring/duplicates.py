"""Near-duplicates between splits: pictures that look the same whatever they are called and however they were encoded.

The hash is the difference hash (dHash) of 16 x 16 comparisons of neighbouring grey values: 256 bits that survive
re-encoding, resizing and small changes of brightness.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from m33d_hf.data.sources.frames.pairing import natural_key

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


def beside_cuts(
    first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]], sequence_of: Mapping[str, str]
) -> dict[str, str]:
    """Key -> sequence of the samples beside a cut through a sequence that look like the other side: a camera that
    stands still there. Frames that look alike farther off are none of these.

    Args:
        first: (key, hash) of a split.
        second: (key, hash) of the other one.
        sequence_of: key -> sequence, of what was cut from one; all of a split lies before all of the other, or behind.
    """
    sides_of: dict[str, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for number, side in enumerate((first, second)):
        for key, digest in side:
            if key in sequence_of:
                sides_of[sequence_of[key]][number].append((natural_key(key), key, digest))
    found: dict[str, str] = {}
    for name, both in sides_of.items():
        if not all(both):
            continue
        lower, upper = sorted(map(sorted, both))
        if lower[-1][0] >= upper[0][0]:
            continue  # not one cut: mixed frame by frame
        for side, other in ((lower[::-1], upper), (upper, lower)):
            words = _words([digest for _, _, digest in other])
            for _, key, digest in side:
                if np.bitwise_count(_words([digest]) ^ words).sum(axis=-1, dtype=np.int64).min() > MOST_DIFFERENT:
                    break
                found[key] = name
    return found


def _words(digests: Sequence[str]) -> np.ndarray:
    """(N, 4) uint64."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint64).reshape(len(digests), -1)
