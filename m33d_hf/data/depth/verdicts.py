"""Checks over all sampled depth files: faults that no unit can explain, contradicting files, and skies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from m33d_hf.data.depth.checks import DepthCheck
from m33d_hf.data.depth.sampling import Looked, evenly_spaced, look_at
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec

# From where on (metres) a group of values far beyond the rest is a sky, or another mark for "nothing there".
_SKY_METRES = 50.0
_MORE_FILES, _SHOWN = 3, 5
# Of the files looked at, how many may be of another unit before it is no matter of single files.
_SINGLE_FILES = 0.02


def refuse_foreign_numbers(looked: Sequence[Looked], kind: str | None = None) -> None:
    """Refuse files of different number types, of exchanged bytes, and raw Kinect disparity but as `kind` relative.

    Raises:
        DepthUnitError: names the files and how to fix them.
    """
    # 16 and 32 bits may mix: Pillow widens some files. Floats or 8 bits beside them are another unit.
    if len({(each.figures.integer, each.figures.eight_bit) for each in looked}) > 1:
        first = {(each.figures.integer, each.figures.eight_bit): each for each in reversed(looked)}
        examples = ", ".join(f"{each.figures.values.dtype} in {each.path}" for each in first.values())
        raise DepthUnitError(
            f"the depth files hold different kinds of numbers ({examples}), but a data set must have one. Separate or "
            "convert them."
        )
    exchanged = [each for each in looked if each.figures.exchanged]
    raw = [each for each in looked if each.figures.raw_kinect and (kind != "relative" or each.figures.exchanged)]
    if raw:
        _refuse_raw_kinect(raw)
    if exchanged:
        each = exchanged[0]
        as_read, swapped = each.figures.neighbours
        raise DepthUnitError(
            f"the two bytes of each depth value are swapped in {len(exchanged)} of {len(looked)} files (for example "
            f"{each.path}: neighbouring pixels differ by {as_read:.3g} as read and by {swapped:.3g} with the bytes "
            "swapped). No unit can fix this: write the files again, for example as 16-bit PNG, after "
            "`values.byteswap()` in NumPy."
        )


def _refuse_raw_kinect(raw: Sequence[Looked]) -> None:
    each = raw[0]
    as_read, swapped = each.figures.neighbours
    order = ""
    if each.figures.exchanged:
        order = (
            f" Its bytes are also swapped, as in NYUv2's raw PGM files: neighbouring pixels differ by {as_read:.3g} as "
            f"read and by {swapped:.3g} with the bytes swapped (`values.byteswap()` in NumPy)."
        )
    raise DepthUnitError(
        f"{each.path} holds raw Kinect disparity: 11-bit values, 2047 where nothing was measured. This is neither a "
        f"distance in any unit nor inverse depth: larger means farther.{order} Convert it to metres with the camera's "
        "calibration (for NYUv2's camera metres = 351.3 / (1092.5 - raw)) and write it as 16-bit millimetres. If only "
        "the order matters, write it with the right byte order and pass depth_kind=relative invalid_values='[0, 2047]'."
    )


def settle_contradictions(
    check: DepthCheck, looked: Sequence[Looked], sequences: Mapping[str, Sequence[Path]]
) -> list[str]:
    """Notes on single files in a different unit from the rest, which will count as bad.

    Raises:
        DepthUnitError: whole sequences, or several files, are of another unit; named.
    """
    objections = {each.path: reason for each in looked if (reason := _objection(check, each)) is not None}
    if not objections:
        return []
    by_sequence: dict[str, list[Looked]] = defaultdict(list)
    for each in looked:
        by_sequence[each.sequence].append(each)
    foreign = []
    for name, members in by_sequence.items():
        if any(each.path in objections for each in members):
            members = _looked_at_closely(name, members, sequences[name])
            against = [each for each in members if _objection(check, each) is not None]
            if len(against) > 1 and len(against) * 2 > len(members):
                foreign.append(name)
    first = next(iter(objections))
    if foreign and len(sequences) > 1:
        _refuse_sequences(check, foreign, f"{first}: {objections[first]}")
    if len(objections) > max(1, _SINGLE_FILES * len(looked)):
        shown = "\n".join(f"  {path}: {reason}" for path, reason in list(objections.items())[:_SHOWN])
        raise DepthUnitError(
            f"{len(objections)} of {len(looked)} checked depth files contradict the others, which are read as "
            f"{check.spec.unit}:\n{shown}\nA data set must have one unit: put them into one folder per sequence and "
            "give the unit per sequence (--data.options.depth_unit '{SEQUENCE: UNIT, ...}'), or convert them."
        )
    return [f"{path} counts as bad: {reason}." for path, reason in objections.items()]


def _objection(check: DepthCheck, each: Looked) -> str | None:
    metres = check.spec.decode(each.figures.values)
    return check.objection_to(each.figures.values, metres)


def _looked_at_closely(name: str, members: list[Looked], files: Sequence[Path]) -> list[Looked]:
    """The sequence's files that were looked at, and some more where they are few: one says little of the others."""
    if len(members) > _MORE_FILES:
        return members
    known = {each.path for each in members}
    rest = [file for file in files if file not in known]
    more, _ = look_at([(name, file) for file in evenly_spaced(rest, _MORE_FILES)])
    return members + more


def _refuse_sequences(check: DepthCheck, foreign: Sequence[str], example: str) -> None:
    shown = ", ".join(repr(name) for name in foreign[:_SHOWN]) + (" and more" if len(foreign) > _SHOWN else "")
    raise DepthUnitError(
        f"{plural(len(foreign), 'sequence')} {agree(len(foreign), 'holds', 'hold')} depth in a different unit from "
        f"the rest, which is {check.spec.unit}: {shown} (for example {example}). Give the unit per sequence, for "
        f"example --data.options.depth_unit '{{{foreign[0]}: UNIT, \"*\": {check.spec.unit}}}', or leave those out."
    )


def sky_bound(spec: DepthSpec, looked: Sequence[Looked]) -> tuple[DepthSpec, list[str]]:
    """`spec` with a max_depth below values that lie far beyond all others, and a note that says so."""
    skies = [each.figures for each in looked if each.figures.sky is not None]
    if not skies or spec.max_depth is not None:
        return spec, []
    scale = spec.scale or 1.0
    start = min(figures.sky for figures in skies if figures.sky is not None)
    below = max(float(figures.below_sky) for figures in skies)
    without = [each.figures.far for each in looked if each.figures.sky is None]
    below = max([below, *without])
    if start / scale < _SKY_METRES or start < 2.0 * below:
        return spec, []
    pixels = sum(each.figures.valid for each in looked)
    share = sum(int((figures.values[np.isfinite(figures.values)] >= start).sum()) for figures in skies) / pixels
    bound = float(f"{math.sqrt(start * below) / scale:.2g}")
    note = (
        f"{share:.1%} of the valid values are {start / scale:,.4g} m and more, far beyond all others (below "
        f"{below / scale:.3g} m): a sky, or no measurement. They are set invalid by max_depth={bound:g}; to choose "
        "another bound pass --data.options.max_depth."
    )
    return replace(spec, max_depth=bound), [note]
