"""Compares every depth file with the rest of its data set: units differ by factors of 4, 5, 10 or 1000, scenes by
less."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m33d_hf.data.depth.figures import thinned
from m33d_hf.data.depth.units import by_median, rotated_plausibility
from m33d_hf.data.files.files import read_map
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import ROTATED_UNIT, UNITS_PER_METRE, DepthSpec

# A median outside these (metres) is a wrong unit, whoever asked for it.
NEAREST_MEDIAN, FARTHEST_MEDIAN = 0.01, 100.0
# What scenes of one data set may differ by, beyond those looked at and from their middle.
SCENES, _BEYOND = 4.0, 1.5
# How near to the rest another unit must bring a file, and how much more plausible it must be.
_NEAR, _MORE_PLAUSIBLE = 2.5, 2.0
_PIXELS = 1500
_SIBLINGS = 4
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class DepthCheck:
    """Statistics of files with one unit: the smallest, middle and largest of the files' medians, in metres.

    Attributes:
        spec: how they are decoded, metric.
        integer: whether integers are stored.
    """

    spec: DepthSpec
    integer: bool
    low: float
    middle: float
    high: float

    def objection(self, metres: float, stored: float) -> str | None:
        """Why a file with these medians seems to have a different unit from the rest; None if it may have the same."""
        if self._as_the_rest(metres):
            return None
        if not NEAREST_MEDIAN <= metres <= FARTHEST_MEDIAN:
            return f"its median is {metres:.3g} m as {self.spec.unit}, which no depth camera measures"
        plausible = by_median(stored, self.integer)
        rotated = self.spec.unit == ROTATED_UNIT
        own = rotated_plausibility(metres) if rotated else plausible.get(str(self.spec.unit), 0.0)
        better = {
            unit: stored / UNITS_PER_METRE[unit]
            for unit, value in plausible.items()
            if unit != self.spec.unit and value > _MORE_PLAUSIBLE * own
        }
        near = {unit: other for unit, other in better.items() if 1 / _NEAR <= other / self.middle <= _NEAR}
        if not near:
            return None
        others = ", ".join(f"{other:.3g} m as {unit}" for unit, other in near.items())
        return (
            f"its median is {metres:.3g} m as {self.spec.unit}, but that of the other files is {self.middle:.3g} m; is "
            f"it stored in another unit? ({others})"
        )

    def _as_the_rest(self, metres: float) -> bool:
        return self.low / _BEYOND <= metres <= self.high * _BEYOND or 1 / SCENES < metres / self.middle < SCENES

    def objection_to(self, stored: np.ndarray, decoded: np.ndarray) -> str | None:
        """`objection` to a map (H, W), from some of its pixels: a few hundredths of what reading costs."""
        metres = thinned(decoded, _PIXELS)
        valid = np.isfinite(metres)
        if not valid.any():
            return None
        middle = float(np.median(metres[valid]))
        if self._as_the_rest(middle):  # most are; what is stored need not be looked at, which halves the time
            return None
        return self.objection(middle, float(np.median(thinned(stored, _PIXELS)[valid])))

    def require(self, path: Path, stored: np.ndarray, decoded: np.ndarray) -> None:
        """Refuse a file that is stored in a different unit from the rest.

        Raises:
            CorruptFileError: only this file is affected; it counts as bad.
            DepthUnitError: its neighbours, a whole sequence, are affected too.
        """
        reason = self.objection_to(stored, decoded)
        if reason is None:
            return
        alike = [self._objects(sibling) for sibling in _siblings(path)]
        told = [answer for answer in alike if answer is not None]
        if len(told) > 1 and sum(told) > len(told) / 2:
            raise DepthUnitError(
                f"the depth in {path.parent} is stored in a different unit from the rest ({path.name}: {reason}). Give "
                "the unit per sequence: --data.options.depth_unit '{SEQUENCE: UNIT, ...}'."
            )
        raise CorruptFileError(path, f"depth: {reason}")

    def _objects(self, path: Path) -> bool | None:
        """Whether there is an objection to a file; None where it is no depth or cannot be read."""
        try:
            stored = read_map(path)
        except DataError:
            return None
        return self.objection_to(stored, self.spec.decode(stored)) is not None


def _siblings(path: Path) -> list[Path]:
    """A few files whose names differ from that of `path` in digits alone, spread over its folder."""
    shape = _DIGITS.sub("#", path.name)
    names = sorted(each.name for each in path.parent.iterdir() if _DIGITS.sub("#", each.name) == shape)
    names = [name for name in names if name != path.name]
    step = max(1, len(names) // _SIBLINGS)
    return [path.parent / name for name in names[step // 2 :: step][:_SIBLINGS]]
