"""How plausible each known unit of depth is for the values of one file.

A unit's plausibility is a prior (how common such depth is among data sets: rooms in millimetres count 1) times the
likelihood of what the file shows. The likelihood of the median is 1 inside the unit's range and falls as a bell over
the logarithm outside. What the values themselves betray multiplies in: even steps of a Kinect, whole millimetres stored
as 1/5000 or 1/4000 m, the size of a device's picture, the spread of a street in a wide picture. A small far tail takes
no part. Normalised over all units it is the share on which a data set is decided (`shares`).

Home ranges of the median, in metres, where nothing need be stated:

- integers: millimetres .8 to 4 (rooms, corridors) and .03 to .075 (endoscopes); 1/5000 m .7 to 8 in whole millimetres;
  1/4000 m .5 to 3 in whole millimetres; 1/256 m 8 to 20 as sparse wide streets; rotated bits .5 to 6.
- floats: metres .3 to 4.5, and streets of 6 to 25 whose depth spreads; millimetres .8 to 4.

The run stops and shows the unit for these: without such marks 1/5000 m of 1 to 8, 1/4000 m of 1.3 to 8, tenths of a
millimetre of .8 to 5; millimetres of 5 to 8 and .15 to .5; integer and float centimetres of rooms of 1 to 6 m, float
centimetres of endoscopes of .08 to .4 m, float millimetres of .04 to .5.

Limits: unmarked integers of 700 to 4000 are always taken for millimetres, whose rooms need no flag, and so are those of
20 to 90. What another unit stores there (1/4000 m below 1 m, dense 4:3 to 16:9 streets in 1/256 m or centimetres) has
to be stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from m33d_hf.data.depth.figures import KINECT_STEP, Figures
from m33d_hf.modeling.depth_spec_m33d import ROTATED_UNIT, UNITS_PER_METRE


@dataclass(frozen=True)
class Curve:
    """How often maps of a median are met: `prior` from `nearest` to `farthest` metres, a bell's flanks outside.

    `near` and `far` are the flanks' widths, in natural logarithms of metres.
    """

    prior: float
    nearest: float
    farthest: float
    near: float = 0.5
    far: float = 0.5

    def at(self, metres: float) -> float:
        """The curve's height at a median of `metres`, at most `prior`."""
        if not metres > 0:
            return 0.0
        below, beyond = math.log(self.nearest / metres), math.log(metres / self.farthest)
        return self.prior * math.exp(-0.5 * max(0.0, below / self.near, beyond / self.far) ** 2)


# The stored value of any unit but millimetres is, as millimetres, 4, 5, 10 or 256 / 1000 times its depth. Priors beside
# the rooms in millimetres stay below a half within their range (.8 to 4 m), and above a half of each other elsewhere.
_INTEGERS: dict[str, tuple[Curve, ...]] = {
    "millimetre": (
        Curve(1.0, 0.8, 4.1, 0.25, 0.3),  # rooms
        Curve(0.45, 0.02, 0.8),  # endoscopes and table tops
        Curve(0.25, 5.0, 20.0),  # stereo cameras outdoors
    ),
    "tum": (Curve(0.6, 1.0, 7.0, 0.25), Curve(0.25, 0.45, 1.0)),  # Kinect
    "quarter_millimetre": (Curve(0.45, 1.1, 8.0, 0.6),),  # a close-range scanner
    "tenth_millimetre": (Curve(0.35, 0.8, 6.6),),  # 16 bits end at 6.5 m
    "kitti": (Curve(0.35, 5.0, 40.0),),  # streets
    "centimetre": (Curve(0.3, 1.0, 8.0, 0.25), Curve(0.12, 8.0, 30.0, 0.5, 0.3)),  # rooms, rendered streets
    "metre": (Curve(0.1, 8.0, 60.0, 0.4),),
}
_FLOATS: dict[str, tuple[Curve, ...]] = {
    "metre": (Curve(1.0, 0.3, 4.5, 0.6, 0.15), Curve(0.3, 0.02, 0.3), Curve(0.5, 4.5, 30.0, 0.5, 0.35)),
    "millimetre": (Curve(1.0, 0.8, 4.1, 0.25, 0.4), Curve(0.4, 0.02, 0.8), Curve(0.25, 5.0, 20.0)),
    "centimetre": (Curve(0.4, 1.0, 8.0), Curve(0.3, 0.05, 0.4, 0.25), Curve(0.25, 8.0, 40.0)),
}
_ROTATED = Curve(1.2, 0.8, 6.0, 0.25)
# Below this no unit explains the values.
NEGLIGIBLE = 0.01
_MULTIPLES, _SUN_SHARE, _LEAST_SUN_SHARE = 0.98, 0.85, 0.4
_L515_REACH, _CAR_REACH, _KINECT_NEAREST = 9.6, 110.0, 0.4
_L515_SIZE, _KINECT2_SIZE = (768, 1024), (424, 512)
_INDOOR_DEVICES = ("tum", "quarter_millimetre", "tenth_millimetre")
_INDOOR_SPREAD, _STREET_SPREAD = 10.0, 5.5  # of the quantiles .05 and .95
_WIDE = 2.4  # width / height; what these devices take is 4:3 to 16:9
_SPARSE = 0.3  # share of valid pixels below which a scanner is likely
_MARKED = 20.0  # what whole millimetres, stored in another unit, speak for that unit


