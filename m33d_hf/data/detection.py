"""Guesses what a data set's stored depth values mean, says so loudly, and refuses nonsense.

Kinect exports are millimetres, the TUM benchmark stores 1/5000 m, some Kinect v2 tools 0.1 mm, SUN RGB-D
rotates its bits, and an 8-bit file is usually a picture of depth rather than depth. None of them says so in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from m33d_hf.data.files import read_map
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError
from m33d_hf.modeling.depth_m33d import UNITS_PER_METRE, DepthSpec

logger = logging.getLogger(__name__)

# A median outside these (metres) is a wrong unit, whoever asked for it.
NEAREST_MEDIAN, FARTHEST_MEDIAN = 0.01, 100.0
# What indoor sensors give: the limits inside which a unit is believed without being told.
_BELIEVABLE_MEDIAN, _BELIEVABLE_FAR = 6.0, 15.0
_PIXELS_PER_FILE = 20_000
# The common units differ by factors of 5 and 10; the scenes of one data set seldom by as much.
_MIXED_UNITS = 5.0
_SUN_ROTATION = 8  # SUN RGB-D rotates by 3 bits: stored = 8 x millimetres below 8.192 m
_FIX = (
    "Pass depth_unit (metre, centimetre, millimetre, tum = 1/5000 m, tenth_millimetre) or depth_scale "
    "(stored value / scale = metres), or depth_kind (inverse, relative) if the values are no distances."
)


@dataclass(frozen=True)
class DepthOptions:
    """What the user states about depth; None = to be guessed. Fields as in `DepthSpec`."""

    unit: str | None = None
    scale: float | None = None
    kind: str | None = None
    invalid_values: tuple[float, ...] | None = None
    min_depth: float | None = None
    max_depth: float | None = None

    @property
    def states_meaning(self) -> bool:
        """Whether unit, scale or kind was given, so that nothing is guessed."""
        return self.unit is not None or self.scale is not None or self.kind is not None


@dataclass(frozen=True)
class Detection:
    """What was assumed, and the figures that let a person object.

    Attributes:
        spec: how stored values are decoded.
        median: median of the valid decoded values: metres, or unitless for inverse and relative depth.
        invalid_fraction: share of the sampled pixels without depth, in [0, 1].
        saturated_fraction: share at the data type's largest value (65535, 255), in [0, 1]; 0 for floats.
        message: one sentence or two for the log.
    """

    spec: DepthSpec
    median: float
    invalid_fraction: float
    saturated_fraction: float
    message: str


@dataclass(frozen=True)
class _Sample:
    """Stored values of a few files, thinned; `names` are the files that could be read."""

    values: np.ndarray
    names: list[str]
    total: int
    medians: list[float]

    @property
    def saturated_fraction(self) -> float:
        if self.values.dtype.kind == "f":
            return 0.0
        return float((self.values == _saturation(self.values.dtype)).mean())


def _saturation(dtype: np.dtype) -> int:
    # Pillow widens some 16-bit files to 32 bits; their saturation stays at 65535.
    return 255 if dtype.itemsize == 1 else 65535


def evenly_spaced(items: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of `items`, spread from first to last; the same ones every time."""
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / max(1, count - 1)
    return [items[round(i * step)] for i in range(count)]


