"""NYUv2's own tables: the official split (`splits.mat`), and the mapping of the 894 label ids to the 40 classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from m33d_hf.data.files.data_set_tables import file_near, read_matlab
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.nyu40 import NYU40, UNLABELLED
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import CorruptFileError, DataError, LabelError

SPLITS_NAME = "splits.mat"
CLASSES_NAME = "classMapping40.mat"
LABEL_IDS = ("auto", "raw", "nyu40", "nyu40_zero_based")
_PLACES = (".", "..", "meta", "meta_data", "splits")
_ARRAYS = {"train": "trainNdxs", "test": "testNdxs"}
_LAST_CLASS = max(NYU40)


def find_table(root: Path, name: str, stated: str | None, option: str) -> Path:
    """The file of a table: as set by the user, or named `name` in the root or near it.

    Raises:
        DataError: it is missing.
    """
    found = file_near(root, name, _PLACES, stated)
    if found is None:
        near = ", ".join(_PLACES[1:])
        raise DataError(
            f"NYUv2's table {stated or name} is neither in {root} nor in {near} relative to it; pass it with "
            f"--data.options.{option}."
        )
    return found


def read_split(path: Path) -> dict[str, list[int]]:
    """`train` and `test` -> numbers of their frames, counted from 1 as in the file.

    Raises:
        CorruptFileError: not a MATLAB file of version 5, or these arrays are missing.
        DataError: a frame in both splits.
    """
    arrays = read_matlab(path)
    split = {}
    for name, key in _ARRAYS.items():
        if key not in arrays or np.asarray(arrays[key]).dtype.kind not in "ui":
            raise CorruptFileError(path, f"has no integer array {key}, which the official splits.mat has")
        split[name] = sorted(int(number) for number in np.asarray(arrays[key]).ravel())
    if both := set(split["train"]) & set(split["test"]):
        raise DataError(
            f"{path}: {plural(len(both), 'frame')} {agree(len(both), 'is', 'are')} in both training "
            f"and test, the first is {min(both)}"
        )
    if min(map(min, split.values())) < 1:
        raise DataError(f"{path}: frames must be counted from 1, but one is {min(map(min, split.values()))}")
    return split


def read_class_map(path: Path) -> dict[int, int]:
    """Label id of the file (1 to 894) -> NYU40 id.

    Raises:
        CorruptFileError: not a MATLAB file of version 5, or the map is missing.
    """
    arrays = read_matlab(path)
    values = np.asarray(arrays.get("mapClass", ())).ravel()
    if not len(values) or values.dtype.kind not in "ui" or not set(values.tolist()) <= {UNLABELLED, *NYU40}:
        reason = f"has no map 'mapClass' to the classes 1 to {_LAST_CLASS}, which {CLASSES_NAME} has"
        raise CorruptFileError(path, reason)
    return {number: int(value) for number, value in enumerate(values, 1)}


def settle_label_ids(stated: str, values: Sequence[int]) -> tuple[str, str]:
    """The kind of ids in label maps, and a sentence with the reason; `values` are stored values of a sample.

    Raises:
        LabelError: the values fit several tables, so the user must choose one.
    """
    if stated != "auto":
        return stated, f"label ids are {stated}, as set by label_ids"
    largest = max((value for value in values if value != IGNORE_INDEX), default=0)
    if largest > _LAST_CLASS:
        return "raw", f"label ids go up to {largest}: the 894 of the data set"
    if IGNORE_INDEX in values and largest < _LAST_CLASS:
        return "nyu40_zero_based", f"label ids go from 0 to {largest}, 255 for none: the 40 classes counted from zero"
    if UNLABELLED in values and largest == _LAST_CLASS and IGNORE_INDEX not in values:
        return "nyu40", "label ids go from 0 to 40: the 40 classes, 0 for none"
    raise LabelError(
        f"the sampled label maps hold values from {min(values, default=0)} to {largest}"
        f"{' and 255' if IGNORE_INDEX in values else ''}, which may be the 40 classes counted from one (0 = none) or "
        "from zero (255 = none). Pass label_ids=nyu40 or label_ids=nyu40_zero_based (--data.options.label_ids)."
    )


def label_rules(ids: str, raw_to_nyu: Mapping[int, int] | None) -> LabelRules:
    """The mapping of stored ids to the 40 class ids, 0 to 39; unlabelled pixels become 255."""
    if ids == "nyu40_zero_based":
        return LabelRules(len(NYU40), list(NYU40.values()), ignore=[IGNORE_INDEX])
    known = raw_to_nyu if raw_to_nyu is not None else {number: number for number in NYU40}
    mapping = {stored: IGNORE_INDEX if nyu == UNLABELLED else nyu - 1 for stored, nyu in known.items()}
    return LabelRules(len(NYU40), list(NYU40.values()), mapping={**mapping, UNLABELLED: IGNORE_INDEX})
