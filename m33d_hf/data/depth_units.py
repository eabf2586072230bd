"""How plausible each known unit of depth is for the values of one file.

A unit's plausibility is the share of data that comes in it, times how often a map with that median is met: a curve per
unit, since units belong to devices. What the values themselves betray (steps of a Kinect, multiples of 5 or 8, the size
of a device's picture) weighs more than the median and multiplies in. A small far tail takes no part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from m33d_hf.data.depth_figures import KINECT_STEP, Figures
from m33d_hf.modeling.depth_spec_m33d import ROTATED_UNIT, UNITS_PER_METRE


@dataclass(frozen=True)
class Curve:
    """How often maps of a median are met: a bell over the logarithm of metres, other widths below and above."""

    weight: float
    centre: float
    near: float
    far: float

    def at(self, metres: float) -> float:
        """The curve's height at a median of `metres`, at most `weight`."""
        if not metres > 0:
            return 0.0
        distance = math.log(metres / self.centre)
        return self.weight * math.exp(-0.5 * (distance / (self.near if distance < 0 else self.far)) ** 2)


# Endoscopes see 2 to 20 cm, and are read as metres or millimetres.
_ENDOSCOPE = Curve(0.8, 0.06, 1.1, 0.8)
# Weights: most integers are millimetres; of the others, those of the TUM benchmark and NYUv2 are the most.
_INTEGERS: dict[str, tuple[Curve, ...]] = {
    "millimetre": (Curve(5.0, 2.0, 1.3, 0.7), _ENDOSCOPE, Curve(0.4, 10.0, 0.8, 0.8)),  # and stereo cameras outdoors
    "tum": (Curve(2.2, 2.2, 0.7, 0.45),),  # Kinect rooms
    "quarter_millimetre": (Curve(1.4, 1.3, 0.5, 0.8),),  # a close-range scanner
    "kitti": (Curve(1.35, 18.0, 0.6, 0.8),),  # streets
    "tenth_millimetre": (Curve(0.5, 2.0, 0.6, 0.6),),  # 16 bits end at 6.5 m
    "centimetre": (Curve(0.15, 3.0, 0.8, 1.2),),
    "metre": (Curve(0.02, 20.0, 1.0, 0.8),),
}
_FLOATS: dict[str, tuple[Curve, ...]] = {
    "metre": (Curve(5.0, 3.0, 1.2, 1.3), _ENDOSCOPE),
    "millimetre": (Curve(2.0, 2.0, 0.8, 0.9), Curve(0.8, 0.06, 1.1, 1.0)),
    "centimetre": (Curve(1.0, 1.8, 0.8, 0.8), Curve(0.3, 15.0, 0.8, 0.8)),  # and rendered streets
}
_ROTATED = Curve(6.0, 2.2, 0.6, 0.8)
# Below this no unit explains the values.
NEGLIGIBLE = 0.02
_MULTIPLES, _SUN_SHARE, _LEAST_SUN_SHARE = 0.98, 0.85, 0.4
_L515_REACH, _CAR_REACH, _KINECT_NEAREST = 9.6, 110.0, 0.4
_L515_SIZE, _KINECT2_SIZE = (768, 1024), (424, 512)
_INDOOR_DEVICES = ("tum", "quarter_millimetre", "tenth_millimetre")
_INDOOR_SPREAD, _STREET_SPREAD = 10.0, 5.5  # of the quantiles .05 and .95
_WIDE = 2.4  # width / height; what these devices take is 4:3 to 16:9


def plausibilities(figures: Figures) -> dict[str, float]:
    """Unit -> plausibility of one file's values; the numbers compare units, and only within a file.

    Rotated bits are thought of only where the values show them. Empty where nothing is valid.
    """
    if not figures.valid:
        return {}
    found = by_median(figures.median, figures.integer)
    if not figures.integer:
        return found
    found = {unit: value * _evidence(unit, figures) for unit, value in found.items()}
    if figures.multiples_of_8 >= _SUN_SHARE or _wraps(figures):
        # One file in a thousand million is so by chance.
        found = {unit: 0.05 * value for unit, value in found.items()}
        found[ROTATED_UNIT] = rotated_plausibility(figures.median_rotated / 1000.0)
    return found


def _wraps(figures: Figures) -> bool:
    """Whether the lowest 3 bits say 0 and 1 alone: what lies beyond 8.192 m keeps its upper bits there."""
    return figures.multiples_of_8 >= _LEAST_SUN_SHARE and figures.low_bits_0_1 >= _MULTIPLES


def by_median(stored: float, integer: bool) -> dict[str, float]:
    """Unit -> plausibility of a map whose median stored value is `stored`, when nothing else is known of it.

    Without rotated bits, which no median shows.
    """
    table = _INTEGERS if integer else _FLOATS
    return {unit: max(curve.at(stored / UNITS_PER_METRE[unit]) for curve in curves) for unit, curves in table.items()}


def rotated_plausibility(metres: float) -> float:
    """Plausibility of rotated bits that give a median of `metres`, where nearly all values are multiples of 8."""
    return _ROTATED.at(metres)


def _evidence(unit: str, figures: Figures) -> float:
    """What speaks for or against a unit beside the median: a factor."""
    factor = 1.0
    scale = UNITS_PER_METRE[unit]
    if figures.steps is not None:
        # Even steps of inverse depth are those of a stereo or pattern camera, and Kinect's have one known size.
        apart = math.log(KINECT_STEP / figures.steps / scale) / 0.12
        factor *= 1.0 + 30.0 * math.exp(-0.5 * apart**2)
        factor *= 0.2 if unit == "quarter_millimetre" else 1.0
    if unit == "tum" and figures.multiples_of_5 >= _MULTIPLES and figures.multiples_of_10 < 0.7:
        factor *= 6.0  # whole millimetres, times 5
    if unit == "quarter_millimetre":
        if figures.multiples_of_4 >= _MULTIPLES and figures.multiples_of_8 < 0.7:
            factor *= 6.0  # whole millimetres, times 4
        factor *= 8.0 if figures.shape == _L515_SIZE else 1.0
        factor *= 0.1 if figures.far / scale > _L515_REACH else 1.0
    if unit == "tenth_millimetre" and figures.shape == _KINECT2_SIZE:
        factor *= 8.0
    wide = figures.shape[1] >= _WIDE * figures.shape[0]
    if unit in _INDOOR_DEVICES:
        factor *= 0.1 if wide else 1.0
        factor *= 0.3 if figures.high > _INDOOR_SPREAD * figures.low else 1.0
    if unit == "tum" and figures.low / scale < _KINECT_NEAREST:
        factor *= 0.3
    if unit == "kitti":
        spread = figures.high >= _STREET_SPREAD * figures.low
        factor *= 8.0 if spread and (wide or figures.valid_share <= 0.3) else 1.0
        factor *= 0.02 if figures.far / scale > _CAR_REACH else 1.0
    return factor


def reciprocal_hint(scale: float | None) -> str | None:
    """What to say of a scale that is metres per unit, as cameras state it; None where it is units per metre."""
    if scale is None or not 0 < scale < 1:
        return None
    units = 1.0 / scale
    name = next((name for name, known in UNITS_PER_METRE.items() if math.isclose(known, units, rel_tol=1e-3)), None)
    units = UNITS_PER_METRE[name] if name is not None else units
    also = "" if name is None else f", or depth_unit={name}"
    return (
        f"depth_scale is {scale:g}, which is how cameras state it: metres per stored unit. Here it is stored units per "
        f"metre (stored value / scale = metres): pass the reciprocal, depth_scale={units:g}{also}"
    )