def _take_sample(files: Sequence[Path], max_files: int) -> _Sample:
    chosen = evenly_spaced(files, max_files)
    parts: list[np.ndarray] = []
    names: list[str] = []
    problems: list[str] = []
    for file in chosen:
        try:
            values = read_map(file)
        except CorruptFileError as error:
            problems.append(str(error))
            continue
        except DataError as error:
            raise DepthUnitError(f"{error} {_FIX}") from error
        flat = values.ravel()
        parts.append(flat[:: max(1, flat.size // _PIXELS_PER_FILE)])
        names.append(str(file))
    if not parts:
        raise DataError(f"none of {len(chosen)} depth files could be read; the first: {problems[0]}")
    # 16 and 32 bits may mix: Pillow widens some files. Floats or 8 bits beside them are another unit.
    if len({"f" if part.dtype.kind == "f" else part.dtype.itemsize == 1 for part in parts}) > 1:
        dtypes = ", ".join(sorted({str(part.dtype) for part in parts}))
        raise DepthUnitError(
            f"the depth files hold different kinds of numbers ({dtypes}; for example {names[0]}); one data set "
            "needs one unit. Keep them apart, or convert them."
        )
    valid = [part[np.isfinite(part) & (part > 0) & (part != _saturation(part.dtype))] for part in parts]
    medians = [float(np.median(part)) for part in valid if part.size]
    return _Sample(np.concatenate(parts), names, len(files), medians)


def _guess_scale(sample: _Sample) -> tuple[float, str, list[float]]:
    """Return (scale, reason, other scales that would also be believable).

    Raises:
        DepthUnitError: values that no known unit makes a distance.
    """
    values = sample.values
    stored = values[np.isfinite(values) & (values > 0) & (values != _saturation(values.dtype))]
    median, far = float(np.median(stored)), float(np.percentile(stored, 99))
    if values.dtype.itemsize == 1:
        raise DepthUnitError(
            f"the depth files are 8-bit (median {median:g}, for example {sample.names[0]}): that is how depth "
            f"is displayed, seldom how it is measured. What does a value of {median:g} mean? {_FIX}"
        )
    if values.dtype.kind == "f":
        if 0.5 < float(stored.max()) <= 1.0 and float(stored.min()) < 0.05:
            raise DepthUnitError(
                f"the depth values are floats that fill the range 0 to 1 (for example {sample.names[0]}): "
                f"are they metres, a share of some maximum, or a network's disparity? {_FIX}"
            )
        if median <= FARTHEST_MEDIAN:
            return 1.0, "float values of that size are metres", []
        return 1000.0, f"a float median of {median:g} cannot be metres", []
    if far > 8192 and not np.bitwise_and(stored.astype(np.int64), _SUN_ROTATION - 1).any():
        scale = 1000.0 * _SUN_ROTATION
        return scale, "all values are multiples of 8, the mark of SUN RGB-D's rotated bits", [5000.0]
    believable = [
        scale
        for scale, limit in ((1000.0, _BELIEVABLE_MEDIAN), (5000.0, 4.5), (10000.0, _BELIEVABLE_MEDIAN))
        if NEAREST_MEDIAN <= median / scale <= limit and far / scale <= _BELIEVABLE_FAR
    ]
    if not believable:
        raise DepthUnitError(
            f"the median stored depth is {median:g} (99 % lie below {far:g}, for example {sample.names[0]}): "
            f"that would be {median / 1000:g} m in millimetres and {median / 5000:g} m in 1/5000 m, neither of "
            f"which an indoor sensor measures. What unit is it? {_FIX}"
        )
    reason = f"{sample.values.dtype} values with a median of {median:g}"
    others = [scale for scale in believable[1:] if median / scale >= 0.3]
    return believable[0], reason, others


def _settle_spec(sample: _Sample, options: DepthOptions) -> tuple[DepthSpec, str, list[float]]:
    invalid = options.invalid_values
    if invalid is None:
        integer = sample.values.dtype.kind != "f"
        invalid = (0.0, float(_saturation(sample.values.dtype))) if integer else (0.0,)
        if options.kind == "relative":
            invalid = ()
    spec = DepthSpec(
        kind=options.kind or "metric",
        unit=options.unit,
        scale=options.scale,
        invalid_values=invalid,
        min_depth=options.min_depth,
        max_depth=options.max_depth,
    )
    if options.states_meaning and not (spec.kind == "metric" and options.unit is options.scale is None):
        return spec, "as stated by the options", []
    # The bounds wait until the unit is known: a wrong unit must not hide behind them.
    if not np.isfinite(replace(spec, min_depth=None, max_depth=None).decode(sample.values)).any():
        return spec, "nothing is valid", []
    scale, reason, others = _guess_scale(sample)
    return spec.with_changes(scale=scale), f"guessed: {reason}", others


def _refuse_implausible(spec: DepthSpec, median: float, sample: _Sample, stated: bool) -> None:
    if NEAREST_MEDIAN <= median <= FARTHEST_MEDIAN:
        return
    stored = median * (spec.scale or 1.0)
    suggestion = ""
    for unit in ("millimetre", "metre", "tum", "tenth_millimetre"):
        scale = UNITS_PER_METRE[unit]
        if 0.1 <= stored / scale <= _BELIEVABLE_MEDIAN:
            suggestion = f" Is it depth_unit={unit}, which would make it {stored / scale:.3g} m?"
            break
    origin = "the stated" if stated else "the assumed"
    raise DepthUnitError(
        f"with {origin} unit ({spec.describe()}) the median depth is {median:,.4g} m (stored median {stored:g}, "
        f"for example {sample.names[0]}), which no camera measures.{suggestion} {_FIX}"
    )


@lru_cache(maxsize=256)
def _announce(message: str, level: int) -> None:
    # Training and evaluation data judge the same files; once said is enough.
    logger.log(level, message)


def detect_depth_spec(
    files: Iterable[Path | str], hint: DepthOptions | DepthSpec | None = None, max_files: int = 12
) -> Detection:
    """Decide how the depth files of one data set are decoded, from a sample of them.

    Args:
        files: depth files in a fixed order; at most `max_files` of them, evenly spaced, are read.
        hint: what the user states. A stated unit is used, but still refused when it makes no sense.

    Raises:
        DepthUnitError: 8-bit display depth or values of unknown meaning without a stated unit; a metric
            median below 1 cm or above 100 m.
        DataError: no file, no readable file, or not one valid pixel in the sample.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise DataError("no depth files to look at")
    if isinstance(hint, DepthSpec):
        hint = DepthOptions(
            hint.unit if hint.kind == "metric" else None,
            hint.scale,
            hint.kind,
            tuple(hint.invalid_values),
            hint.min_depth,
            hint.max_depth,
        )
    options = hint or DepthOptions()
    sample = _take_sample(paths, max_files)
    spec, reason, others = _settle_spec(sample, options)
    decoded = spec.decode(sample.values)
    valid = decoded[np.isfinite(decoded)]
    if not valid.size:
        unbounded = replace(spec, min_depth=None, max_depth=None).decode(sample.values)
        if spec.kind == "metric" and np.isfinite(unbounded).any():
            median = float(np.nanmedian(unbounded))
            _refuse_implausible(spec, median, sample, options.states_meaning)
        raise DataError(
            f"all depth is invalid: not one valid pixel in {len(sample.names)} of {sample.total} files (for "
            f"example {sample.names[0]}; {spec.describe()}). Check the files, the option invalid_values and the "
            "depth bounds."
        )
    median = float(np.median(valid))
    if spec.kind == "metric":
        _refuse_implausible(spec, median, sample, options.states_meaning)
    invalid_fraction = 1.0 - valid.size / decoded.size
    message = _describe(spec, reason, others, valid, invalid_fraction, sample)
    _announce(message, logging.INFO if reason.startswith("as stated") else logging.WARNING)
    return Detection(spec, median, invalid_fraction, sample.saturated_fraction, message)


def _describe(
    spec: DepthSpec,
    reason: str,
    others: list[float],
    valid: np.ndarray,
    invalid_fraction: float,
    sample: _Sample,
) -> str:
    low, median, high = np.percentile(valid, [1, 50, 99])
    unit = " m" if spec.kind == "metric" else ""
    message = (
        f"depth read as {spec.describe()} ({reason}): median {median:.3g}{unit}, 98 % between {low:.3g} and "
        f"{high:.3g}{unit}, {invalid_fraction:.1%} invalid"
    )
    if sample.saturated_fraction > 0:
        message += f" ({sample.saturated_fraction:.1%} saturated)"
    message += f", over {len(sample.names)} of {sample.total} files."
    if sample.medians and max(sample.medians) > _MIXED_UNITS * min(sample.medians):
        near, far = (median / (spec.scale or 1.0) for median in (min(sample.medians), max(sample.medians)))
        message += f" The medians of single files lie between {near:.3g} and {far:.3g}{unit}: are their units mixed?"
    for scale in others:
        other = DepthSpec(scale=scale)
        option = f"depth_unit={other.unit}" if other.unit != "custom" else f"depth_scale={scale:g}"
        median_then = median * (spec.scale or 1.0) / scale
        word = f"--data.options.{option.replace('=', ' ')}"
        message += f" Were stored values 1/{scale:g} m, it would be {median_then:.3g} m: then pass {option} ({word})."
    return message
