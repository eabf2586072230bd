"""ScanNet's labels: from raw ids (the annotators' free names) to NYU40 ids, and from these to the benchmark's classes.

The data set's own table `scannetv2-labels.combined.tsv` (columns `id`, `nyu40id`, `nyu40class`) maps raw ids to NYU40
ids.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.nyu40 import NYU40, UNLABELLED
from m33d_hf.data.labels.stored_values import StoredValues
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, DataError, LabelError

TABLE_NAME = "scannetv2-labels.combined.tsv"
LABEL_IDS = ("auto", "raw", "nyu40")
# The classes of ScanNet's benchmark by their NYU40 ids, in its order.
BENCHMARK = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
_SHOWN = 8
_ENOUGH_FILES = 16  # this many label maps without an id above 40 do not hold raw ids


def classes_of(num_classes: int) -> dict[int, str]:
    """NYU40 id -> name of the classes, in the order of their class ids.

    Raises:
        ConfigError: a number other than 20 and 40.
    """
    tables = {20: {nyu: NYU40[nyu] for nyu in BENCHMARK}, 40: NYU40}
    if num_classes not in tables:
        raise ConfigError(f"num_classes is {num_classes}; it must be 20 (ScanNet's benchmark) or 40 (NYU40)")
    return tables[num_classes]


def read_label_table(path: Path) -> dict[int, int]:
    """Raw id -> NYU40 id, 0 if the table has none.

    Plurals have the id of their singular; for three of those (107, 188 and 385) the rows state different classes, and
    the last one counts, as in the benchmark's own scripts.

    Raises:
        CorruptFileError: missing or not text.
        DataError: missing columns, or an id that is not a number.
    """
    rows = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    missing = {"id", "nyu40id"} - set(rows.fieldnames or ())
    if missing:
        raise DataError(f"{path}: the table has no column {' or '.join(sorted(missing))}; {TABLE_NAME} has both.")
    table: dict[int, int] = {}
    for number, row in enumerate(rows, 2):
        try:
            table[int(row["id"])] = int(row["nyu40id"] or UNLABELLED)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: {row['id']!r} and {row['nyu40id']!r} are not ids") from error
    return table


def label_rules(num_classes: int, raw_to_nyu: Mapping[int, int] | None) -> LabelRules:
    """The mapping of stored ids to class ids: raw ids with their table, or NYU40 ids if that is None.

    Known ids without a class become 255 (ignored); so do unknown ones, which `check_label_ids` counts.
    """
    classes = classes_of(num_classes)
    order = {nyu: class_id for class_id, nyu in enumerate(classes)}
    known = raw_to_nyu if raw_to_nyu is not None else {nyu: nyu for nyu in NYU40}
    mapping = {stored: order.get(nyu, IGNORE_INDEX) for stored, nyu in known.items()}
    mapping[UNLABELLED] = IGNORE_INDEX
    return LabelRules(num_classes, list(classes.values()), mapping=mapping, unmapped="ignore")


def settle_label_ids(stated: str, by_layout: str, sample: StoredValues) -> tuple[str, str]:
    """`raw` or `nyu40`, and a sentence with the reason.

    Args:
        stated: one of `LABEL_IDS`.
        by_layout: the kind of ids that the layout of the files implies.
        sample: of the label maps.

    Raises:
        LabelError: the values contradict the layout, so the user must state the kind of ids.
    """
    if stated != "auto":
        return stated, f"label ids are {stated}, as set by label_ids"
    largest = max(sample.counts, default=0)
    if by_layout == "nyu40" and largest > max(NYU40):
        raise LabelError(
            "the files have the layout of scannet_frames_25k, whose labels are NYU40 ids (0 to 40), but "
            f"{sample.files} "
            f"of them hold ids up to {largest}. Pass label_ids=raw (--data.options.label_ids raw) if they are raw ids."
        )
    if by_layout == "raw" and sample.files >= _ENOUGH_FILES and largest <= max(NYU40):
        raise LabelError(
            f"raw label ids of ScanNet are often above 40, but the {sample.files} sampled label maps hold none above "
            f"{largest}: they may be NYU40 ids. Pass label_ids=nyu40 or label_ids=raw (--data.options.label_ids)."
        )
    return by_layout, f"label ids are {by_layout}, inferred from the layout of the files (--data.options.label_ids)"


def _unknown(sample: StoredValues, rules: LabelRules) -> dict[int, int]:
    """Ids that are not in the rules, and the number of their pixels."""
    return {value: count for value, count in sample.counts.items() if value not in (rules.mapping or {})}


def check_label_ids(rules: LabelRules, sample: StoredValues, most: float) -> str:
    """A sentence with the share of pixels without a class and the share of unknown ids in the sample.

    Args:
        rules: of `label_rules`.
        sample: of the label maps.
        most: share of pixels with unknown ids that is tolerated, in [0, 1].

    Raises:
        LabelError: more than that.
    """
    unknown = _unknown(sample, rules)
    share = sum(unknown.values()) / max(1, sample.pixels)
    shown = ", ".join(f"{value} ({plural(count, 'pixel')})" for value, count in Counter(unknown).most_common(_SHOWN))
    if share > most:
        raise LabelError(
            f"{share:.1%} of the sampled labelled pixels have ids that are not in the table ({shown}); at most "
            f"{most:.1%} are ignored (--data.options.max_unknown). Check that label_ids and label_table match the "
            "files."
        )
    mapping = rules.mapping or {}
    void = sum(count for value, count in sample.counts.items() if mapping.get(value, 0) == IGNORE_INDEX)
    said = f"in {sample.files} sampled label maps, {void / max(1, sample.pixels):.1%} of the pixels have no class"
    return f"{said}, {share:.2%} have unknown ids{f': {shown}' if shown else ''}"
