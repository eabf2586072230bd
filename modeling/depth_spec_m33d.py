# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What a stored depth value means: a `DepthSpec` turns it into metres, once, when a file is read.

Nothing downstream divides by 1000. Types stand with the fields and ranges above them, and one function checks both for
options, for depth_spec.json and for whoever builds a `DepthSpec` in Python.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from .errors_m33d import ConfigError, DepthUnitError, nearest_name_hint
from .fields_m33d import Range, check_value, shown

DEPTH_KINDS = ("metric", "inverse", "relative")
# Stored units per metre. 1/5000 m is the TUM RGB-D benchmark's unit, 0.1 mm that of some Kinect v2 exports, 1/4000 m
# RealSense L515's, 1/256 m KITTI's. SUN RGB-D stores millimetres with their 16 bits rotated by 3: eight times as much
# below 8.192 m, and the upper bits at the bottom from there on.
UNITS_PER_METRE = {
    "metre": 1.0,
    "centimetre": 100.0,
    "millimetre": 1000.0,
    "tum": 5000.0,
    "tenth_millimetre": 10000.0,
    "quarter_millimetre": 4000.0,
    "kitti": 256.0,
    "sunrgbd": 8000.0,
}
ROTATED_UNIT, _ROTATED_BITS = "sunrgbd", 3
# A scale alone is called by one of these; the younger names must not change what older data sets are called, and so
# their digests. A scale of 8000 says nothing of rotated bits.
_NAMES_BY_SCALE = {
    UNITS_PER_METRE[name]: name for name in ("metre", "centimetre", "millimetre", "tum", "tenth_millimetre")
}
_UNIT_ALIASES = {
    "m": "metre",
    "meter": "metre",
    "cm": "centimetre",
    "centimeter": "centimetre",
    "mm": "millimetre",
    "millimeter": "millimetre",
    "l515": "quarter_millimetre",
    "sun": "sunrgbd",
}
_LARGEST = 1e38  # what float32 holds; larger than any number that a depth map stores or means
_VALUES = Range(low=-_LARGEST, high=_LARGEST)
DEPTH_SCALE = Range(low=1e-6, high=1e9)  # stored units per metre
SPEC_RANGES: Mapping[str, Range] = {
    "scale": DEPTH_SCALE,
    "invalid_values": replace(_VALUES, fewest=0, most=1000),
    "min_depth": _VALUES,
    "max_depth": _VALUES,
}


def choice(value: object, known: Sequence[str], what: str) -> str:
    """`value` where it is one of `known`.

    Raises:
        ConfigError: it is not; `what` says what it was meant to be.
    """
    if not isinstance(value, str) or value not in known:
        hint = nearest_name_hint(value, known) if isinstance(value, str) else ""
        raise ConfigError(f"{what} is {shown(value)}; it must be one of {', '.join(known)}.{hint}")
    return value


@functools.cache
def _types() -> dict[str, Any]:
    """Field -> type of a `DepthSpec`."""
    return typing.get_type_hints(DepthSpec)


