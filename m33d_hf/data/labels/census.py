"""Counts the classes in a data set's label maps before training, and warns of missing ones.

A class that never occurs, or a class value that is silently ignored, can give perfect scores: a mask of 0 and 255 read
as two classes holds only class 0 and ignored pixels, and a model that always predicts class 0 is right everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.source import LabelMaps
from m33d_hf.errors import CorruptFileError

FEW, MANY = 64, 1024
SWALLOWED = 0.5
_SHOWN = 12


@dataclass
class LabelCensus:
    """Class counts of some label maps.

    Attributes:
        names: of the classes.
        files: label maps that there are; `read` of them were counted, evenly spread.
        classes: class id -> pixels, 255 those without a class.
        silent: pixels stored as 255 that are ignored although no option speaks of 255.
        stored: stored values that occur; empty for colour-coded labels.
        beside: most other stored values that one label map holds beside a silent 255.
    """

    names: Sequence[str]
    files: int
    read: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    silent: int = 0
    stored: set[int] = field(default_factory=set)
    beside: int = 0

    @property
    def pixels(self) -> int:
        """All pixels that were counted."""
        return self.classes.total()

    @property
    def occurring(self) -> list[int]:
        """Class ids that occur."""
        return [number for number in range(len(self.names)) if self.classes[number]]

    @property
    def missing(self) -> list[int]:
        """Class ids that do not."""
        return [number for number in range(len(self.names)) if not self.classes[number]]

    def share(self, number: int) -> float:
        """Share of the pixels with a class id, 255 for those without."""
        return self.classes[number] / max(self.pixels, 1)

    def swallowed(self) -> str | None:
        """Why any prediction would score perfectly: 255 is ignored and only one other value is left. None otherwise."""
        if not self.silent or len(self.stored) != 2:
            return None
        silent, other = self.silent / self.pixels, min(self.stored)
        return (
            f"the labels hold two stored values, {other} ({1 - silent:.1%} of the pixels) and 255 ({silent:.1%}), and "
            f"255 means ignored unless an option names it. {self._absent()}so predicting {other} everywhere would "
            f"score perfectly. If 255 is a class, pass --data.options.label_map '{{{other}: 0, 255: 1}}'"
        )

    def single(self) -> str | None:
        """Why there is nothing to learn: all label maps together hold at most one class. None otherwise."""
        if self.read < self.files or len(self.names) < 2 or len(self.occurring) > 1 or not self.pixels:
            return None
        only = f"{self._names(self.occurring)} is the only class" if self.occurring else "no class occurs"
        return (
            f"{only} in all {self.files} label maps, {self.share(IGNORE_INDEX):.1%} of the pixels are ignored. "
            f"{self._absent()}so there is nothing to learn. Check num_classes, label_offset, label_ignore and "
            "label_map (--data.options.label_map '{STORED VALUE: CLASS}')"
        )

    def warnings(self) -> list[str]:
        """Sentences about classes that were not seen and about pixels that are ignored."""
        found = []
        cure = " If 255 is a class, pass --data.options.label_map with 255 in it." if self.silent else ""
        ignored = f"{self.share(IGNORE_INDEX):.1%} of the pixels are ignored"
        by_default = f", {self.silent / max(self.pixels, 1):.1%} because they are 255 without an option that says so"
        if self.missing:
            looked = f"were not seen in {self.read} of {self.files} label maps"
            seen = "never occur" if self.read == self.files else looked
            found.append(
                f"{len(self.missing)} of {len(self.names)} classes {seen}: {self._names(self.missing)}; {ignored}"
                f"{by_default if self.silent else ''}.{cure}"
            )
        elif self.share(IGNORE_INDEX) > SWALLOWED:
            found.append(f"{ignored}{by_default if self.silent else ''}.{cure}")
        elif self.silent and self.beside == 1:
            found.append(
                f"{ignored}{by_default}, and no label map holds 255 together with more than one other value; is 255 a "
                f"class in some files?{cure}"
            )
        return found

    def summary(self) -> str:
        """One line: the share of every class."""
        shares = [f"{self.names[number]} {self.share(number):.1%}" for number in self.occurring]
        more = f", {len(shares) - _SHOWN} more" if len(shares) > _SHOWN else ""
        told = ", ".join(sorted(shares, key=lambda text: -float(text.rpartition(" ")[2][:-1]))[:_SHOWN])
        which = f"all {self.files}" if self.read == self.files else f"{self.read} of {self.files}"
        return f"labels of {which} maps: {told or 'no class'}{more}, ignored {self.share(IGNORE_INDEX):.1%}"

    def _names(self, numbers: Sequence[int]) -> str:
        told = ", ".join(f"{number} ({self.names[number]!r})" for number in numbers[:_SHOWN])
        return told + (f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else "")

    def _absent(self) -> str:
        if not self.missing:
            return "Nothing else occurs, "
        word = "Class" if len(self.missing) == 1 else "Classes"
        return f"{word} {self._names(self.missing)} never occur{'s' if len(self.missing) == 1 else ''}, "


@dataclass(frozen=True)
class LabelFiles:
    """Label maps in files of their own (a `data.source.LabelMaps`)."""

    files: Sequence[Path]
    rules: LabelRules

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> tuple[np.ndarray | None, np.ndarray, bool]:
        """Stored values, class ids, and whether 255 is ignored silently; raises as `LabelRules.read`."""
        return *self.rules.read_both(self.files[number]), self.rules.ignores_255_silently


def take_census(maps: LabelMaps, names: Sequence[str]) -> LabelCensus:
    """Count the labels of some maps, evenly spread: a few where all classes are seen in them, else many.

    Maps that cannot be decoded are left to the reader's own account.

    Raises:
        LabelError: values outside the classes.
    """
    census = LabelCensus(names, len(maps))
    for place, number in enumerate(_spread(len(maps))):
        if place >= FEW and not census.missing:
            break
        census.read += 1
        try:
            found = maps.read(number)
        except CorruptFileError:
            continue
        if found is None:
            continue
        stored, ids, silently = found
        census.classes.update(_counts(ids))
        if stored is not None:
            counts = _counts(stored)
            census.stored.update(counts)
            if silently and IGNORE_INDEX in counts:
                census.silent += counts[IGNORE_INDEX]
                census.beside = max(census.beside, len(counts) - 1)
    return census


def _spread(count: int) -> Iterator[int]:
    """At most `MANY` numbers; the first `FEW` of them lie as evenly over all as those after them."""
    many = [index * count // min(MANY, count) for index in range(min(MANY, count))]
    first = {index * len(many) // min(FEW, len(many)) for index in range(min(FEW, len(many)))}
    yield from (many[index] for index in sorted(first))
    yield from (number for index, number in enumerate(many) if index not in first)


def _counts(values: np.ndarray) -> dict[int, int]:
    """Value -> pixels."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    found, numbers = np.unique(values, return_counts=True)
    return {int(value): int(number) for value, number in zip(found, numbers, strict=True)}