def shares(figures: Figures) -> dict[str, float]:
    """Unit -> its part in [0, 1] of the plausibility of all; empty where nothing is valid or no unit explains it."""
    found = plausibilities(figures)
    if not found or max(found.values()) < NEGLIGIBLE:
        return {}
    total = sum(found.values())
    return {unit: value / total for unit, value in found.items()}


def plausibilities(figures: Figures) -> dict[str, float]:
    """Unit -> plausibility of one file's values; the numbers compare units, and only within a file.

    Rotated bits are thought of only where the values show them. Empty where nothing is valid.
    """
    if not figures.valid:
        return {}
    found = by_median(figures.median, figures.integer)
    found = {unit: value * _street_evidence(unit, figures) for unit, value in found.items()}
    if not figures.integer:
        return found
    found = {unit: value * _device_evidence(unit, figures) for unit, value in found.items()}
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


def _device_evidence(unit: str, figures: Figures) -> float:
    """What speaks for or against a unit of integers beside the median: a factor."""
    factor = 1.0
    scale = UNITS_PER_METRE[unit]
    if figures.steps is not None and not _is_wide(figures):  # a street's ground has even steps by itself
        # Even steps of inverse depth are those of a stereo or pattern camera, and Kinect's have one known size.
        apart = math.log(KINECT_STEP / figures.steps / scale) / 0.12
        factor *= 1.0 + 30.0 * math.exp(-0.5 * apart**2)
        factor *= 0.2 if unit == "quarter_millimetre" else 1.0
    if unit == "tum":
        whole = figures.multiples_of_5 >= _MULTIPLES and figures.multiples_of_10 < 0.7
        factor *= _MARKED if whole else 1.0
        factor *= 0.3 if figures.low / scale < _KINECT_NEAREST else 1.0
    if unit == "quarter_millimetre":
        whole = figures.multiples_of_4 >= _MULTIPLES and figures.multiples_of_8 < 0.7
        factor *= _MARKED if whole else 1.0
        factor *= 8.0 if figures.shape == _L515_SIZE else 1.0
        factor *= 0.3 if figures.far / scale > _L515_REACH else 1.0
    if unit == "tenth_millimetre" and figures.shape == _KINECT2_SIZE:
        factor *= 8.0
    return factor


def _street_evidence(unit: str, figures: Figures) -> float:
    """What spread and picture say of streets: a factor. Corridors spread as well, so that alone decides little."""
    wide = _is_wide(figures)
    spread = figures.high >= _STREET_SPREAD * figures.low
    if unit in _INDOOR_DEVICES:
        return (0.1 if wide else 1.0) * (0.3 if figures.high > _INDOOR_SPREAD * figures.low else 1.0)
    if unit == "metre" and not figures.integer and figures.median > 4.0:
        return 2.0 if wide or spread else 1.0
    if not spread:
        return 1.0
    sparse = figures.valid_share <= _SPARSE
    if unit == "kitti":
        far = 0.02 if figures.far / UNITS_PER_METRE[unit] > _CAR_REACH else 1.0
        return far * (3.0 if wide else 1.0) * (3.0 if sparse else 1.0)
    if unit == "centimetre" and wide and not sparse and figures.median > 600.0:
        return 6.0 if figures.integer else 4.0
    return 4.0 if unit == "metre" and figures.median > 4.0 else 1.0


def _is_wide(figures: Figures) -> bool:
    return figures.shape[1] >= _WIDE * figures.shape[0]


def reciprocal_hint(scale: float | None) -> str | None:
    """What to say of a scale that is metres per unit, as cameras state it; None where it is units per metre."""
    if scale is None or not 0 < scale < 1:
        return None
    units = 1.0 / scale
    name = next((name for name, known in UNITS_PER_METRE.items() if math.isclose(known, units, rel_tol=1e-3)), None)
    units = UNITS_PER_METRE[name] if name is not None else units
    also = "" if name is None else f", or depth_unit={name}"
    return (
        f"depth_scale is {scale:g}, which looks like metres per stored unit, as cameras state it. Here it must be "
        f"stored units per metre (stored value / scale = metres): pass the reciprocal, depth_scale={units:g}{also}"
    )
