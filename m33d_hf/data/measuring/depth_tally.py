"""Statistics of many depth maps in constant memory: a histogram with bins of 1 %, and counts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from m33d_hf.modeling.depth_spec_m33d import DepthSpec

_RATIO = math.log(1.01)
_NOT_POSITIVE = -1_000_000  # the bin of values that have no logarithm, which relative depth may have
_VALUES_PER_FRAME = 4096
_ROTATED, _ROTATED_SHARE, _LEAST_VALUES = 8, 0.97, 1000
_LARGEST_STORED = 65535


@dataclass
class DepthTally:
    """What is known of the depth of some frames; tallies are added up in any order.

    Attributes:
        frames, blank: depth maps, and those without any valid pixel.
        pixels, invalid: of all these maps.
        bins: number of the bin (1 % of the value each) -> sampled values; metres, or unitless.
        stored, eighths, sixteenths: sampled values that were stored as 16-bit integers, and how many of these are
            multiples of 8 and of 16.
        saturated: how many are 65535 and taken for depth.
        largest: of the stored integers.
    """

    frames: int = 0
    blank: int = 0
    pixels: int = 0
    invalid: int = 0
    stored: int = 0
    eighths: int = 0
    sixteenths: int = 0
    saturated: int = 0
    largest: int = 0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, depth_HW: np.ndarray, spec: DepthSpec | None) -> bool:
        """Count one map (NaN = invalid); returns whether it has a valid pixel."""
        valid = depth_HW[np.isfinite(depth_HW)]
        self.frames += 1
        self.pixels += depth_HW.size
        self.invalid += depth_HW.size - valid.size
        self.blank += not valid.size
        values = valid[:: max(1, valid.size // _VALUES_PER_FRAME)].astype(np.float64)
        bins = np.full(values.shape, _NOT_POSITIVE, dtype=np.int64)
        positive = values > 0
        bins[positive] = np.rint(np.log(values[positive]) / _RATIO)
        numbers, counts = np.unique(bins, return_counts=True)
        self.bins.update(dict(zip(numbers.tolist(), counts.tolist())))
        if spec is not None and spec.kind == "metric" and spec.scale is not None and spec.scale > 1:
            self._count_multiples(values * spec.scale)
        return bool(valid.size)

    def _count_multiples(self, stored: np.ndarray) -> None:
        whole = np.rint(stored)
        whole = whole[(np.abs(stored - whole) < 0.01) & (whole <= _LARGEST_STORED)].astype(np.int64)
        self.stored += whole.size
        self.eighths += int((whole % _ROTATED == 0).sum())
        self.sixteenths += int((whole % (2 * _ROTATED) == 0).sum())
        self.saturated += int((whole == _LARGEST_STORED).sum())
        self.largest = max(self.largest, int(whole.max(initial=0)))

    def merge(self, other: DepthTally) -> None:
        """Add another tally to this one."""
        for name in ("frames", "blank", "pixels", "invalid", "stored", "eighths", "sixteenths", "saturated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)
        self.bins.update(other.bins)

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the sampled pixels lie, to within 1 %; None without any."""
        total = sum(self.bins.values())
        if not total:
            return None
        seen = 0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= share * total:
                return _value(number)
        return _value(max(self.bins))

    @property
    def invalid_share(self) -> float:
        """Share of the pixels without depth."""
        return self.invalid / self.pixels if self.pixels else 0.0

    @property
    def eight_bits(self) -> bool:
        """Whether no stored integer needs more than 8 bits."""
        return self.stored >= _LEAST_VALUES and self.largest < 256

    @property
    def looks_rotated(self) -> bool:
        """Whether nearly all stored values are multiples of 8, and not just of a coarser step: SUN RGB-D rotates the
        bits of its millimetres by three, so that read as they are they are eight times too large."""
        if self.stored < _LEAST_VALUES or self.eighths < _ROTATED_SHARE * self.stored:
            return False
        return self.sixteenths < 0.75 * self.eighths

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "bins": {str(number): count for number, count in sorted(self.bins.items())}}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> DepthTally:
        """The inverse of `to_dict`."""
        return cls(**{**found, "bins": Counter({int(number): count for number, count in found["bins"].items()})})


def _value(number: int) -> float:
    return 0.0 if number == _NOT_POSITIVE else math.exp(number * _RATIO)
