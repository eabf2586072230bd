"""Guesses what a data set's stored depth values mean, logs the guess, and refuses implausible values.

Kinect exports are millimetres, the TUM benchmark stores 1/5000 m, some Kinect v2 tools 0.1 mm, SUN RGB-D
rotates its bits, and an 8-bit file is usually a picture of depth rather than depth. None of them says so in the file.
Every file is judged by itself and votes; files that contradict the majority are named.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from m33d_hf.data.depth.checks import FARTHEST_MEDIAN, NEAREST_MEDIAN, DepthCheck
from m33d_hf.data.depth.figures import saturation
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.sampling import HOW_TO_STATE, Looked, evenly_spaced, look_at, spread_over
from m33d_hf.data.depth.units import plausibilities, shares
from m33d_hf.data.depth.verdicts import refuse_foreign_numbers, settle_contradictions, sky_bound
from m33d_hf.data.plural import plural
from m33d_hf.errors import DataError, DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import UNITS_PER_METRE, DepthSpec

__all__ = ["DepthOptions", "Detection", "detect_depth", "detect_depth_spec", "evenly_spaced"]

logger = logging.getLogger(__name__)

MAX_FILES = 64
# A unit is believed when it is at least so many times as plausible as the next.
_CLEAR = 2.0
# Once a person is asked, units with this share of the best one's plausibility are shown too.
_ALSO_SHOWN = 6.0
# Runners-up that are said: at least this share of the best one's plausibility.
_WORTH_SAYING, _MOST_SAID = 0.01, 3
# How `_refuse_tie` names them.
_CHOICE = re.compile(r"([\d.e+-]+) m as (\w+): --data\.options\.depth_unit \2\b")
# The farthest 1 % are questioned from so many times the depth below which 95 % lie.
_FAR_BEYOND = 3.0


@dataclass(frozen=True)
class Detection:
    """What was assumed, and the figures by which a user can check it.

    Attributes:
        spec: how stored values are decoded; where units are stated per sequence, in most sequences.
        median: median of the valid decoded values: metres, or unitless for inverse and relative depth.
        invalid_fraction: share of the sampled pixels without depth, in [0, 1].
        saturated_fraction: share at the data type's largest value (65535, 255), in [0, 1]; 0 for floats.
        lines: for the log: what was decided, what that gives, what is odd, and which units come next.
        check: what later files are compared with; None for inverse and relative depth.
        by_sequence: of sequences with another meaning than `spec`, what is assumed there.
        eight_bits: whether all files that were looked at store 8 bits.
    """

    spec: DepthSpec
    median: float
    invalid_fraction: float
    saturated_fraction: float
    lines: tuple[str, ...]
    check: DepthCheck | None = None
    by_sequence: Mapping[str, Detection] = field(default_factory=dict)
    eight_bits: bool = False

    @property
    def message(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)

    def of_sequence(self, sequence: str) -> Detection:
        """What is assumed in one sequence."""
        return self.by_sequence.get(sequence, self)


@dataclass(frozen=True)
class _Guess:
    """A scale, why, the units that come next with the median each gives, and all that many files vote for."""

    spec: DepthSpec
    reason: str
    others: dict[str, float]
    contested: tuple[str, ...] = ()


def detect_depth_spec(
    files: Iterable[Path | str], hint: DepthOptions | DepthSpec | None = None, max_files: int = MAX_FILES
) -> Detection:
    """`detect_depth` for the files of one sequence, in a fixed order."""
    if isinstance(hint, DepthSpec):
        unit = hint.unit if hint.kind == "metric" else None
        hint = DepthOptions(unit, hint.scale, hint.kind, hint.invalid_values, hint.min_depth, hint.max_depth)
    return detect_depth({"": [Path(file) for file in files]}, hint, max_files)


def detect_depth(
    sequences: Mapping[str, Sequence[Path]],
    options: DepthOptions | None = None,
    max_files: int = MAX_FILES,
    where: str | Path = "",
    written: Mapping[str, tuple[str, DepthOptions]] | None = None,
) -> Detection:
    """Decide from a sample how the depth files of one data set are decoded.

    Args:
        sequences: name -> depth files in a fixed order; at most `max_files`, spread over the sequences, are read.
        options: what the user states. A given unit is used, but still refused if it is implausible.
        where: the folder of the data, for the log.
        written: sequence -> (the file beside its depth that says what the values mean, for the log; what it says),
            which holds there instead of `options`.

    Raises:
        DepthUnitError: 8-bit display depth, or values of unknown meaning, without a stated unit; two units that are
            about equally plausible; sequences, or several files, in a different unit from the rest; raw Kinect
            disparity or swapped bytes; a metric median below 1 cm or above 100 m.
        DataError: no file, no readable file, or not one valid pixel in the sample.
        ConfigError: units given for sequences that do not exist.
    """
    options = options or DepthOptions()
    if not any(sequences.values()):
        raise DataError("there are no depth files to check")
    options.require_known(sequences)
    groups: dict[tuple[str | None, DepthOptions, str], dict[str, Sequence[Path]]] = {}
    for name, files in sequences.items():
        if files:
            of_file = (written or {}).get(name)
            key = (*options.of_sequence(name), "the options") if of_file is None else (*of_file, of_file[0])
            groups.setdefault(key, {})[name] = files
    most = max(1, max_files // len(groups))
    found = {key: _detect_group(files, key[1], most, where, key[2]) for key, files in groups.items()}
    largest = max(groups, key=lambda key: sum(len(files) for files in groups[key].values()))
    others = {name: found[key] for key, files in groups.items() if key != largest for name in files}
    kinds = {detection.spec.kind for detection in found.values()}
    if len(kinds) > 1:
        raise DepthUnitError(
            f"the sequences have different kinds of depth ({', '.join(sorted(kinds))}); use a separate data set for "
            "each"
        )
    if not others:
        return found[largest]
    lines = [f"{key[0] or 'other sequences'}: {line}" for key, detection in found.items() for line in detection.lines]
    return replace(found[largest], by_sequence=others, lines=tuple(lines))


def _detect_group(
    sequences: Mapping[str, Sequence[Path]], options: DepthOptions, max_files: int, where: str | Path, by: str
) -> Detection:
    """Sequences of which the same is stated (by whom, `by` says for the log), or nothing."""
    chosen = spread_over(sequences, max_files)
    total = sum(len(files) for files in sequences.values())
    looked, problems = look_at(chosen)
    if not looked:
        raise DataError(f"none of {len(chosen)} depth files could be read; the first: {problems[0]}")
    refuse_foreign_numbers(looked, options.kind)
    guess = _settle_spec(looked, options, by)
    spec = guess.spec
    notes: list[str] = []
    if spec.kind == "metric":
        spec, notes = sky_bound(spec, looked)
    pooled = [spec.decode(each.figures.values) for each in looked]
    valid = np.concatenate([part[np.isfinite(part)] for part in pooled])
    if not valid.size:
        _refuse_blank(spec, looked, options, total)
    median = float(np.median(valid))
    check = None
    if spec.kind == "metric":
        _refuse_implausible(spec, median, looked, options.states_meaning)
        check = _check_of(spec, looked, pooled)
        notes += settle_contradictions(check, looked, sequences)
        if len(guess.contested) > 1:  # no mixture, or it had been named: each file by itself could be either
            valid_files = [each for each in looked if each.figures.valid]
            medians = {unit: _median_as(unit, valid_files) for unit in guess.contested}
            _refuse_tie(guess.contested, medians, valid_files)
    size = sum(part.size for part in pooled)
    saturated = sum(
        int((each.figures.values == saturation(each.figures.values.dtype)).sum())
        for each in looked
        if each.figures.integer
    )
    shares = (1.0 - valid.size / size, saturated / size)
    lines = (*_describe(guess, spec, valid, shares, looked, total), *notes, *_less_plausible(guess))
    told = [f"{where}: {lines[0]}" if str(where) else lines[0], *lines[1:]]
    _announce("\n  ".join(told))
    return Detection(spec, median, *shares, lines, check, eight_bits=all(each.figures.eight_bit for each in looked))


def _check_of(spec: DepthSpec, looked: Sequence[Looked], pooled: Sequence[np.ndarray]) -> DepthCheck:
    """What later files are compared with: the files in which the unit is plausible, or all where it is in none."""
    medians = [float(np.nanmedian(part)) if np.isfinite(part).any() else math.nan for part in pooled]
    ranked = [plausibilities(each.figures) for each in looked]
    own = str(spec.unit)
    typical = [
        median
        for median, units in zip(medians, ranked, strict=True)
        if math.isfinite(median) and (own not in units or units[own] * _CLEAR >= max(units.values()))
    ]
    typical = typical or [median for median in medians if math.isfinite(median)]
    middle = float(np.median(typical))
    return DepthCheck(spec, looked[0].figures.integer, min(typical), middle, max(typical))


def _settle_spec(looked: Sequence[Looked], options: DepthOptions, by: str) -> _Guess:
    figures = looked[0].figures
    invalid = options.invalid_values
    if invalid is None:
        invalid = (0.0, float(saturation(figures.values.dtype))) if figures.integer else (0.0,)
        if options.kind == "relative":
            invalid = ()
    spec = DepthSpec(
        kind=options.kind or "metric",
        unit=options.unit,  # type: ignore[arg-type]  # mappings are resolved by now
        scale=options.scale,  # type: ignore[arg-type]
        invalid_values=tuple(invalid),
        min_depth=options.min_depth,
        max_depth=options.max_depth,
    )
    if options.states_meaning and not (spec.kind == "metric" and options.unit is options.scale is None):
        return _Guess(spec, f"as given by {by}", {})
    # The bounds wait until the unit is known: a wrong unit must not hide behind them.
    free = replace(spec, min_depth=None, max_depth=None)
    if not any(np.isfinite(free.decode(each.figures.values)).any() for each in looked):
        return _Guess(spec, "nothing is valid", {})
    return _guess_unit(looked, spec)


def _guess_unit(looked: Sequence[Looked], spec: DepthSpec) -> _Guess:
    """The unit that most files vote for.

    Raises:
        DepthUnitError: none is plausible, or two are alike.
    """
    valid = [each for each in looked if each.figures.valid]
    _question_display_depth(valid)
    stored = float(np.median([each.figures.median for each in valid]))
    opinions = [units for each in valid if (units := shares(each.figures))]
    if len(opinions) * 2 < len(valid):
        _refuse_unknown(stored, valid)
    ballot = Counter(max(units, key=units.__getitem__) for units in opinions).most_common()
    best, most = ballot[0]
    of_majority = [units for units in opinions if max(units, key=units.__getitem__) == best]
    named = {unit for units in of_majority for unit in units}
    mean = {unit: float(np.mean([units.get(unit, 0.0) for units in of_majority])) for unit in named}
    ranked = sorted(mean.items(), key=lambda entry: -entry[1])
    medians = {unit: _median_as(unit, valid) for unit in {*mean, *dict(ballot)}}
    support = mean[best]
    alike = [unit for unit, value in ranked if value * _CLEAR >= support]
    contested = tuple(unit for unit, count in ballot if count * _CLEAR >= most)
    if len(alike) > 1:
        alike += [unit for unit, value in ranked if value * _ALSO_SHOWN >= support and unit not in alike]
        _refuse_tie(alike, medians, valid)
    others = [unit for unit, value in ranked[1:] if value >= _WORTH_SAYING * support][:_MOST_SAID]
    kind = "integers" if valid[0].figures.integer else "floats"
    reason = f"guessed from {kind} with a median of {stored:g}"
    if best == "sunrgbd":
        reason += ", nearly all of them multiples of 8: SUN RGB-D's rotated bits"
    return _Guess(spec.with_changes(unit=best), reason, {unit: medians[unit] for unit in others}, contested)


def _median_as(unit: str, looked: Sequence[Looked]) -> float:
    if unit == "sunrgbd":
        return float(np.median([each.figures.median_rotated / 1000.0 for each in looked]))
    return float(np.median([each.figures.median / UNITS_PER_METRE[unit] for each in looked]))


def _question_display_depth(looked: Sequence[Looked]) -> None:
    """Refuse 8-bit files and floats that fill 0 to 1: pictures of depth more often than depth."""
    name = looked[0].path
    if looked[0].figures.eight_bit:
        median = float(np.median([each.figures.median for each in looked]))
        raise DepthUnitError(
            f"the depth files are 8-bit (median {median:g}, for example {name}): this is how depth is displayed, but "
            f"rarely how it is measured. What does a value of {median:g} mean? {HOW_TO_STATE}"
        )
    if looked[0].figures.integer:
        return
    values = np.concatenate([each.figures.values for each in looked])
    values = values[np.isfinite(values) & (values > 0)]
    if 0.5 < float(values.max()) <= 1.0 and float(values.min()) < 0.05:
        raise DepthUnitError(
            f"the depth values are floats that fill the range 0 to 1 (for example {name}): "
            f"are they metres, a share of some maximum, or a network's disparity? {HOW_TO_STATE}"
        )


def _refuse_unknown(stored: float, looked: Sequence[Looked]) -> None:
    far = float(np.median([each.figures.far for each in looked]))
    units = ("millimetre", "centimetre", "metre") if not looked[0].figures.integer else ("millimetre", "tum", "kitti")
    would_be = ", ".join(f"{_median_as(unit, looked):,.4g} m as {unit}" for unit in units)
    raise DepthUnitError(
        f"the median stored depth is {stored:g} (99 % lie below {far:g}, for example {looked[0].path}): that would be "
        f"{would_be}, none of which is plausible. What unit is it? {HOW_TO_STATE}"
    )


def units_to_choose(message: str) -> dict[str, str]:
    """Unit -> the median that it gives, of the message that several units are as plausible; {} of any other."""
    return {unit: f"{median} m" for median, unit in _CHOICE.findall(message)}


def _refuse_tie(units: Sequence[str], medians: Mapping[str, float], looked: Sequence[Looked]) -> None:
    stored = float(np.median([each.figures.median for each in looked]))
    listing = "; ".join(f"{medians[unit]:.3g} m as {unit}: --data.options.depth_unit {unit}" for unit in units)
    raise DepthUnitError(
        f"the unit of depth is ambiguous: the median stored value is {stored:g} (for example {looked[0].path}), which "
        f"may be any of these: {listing}. Pass the right one (depth_unit={' or depth_unit='.join(units)}), or "
        "depth_scale (stored value / scale = metres)."
    )


def _refuse_implausible(spec: DepthSpec, median: float, looked: Sequence[Looked], stated: bool) -> None:
    if NEAREST_MEDIAN <= median <= FARTHEST_MEDIAN:
        return
    stored = median * (spec.scale or 1.0)
    units = plausibilities(looked[0].figures)
    best = max((unit for unit in units if unit != spec.unit), key=units.__getitem__, default="none")
    suggestion = ""
    if units.get(best, 0) > 0 and NEAREST_MEDIAN <= stored / UNITS_PER_METRE[best] <= FARTHEST_MEDIAN:
        suggestion = f" Is it depth_unit={best}, which would make it {stored / UNITS_PER_METRE[best]:.3g} m?"
    origin = "the stated" if stated else "the assumed"
    raise DepthUnitError(
        f"with {origin} unit ({spec.describe()}) the median depth is {median:,.4g} m (stored median {stored:g}, for "
        f"example {looked[0].path}), which no depth camera measures.{suggestion} {HOW_TO_STATE}"
    )


def _refuse_blank(spec: DepthSpec, looked: Sequence[Looked], options: DepthOptions, total: int) -> None:
    free = replace(spec, min_depth=None, max_depth=None)
    unbounded = np.concatenate([free.decode(each.figures.values) for each in looked])
    if spec.kind == "metric" and np.isfinite(unbounded).any():
        _refuse_implausible(spec, float(np.nanmedian(unbounded)), looked, options.states_meaning)
    raise DataError(
        f"all depth is invalid: not one valid pixel in {len(looked)} of {total} files (for "
        f"example {looked[0].path}; {spec.describe()}). Check the files, the option invalid_values and the "
        "depth bounds."
    )


@lru_cache(maxsize=256)
def _announce(message: str) -> None:
    # Training and evaluation data judge the same files; once said is enough.
    logger.warning("%s", message)


def _describe(
    guess: _Guess,
    spec: DepthSpec,
    valid: np.ndarray,
    shares: tuple[float, float],
    looked: Sequence[Looked],
    total: int,
) -> list[str]:
    low, median, most, high = np.percentile(valid, [1, 50, 95, 99])
    unit = " m" if spec.kind == "metric" else ""
    saturated = f" ({shares[1]:.1%} saturated)" if shares[1] > 0 else ""
    lines = [
        f"depth read as {spec.describe()}, {guess.reason}",
        f"this gives a median of {median:.3g}{unit}, 98 % between {low:.3g} and {high:.3g}{unit}, {shares[0]:.1%} "
        f"invalid{saturated}, over {len(looked)} of {plural(total, 'file')}",
    ]
    if spec.kind == "metric" and high > _FAR_BEYOND * most:
        lines.append(
            f"the farthest 1 % lie at {high:.3g} m and more, far beyond the rest (95 % below {most:.3g} m); if nothing "
            f"was measured there, pass --data.options.max_depth {math.sqrt(high * most):.2g}"
        )
    return lines


def _less_plausible(guess: _Guess) -> list[str]:
    if not guess.others:
        return []
    told = ", ".join(f"{unit} {metres:.3g} m" for unit, metres in guess.others.items())
    return [f"less plausible units and the median in them: {told}; the right one is set by --data.options.depth_unit"]
