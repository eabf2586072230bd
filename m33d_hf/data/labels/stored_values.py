"""Which values the label maps of a data set hold, seen in a sample of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m33d_hf.data.labels.label_pictures import read_numbers
from m33d_hf.errors import CorruptFileError


@dataclass(frozen=True)
class StoredValues:
    """Pixels of every stored value.

    Attributes:
        counts: stored value -> pixels.
        files: that could be read.
    """

    counts: Counter[int]
    files: int

    @property
    def pixels(self) -> int:
        """All that were looked at."""
        return self.counts.total()


def look_at_labels(files: Sequence[Path]) -> StoredValues:
    """Count the stored values of some files; those that cannot be read are left to the reader's own account.

    Raises:
        LabelError: a file that holds no label map.
    """
    counts: Counter[int] = Counter()
    read = 0
    for file in files:
        try:
            values, pixels = np.unique(read_numbers(file), return_counts=True)
        except CorruptFileError:
            continue
        counts.update(dict(zip(values.tolist(), pixels.tolist())))
        read += 1
    return StoredValues(counts, read)
