"""Which wrong frames near the border of two phases are forgiven: the relaxed boundaries of the phase challenges.

`M2CAI16` and `CHOLEC80` follow the Matlab scripts of the M2CAI 2016 challenge (Evaluate.m, as published with SV-RCNet,
TMRNet and Surgformer), whose phases are numbered from 1 in the order of the operation. Within the first t frames of an
annotated segment a prediction of the phase before is forgiven (late transition), within its last t frames one of the
phase after (early transition); phases between which surgeons go back and forth have two neighbours. t is 10 seconds, at
most the length of the segment.

The scripts forgive an early transition at the wrong place: `curDiff(curDiff(end-t+1:end)==1) = 0` looks at the LAST t
frames, but a mask of t elements indexes the FIRST t, so what is set right are frames at the start of the segment,
whatever was predicted there. Published numbers contain this; hence every rule exists "as published" and as meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.detection_metrics import segments

SECONDS = 10.0
EXACT = "exact"
NEIGHBOURS = "relaxed_neighbours"

_NOWHERE = 1 << 20  # the difference of a frame for which nothing was predicted


@dataclass(frozen=True)
class Rule:
    """What is forgiven at the borders of phases of a known order.

    Attributes:
        name: of the variant in tables.
        phases: names in the order of the operation; a phase's number is its place, from 1.
        late, early: phase number -> differences prediction - truth that are forgiven in its first and last t frames;
            what is not listed has (-1,) and (1,).
        literal: early transitions are set right at the start of the segment, as the published script does.
        unpredicted_is_right: the precision of a phase that was never predicted, but has forgiven frames, is 1, because
            the script divides by zero and cuts infinity to 100 %; elsewhere it is undefined.
    """

    name: str
    phases: tuple[str, ...]
    late: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    early: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    literal: bool = False
    unpredicted_is_right: bool = False


_CHOLECYSTECTOMY = (
    "Preparation", "CalotTriangleDissection", "ClippingCutting", "GallbladderDissection", "GallbladderPackaging",
    "CleaningCoagulation", "GallbladderRetraction",
)  # fmt: skip
_CHOLEC80_LATE = {6: (-1, -2), 7: (-1, -2)}
_CHOLEC80_EARLY = dict.fromkeys((4, 5, 6, 7), (1, 2))
_M2CAI16_LATE = {7: (-1, -2), 8: (-1, -2)}
_M2CAI16_EARLY = dict.fromkeys((5, 6, 7, 8), (1, 2))
_M2CAI16 = ("TrocarPlacement", *_CHOLECYSTECTOMY)

RULES = {
    rule.name: rule
    for rule in (
        Rule("relaxed_cholec80_as_published", _CHOLECYSTECTOMY, _CHOLEC80_LATE, _CHOLEC80_EARLY, True, True),
        Rule("relaxed_cholec80_as_meant", _CHOLECYSTECTOMY, _CHOLEC80_LATE, _CHOLEC80_EARLY),
        Rule("relaxed_m2cai16_as_published", _M2CAI16, _M2CAI16_LATE, _M2CAI16_EARLY, True),
        Rule("relaxed_m2cai16_as_meant", _M2CAI16, _M2CAI16_LATE, _M2CAI16_EARLY),
    )
}
BOUNDARIES = (EXACT, NEIGHBOURS, *RULES)


def known_boundaries(names: Sequence[str]) -> list[str]:
    """Variants that can be computed for phases of these names, whatever their order, case, blanks and underscores.

    "exact" and "relaxed_neighbours" always; the rules of a challenge where the names are its phases.
    """
    given = sorted(map(_plain, names))
    return [EXACT, NEIGHBOURS, *(name for name, rule in RULES.items() if sorted(map(_plain, rule.phases)) == given)]


def right_frames(
    predictions: np.ndarray, labels: np.ndarray, names: Sequence[str], boundary: str, width: int
) -> np.ndarray:
    """Frames that are right, or whose error a rule forgives.

    "relaxed_neighbours" works for phases of any number and order: in the first (last) t frames of an annotated segment
    a prediction of the segment before (after) it is forgiven.

    Args:
        predictions, labels: (T,) ids in [0, L); predictions may be 255 (nothing predicted), labels may not.
        names: of the L phases.
        boundary: one of `known_boundaries(names)`.
        width: t in frames, at least 0; `SECONDS` at the rate of the ids.

    Returns:
        (T,) bool.

    Raises:
        ConfigError: an unknown variant, or one for other phases.
    """
    if boundary not in known_boundaries(names):
        raise ConfigError(
            f"the boundary rule {boundary!r} does not fit the phases {', '.join(names)}; "
            f"available: {', '.join(known_boundaries(names))}"
        )
    if boundary == EXACT:
        return np.asarray(predictions == labels)
    if boundary == NEIGHBOURS:
        return _neighbours(predictions, labels, width)
    rule = RULES[boundary]
    order = [_plain(name) for name in rule.phases]
    number = np.full(IGNORE_INDEX + 1, _NOWHERE)
    number[: len(names)] = [order.index(_plain(name)) + 1 for name in names]
    return _by_rule(number[predictions] - number[labels], labels, number, rule, width)


def _by_rule(difference: np.ndarray, labels: np.ndarray, number: np.ndarray, rule: Rule, width: int) -> np.ndarray:
    right = np.zeros(len(labels), bool)
    for start, stop, phase in segments(labels):
        here = difference[start:stop].copy()
        near = min(width, len(here))
        first, last = here[:near], here[len(here) - near :]  # views
        first[np.isin(first, rule.late.get(int(number[phase]), (-1,)))] = 0
        early = np.isin(last, rule.early.get(int(number[phase]), (1,)))
        (first if rule.literal else last)[early] = 0
        right[start:stop] = here == 0
    return right


def _neighbours(predictions: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    right = np.asarray(predictions == labels)
    runs = segments(labels)
    for place, (start, stop, _) in enumerate(runs):
        near = min(width, stop - start)
        if place > 0:
            right[start : start + near] |= predictions[start : start + near] == runs[place - 1][2]
        if place + 1 < len(runs):
            right[stop - near : stop] |= predictions[stop - near : stop] == runs[place + 1][2]
    return right


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
