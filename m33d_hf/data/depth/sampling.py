"""Reads some depth files of each sequence, spread from first to last, and measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from m33d_hf.data.depth.figures import Figures, measure
from m33d_hf.data.files.files import read_map
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError

HOW_TO_STATE = (
    "Pass --data.options.depth_unit (metre, centimetre, millimetre, tum = 1/5000 m, tenth_millimetre, "
    "quarter_millimetre = 1/4000 m, kitti = 1/256 m, sunrgbd = rotated bits) or --data.options.depth_scale (stored "
    "value / scale = metres), or --data.options.depth_kind (inverse, relative) if the values are not distances."
)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Looked:
    """A depth file that was read, and the statistics of its values."""

    path: Path
    sequence: str
    figures: Figures


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of `items`, spread from first to last; the same ones every time."""
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / max(1, count - 1)
    return [items[round(i * step)] for i in range(count)]


def spread_over(sequences: Mapping[str, Sequence[Path]], count: int) -> list[tuple[str, Path]]:
    """At most `count` files with their sequence: as many of each, or one of each of `count` sequences."""
    names = [name for name, files in sequences.items() if files]
    chosen = evenly_spaced(names, count)
    each, more = divmod(count, max(1, len(chosen)))
    return [
        (name, file)
        for number, name in enumerate(chosen)
        for file in evenly_spaced(sequences[name], each + (number < more))
    ]


def look_at(chosen: Sequence[tuple[str, Path]]) -> tuple[list[Looked], list[str]]:
    """Statistics of the files, and why others could not be read.

    Raises:
        DepthUnitError: several or all files hold no map but more than one value per pixel or several arrays.
    """
    looked: list[Looked] = []
    problems: list[str] = []
    odd: list[DataError] = []
    for sequence, file in chosen:
        try:
            looked.append(Looked(file, sequence, measure(read_map(file))))
        except CorruptFileError as error:
            problems.append(str(error))
        except DataError as error:
            odd.append(error)
    if len(odd) > 1 or (odd and not looked):
        many = f"{len(odd)} of {len(chosen)} checked files hold no depth map; the first: " if len(odd) > 1 else ""
        raise DepthUnitError(f"{many}{odd[0]} {HOW_TO_STATE}") from odd[0]
    return looked, [*problems, *map(str, odd)]  # a single one is skipped and listed where samples are read
