"""Shares of the labels (Table 2: 5, 10, 20 and 100 %; Figure 2): whole videos per class where a source knows the
labels in advance, and whole scenes where it does not; each share is part of the next larger.

Clips of one video look alike, so a share of the clips would hold nearly all the information of the videos; the draw
therefore takes whole videos. It is a function of (seed, name of the video): neither the order of a listing nor the
other videos matter, and the 5 % of a seed are part of its 10 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from m33d_hf.data.plural import plural
from m33d_hf.data.randomness import seed_of
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, DataError, LabelError

_NAMED = 8


def label_subset(
    labels: Sequence[int],
    groups: Sequence[str],
    action_names: Sequence[str],
    fraction: float | None,
    seed: int,
    allow_missing: bool = False,
) -> list[int]:
    """Rows of a source whose labels are used, ascending; all rows of a drawn video are taken together.

    Where every video has one label, each class gives its share, ``fraction`` times its videos rounded half up: a class
    of few videos may give none. Where a video holds several labels (phases), the share is taken of all videos. Videos
    without any label are not drawn. A fraction of 1 or None returns every row.

    Args:
        labels: class id of each row, 255 = no label.
        groups: the video that each row belongs to, same length.
        action_names: names in id order.
        fraction: share of the videos, in (0, 1]; None takes all.
        seed: of the draw; for one seed, smaller shares are part of larger ones.
        allow_missing: continue even if a class has no row.

    Returns:
        Row numbers, at least one.

    Raises:
        ConfigError: a fraction outside (0, 1], or labels and groups of different length.
        LabelError: a label that is neither an id of `action_names` nor 255.
        DataError: no row has a label; or a class has none, at this fraction or at all, unless `allow_missing`.
    """
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise ConfigError(f"data.label_fraction is {fraction}; it must be greater than 0 and at most 1")
    if len(labels) != len(groups):
        raise ConfigError(
            f"{len(labels)} labels for {len(groups)} rows; a source must give one label and one group per row"
        )
    for row, label in enumerate(labels):
        if label != IGNORE_INDEX and not 0 <= label < len(action_names):
            raise LabelError(f"{groups[row]}: label {label} is not an id of the {len(action_names)} classes (0-based)")
    classes = _classes_of_groups(labels, groups)
    if not classes:
        raise DataError(f"none of the {len(labels)} training samples has a label; use a source with labels")
    if not allow_missing:
        _refuse_classes_without_video(classes, action_names)
    if fraction is None or fraction == 1.0:
        return list(range(len(labels)))
    strata = _strata(classes)
    taken = {group for members in strata for group in _share(members, fraction, seed)}
    if not taken:  # the first that any larger share takes: the largest class gets one before all others
        largest = min(strata, key=lambda members: (-len(members), members))
        taken = {_order(largest, seed)[0]}
    rows = [row for row, group in enumerate(groups) if group in taken]
    if not allow_missing:
        _refuse_classes_left_out([labels[row] for row in rows], classes, action_names, fraction, len(taken))
    return rows


def scene_subset(groups: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Rows of whole scenes (sequences, single images) whose labels are used, ascending.

    Scenes are taken in an order that is a function of (seed, name), as many as bring the number of rows nearest to
    ``fraction`` of all, and at least one: labels are counted in images, and frames of a scene look alike. For one seed,
    smaller shares are part of larger ones.

    Args:
        groups: the scene that each row belongs to.
        fraction: share of the rows, in (0, 1].
        seed: of the draw.

    Raises:
        ConfigError: a fraction outside (0, 1].
        DataError: no row.
    """
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"data.label_fraction is {fraction}; it must be greater than 0 and at most 1")
    if not groups:
        raise DataError("data.label_fraction has nothing to draw from: the training data has no sample")
    sizes = Counter(groups)
    wanted, rows, taken = fraction * len(groups), 0, set[str]()
    for group in _order(list(sizes), seed):
        # The next scene is taken while that does not lead further away; the constant is that of `_share`.
        if taken and rows + sizes[group] / 2 > wanted + 1e-9:
            break
        taken.add(group)
        rows += sizes[group]
    return [row for row, group in enumerate(groups) if group in taken]


def missing_classes(labels: Sequence[int], action_names: Sequence[str]) -> list[str]:
    """Names of the classes without a row, in id order."""
    present = set(labels)
    return [name for number, name in enumerate(action_names) if number not in present]


def _classes_of_groups(labels: Sequence[int], groups: Sequence[str]) -> dict[str, set[int]]:
    """Video -> ids that it holds; videos without any label are left out."""
    classes: dict[str, set[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        if label != IGNORE_INDEX:
            classes.setdefault(group, set()).add(label)
    return classes


def _strata(classes: dict[str, set[int]]) -> list[list[str]]:
    """Videos of each class, in id order; one stratum of all where a video holds more than one class."""
    if any(len(found) > 1 for found in classes.values()):
        return [sorted(classes)]
    by_class: dict[int, list[str]] = {}
    for group in sorted(classes):
        (label,) = classes[group]
        by_class.setdefault(label, []).append(group)
    return [by_class[label] for label in sorted(by_class)]


def _order(members: Sequence[str], seed: int) -> list[str]:
    return sorted(members, key=lambda group: (seed_of(seed, "label subset", group), group))


def _share(members: Sequence[str], fraction: float, seed: int) -> list[str]:
    # The small constant keeps .05 * 30 = 1.4999... from being rounded down.
    return _order(members, seed)[: math.floor(fraction * len(members) + 0.5 + 1e-9)]


def _refuse_classes_without_video(classes: dict[str, set[int]], action_names: Sequence[str]) -> None:
    missing = missing_classes([label for found in classes.values() for label in found], action_names)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(action_names)} classes have no training sample at all: {_listing(missing)}. Check "
            "the training split and its annotation, or train without them: --data.allow_missing_classes true."
        )


def _refuse_classes_left_out(
    labels: Sequence[int], classes: dict[str, set[int]], action_names: Sequence[str], fraction: float, drawn: int
) -> None:
    missing = missing_classes(labels, action_names)
    if not missing:
        return
    held = Counter(action_names[label] for found in classes.values() for label in found)
    named = _listing([f"{name!r} ({held[name]} videos)" for name in missing])
    raise DataError(
        f"{len(missing)} of {len(action_names)} classes have no sample at data.label_fraction {fraction:g} ({drawn} of "
        f"{plural(len(classes), 'video')} drawn): {named}. Take a larger --data.label_fraction or another "
        "--data.subset_seed, or "
        "train without them: --data.allow_missing_classes true."
    )


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