def check_spec_field(name: str, value: object, label: str) -> None:
    """Compare one value with type and range of the field of `DepthSpec` that is called `name`.

    Args:
        label: what messages call it.

    Raises:
        ConfigError: with the label, the value and what was expected.
    """
    if name == "kind":
        choice(value, DEPTH_KINDS, label)
    else:
        check_value(label, value, _types()[name], SPEC_RANGES.get(name))


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's number, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def listed(values: Any) -> Any:
    """A list, array or whatever can be looked through once as a tuple, everything else as it is."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return values
    return tuple(values)


@dataclass(frozen=True)
class DepthSpec:
    """The meaning of one data set's stored depth values.

    Attributes:
        kind: `metric` (distance along the optical axis), `inverse` (1 / distance up to a factor: disparity),
            or `relative` (an order, no unit). Only `metric` values are metres after decoding.
        unit: name of the stored unit: `metre`, `centimetre`, `millimetre`, `tum` (1/5000 m),
            `tenth_millimetre`, `quarter_millimetre` (1/4000 m, RealSense L515), `kitti` (1/256 m), `sunrgbd`
            (millimetres whose 16 bits are rotated by 3, which decoding takes back), `custom` (whatever `scale` says)
            or `none` (inverse and relative). Derived from `scale` when left out.
        scale: stored value / scale = metres, 1e-6 to 1e9; 1000 for millimetres. Derived from `unit` when left out.
        invalid_values: stored values that mean "nothing measured". NaN and infinity always do; so do values
            <= 0 of metric and inverse maps, whatever is listed here.
        min_depth, max_depth: decoded values outside this closed range are invalid; None = no bound.

    Raises:
        ConfigError: a field of another type, an unknown kind or unit, a scale out of its range, a unit and scale
            that disagree, or bounds that leave nothing.
    """

    kind: str = "metric"
    unit: str | None = None
    scale: float | None = None
    invalid_values: tuple[float, ...] = (0, 65535)
    min_depth: float | None = None
    max_depth: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "invalid_values", listed(self.invalid_values))
        for each in fields(self):
            check_spec_field(each.name, getattr(self, each.name), f"depth {each.name}")
        object.__setattr__(self, "invalid_values", tuple(_plain(value) for value in self.invalid_values))
        for name in ("min_depth", "max_depth"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        unit, scale = self._settle_unit()
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "scale", scale)
        if self.min_depth is not None and self.max_depth is not None and self.min_depth >= self.max_depth:
            raise ConfigError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}")
        if self.kind != "relative" and self.max_depth is not None and self.max_depth <= 0:
            raise ConfigError(
                f"max_depth is {self.max_depth}; {self.kind} depth is always above 0, so no valid pixel would be left; "
                "set it above 0"
            )

    def _settle_unit(self) -> tuple[str, float]:
        """Return unit name and scale, each derived from the other where only one was given."""
        scale = None if self.scale is None else float(self.scale)
        if self.kind != "metric":
            if self.unit not in (None, "none", *UNITS_PER_METRE, *_UNIT_ALIASES, "custom"):
                choice(self.unit, ("none", *UNITS_PER_METRE), "the depth unit")
            return "none", 1.0 if scale is None else scale
        if self.unit is None:
            scale = 1000.0 if scale is None else scale
            return _NAMES_BY_SCALE.get(scale, "custom"), scale
        unit = _UNIT_ALIASES.get(self.unit, self.unit)
        choice(unit, (*UNITS_PER_METRE, "custom"), "the depth unit")
        if unit == "custom":
            if scale is None:
                raise ConfigError("depth unit 'custom' requires a scale: stored value / scale = metres")
            return unit, scale
        if scale is not None and scale != UNITS_PER_METRE[unit]:
            raise ConfigError(
                f"depth unit {unit!r} means {UNITS_PER_METRE[unit]:g} per metre, but scale is {scale:g}; "
                "give only one of them"
            )
        return unit, UNITS_PER_METRE[unit]

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Turn stored values of any shape and real dtype into float32 metres (or unitless), NaN = invalid.

        Raises:
            DepthUnitError: values that the unit `sunrgbd` cannot rotate: no integers, or more than 16 bits.
        """
        stored = np.asarray(stored)
        # float32 holds every 16-bit integer exactly; wider values are divided before they are rounded.
        small = stored.dtype.itemsize <= 2 and stored.dtype.kind in "ui"
        exact = np.float32 if small else np.float64
        divisor = self.scale or 1.0
        if self.kind == "metric" and self.unit == ROTATED_UNIT:
            decoded, divisor = rotated_back(stored).astype(exact), divisor / (1 << _ROTATED_BITS)
        else:
            decoded = stored.astype(exact)
        decoded /= exact(divisor)
        decoded = decoded.astype(np.float32, copy=False)
        if small and 1e-30 < divisor < 1e30:
            # Neither infinite nor rounded to 0: integers tell what is invalid, in a fraction of the time.
            invalid = stored <= 0 if self.kind != "relative" else np.zeros(stored.shape, bool)
            marks: list[float] = [int(value) for value in self.invalid_values if float(value).is_integer()]
        else:
            invalid = ~np.isfinite(decoded)
            if self.kind != "relative":
                invalid |= decoded <= 0
            marks = list(self.invalid_values)
        for value in marks:
            if value or self.kind == "relative":
                invalid |= stored == value
        if self.min_depth is not None:
            invalid |= decoded < self.min_depth
        if self.max_depth is not None:
            invalid |= decoded > self.max_depth
        np.copyto(decoded, np.float32(np.nan), where=invalid)
        return decoded

    def describe(self) -> str:
        """One line for logs and cards."""
        invalid = ", ".join(f"{value:g}" for value in self.invalid_values) or "none"
        if self.kind != "metric":
            return f"{self.kind} depth without a unit (stored / {self.scale:g}; invalid values {invalid})"
        bounds = ""
        if self.min_depth is not None or self.max_depth is not None:
            low = "-inf" if self.min_depth is None else f"{self.min_depth:g}"
            high = "inf" if self.max_depth is None else f"{self.max_depth:g}"
            bounds = f", kept between {low} and {high} m"
        how = f"stored / {self.scale:g} = metres"
        if self.unit == ROTATED_UNIT:
            how = "millimetres with their 16 bits rotated by 3"
        return f"metric depth in {self.unit} ({how}; invalid values {invalid}{bounds})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `from_dict` is its inverse."""
        return {**asdict(self), "invalid_values": list(self.invalid_values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DepthSpec:
        """Build from `to_dict` output.

        Raises:
            ConfigError: an unknown key, with a nearest-name hint, or what the class says.
        """
        known = [each.name for each in fields(cls)]
        for key in values:
            choice(key, known, "a DepthSpec key")
        return cls(**values)

    def with_changes(self, **changes: Any) -> DepthSpec:
        """A copy with other fields; give `unit` or `scale`, the other follows."""
        if ("scale" in changes) != ("unit" in changes):
            changes.setdefault("scale", None)
            changes.setdefault("unit", None)
        return replace(self, **changes)


def rotated_back(stored: np.ndarray) -> np.ndarray:
    """SUN RGB-D's stored values (any shape, integers of 16 bits) as millimetres, uint16.

    Stored is d << 3 with the three bits that leave at the top put in at the bottom.

    Raises:
        DepthUnitError: floats, or integers outside 0 to 65535.
    """
    wide = stored.dtype.kind in "ui" and stored.dtype.itemsize > 2 and stored.size
    if stored.dtype.kind not in "ui" or (wide and (int(stored.min()) < 0 or int(stored.max()) >> 16)):
        raise DepthUnitError(
            f"the unit {ROTATED_UNIT!r} requires 16-bit integers, but the values are {stored.dtype}. Choose "
            "another unit; if the bits are already rotated back, use millimetre."
        )
    bits = stored.astype(np.uint16)
    return (bits >> _ROTATED_BITS) | (bits << (16 - _ROTATED_BITS))
