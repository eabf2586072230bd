"""Which options make classes of label maps that nobody described: from the values, or the colours, that they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.labels.label_pictures import read_colours, read_numbers
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import CorruptFileError, LabelError

_MOST_CLASSES = IGNORE_INDEX - 1
_SPARSE = 2  # a largest value so many times the number of values is no number of a class
_SHOWN = 12


@dataclass(frozen=True)
class LabelProposal:
    """How to read label maps.

    Attributes:
        options: of the `folder` source; empty where nothing sensible can be proposed.
        said: what they hold and how it is read, or why it is not, for a sentence.
        colours: (red, green, blue) of the classes, in order, for a palette; empty for labels that are numbers.
    """

    options: dict[str, Any]
    said: str
    colours: list[tuple[int, int, int]] = field(default_factory=list)


def propose_labels(files: Sequence[Path]) -> LabelProposal | None:
    """The options for all values, or all colours, of some label maps; None if none of them can be read."""
    found = _count(files, colours=False)
    if found is None:
        found = _count(files, colours=True)
        return None if not found else _of_colours(found)
    return _of_numbers(found) if found else None


def palette_text(colours: Sequence[tuple[int, int, int]]) -> str:
    """A palette file for `palettes.read_palette`, with names that wait for better ones."""
    return csv_text(("name", "r", "g", "b"), [(f"class {number}", *colour) for number, colour in enumerate(colours)])


def _count(files: Sequence[Path], colours: bool) -> Counter[int] | None:
    """Pixels by stored value, or by packed colour; None where numbers are asked for and there are none."""
    counts: Counter[int] = Counter()
    for file in files:
        try:
            values = _packed(read_colours(file)) if colours else read_numbers(file)
        except CorruptFileError:
            continue  # counted and listed where samples are read
        except LabelError:
            if colours:
                continue
            return None
        if values.dtype.kind == "f":
            return None
        found, numbers = np.unique(values, return_counts=True)
        counts.update({int(value): int(number) for value, number in zip(found, numbers, strict=True)})
    return counts


def _packed(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _of_colours(counts: Counter[int]) -> LabelProposal:
    if len(counts) > _MOST_CLASSES:
        return LabelProposal(
            {},
            f"{len(counts)} different colours, more than there can be classes (JPEG and resizing mix colours): name "
            "those of the classes in a file (--data.options.palette FILE) and leave the others out "
            "(--data.options.label_unmapped ignore)",
        )
    colours = [(code >> 16, code >> 8 & 255, code & 255) for code in sorted(counts)]
    said = (
        f"{plural(len(colours), 'colour')}, each read as a class; give them their names in the palette, where the name "
        "void stands for no class"
    )
    return LabelProposal({}, said, colours)


def _of_numbers(counts: Counter[int]) -> LabelProposal:
    values = sorted(set(counts) - {IGNORE_INDEX})
    told = f"the stored values {_listed(sorted(counts))}"
    ignored = " and 255 as no class" if IGNORE_INDEX in counts else ""
    if not values:
        return LabelProposal({}, f"{told} alone, which stands for no class: there is nothing to learn")
    if len(values) == 1 and ignored:
        return LabelProposal(
            {"label_map": {values[0]: 0, IGNORE_INDEX: 1}}, f"{told}, read as the masks of two classes"
        )
    if len(values) > _MOST_CLASSES:
        return LabelProposal(
            {},
            f"{plural(len(values), 'different value')}, more than there can be classes: they may number objects. "
            "Say which are "
            "classes (--data.options.label_map FILE, --data.options.label_unmapped ignore)",
        )
    first, last = values[0], values[-1]
    if first == 1 and last == len(values):
        options: dict[str, Any] = {"num_classes": last, "label_offset": 1}
        return LabelProposal(options, f"{told}, read as {plural(last, 'class')} that count from 1{ignored}")
    if first >= 0 and last < _MOST_CLASSES and last + 1 < _SPARSE * len(values):
        void = "" if first else "; if 0 means no class, add --data.options.label_ignore 0"
        options = {"num_classes": last + 1}
        return LabelProposal(options, f"{told}, read as {plural(last + 1, 'class')}{ignored}{void}")
    mapping = {value: number for number, value in enumerate(values)}
    return LabelProposal({"label_map": mapping}, f"{told}, read as {plural(len(values), 'class')} in order{ignored}")


def _listed(values: Sequence[int]) -> str:
    """Stretches of values: "0 to 5, 255"."""
    starts = [place for place, value in enumerate(values) if not place or value != values[place - 1] + 1]
    spans = [(values[start], values[end - 1]) for start, end in zip(starts, [*starts[1:], len(values)], strict=True)]
    told = [f"{low}" if low == high else f"{low} to {high}" for low, high in spans]
    return ", ".join(told[:_SHOWN]) + (f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
