"""Advice if an annotation and its video differ in length: another rate that would fit, or a tolerance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from m33d_hf.data.sources.phases.annotations import Annotation

if TYPE_CHECKING:  # which imports this file
    from m33d_hf.data.sources.phases.alignment import Timing

_COMMON_RATES = (1.0, 2.0, 5.0, 10.0, 12.5, 15.0, 20.0, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0)
_LEAST_FIT, _MOST_FIT = 0.8, 1.01  # of the video that an annotation in the right unit covers


def tolerate(steps: float) -> str:
    """The option that accepts an annotation which is longer by so many label steps."""
    allowed = math.ceil(steps - 1e-6)
    return f"pass --data.options.length_tolerance={allowed}, the number of label steps allowed after its end"


def _fitting_rate(end: float, step: float, timing: Timing) -> float | None:
    """A usual rate other than the video's at which the annotation would be as long as the video."""
    if not timing.fps:
        return None
    others = [rate for rate in _COMMON_RATES if abs(timing.fps / rate - 1) > 0.01]
    frames = timing.num_frames + (timing.lost if math.isfinite(timing.lost) else 0)
    differences = {rate: abs(end * timing.fps / rate - frames) for rate in others}
    best = min(others, key=differences.__getitem__)
    close = differences[best] <= max(step * timing.fps / best, 1.0, 1e-3 * frames)
    return best if close else None


def best_rate(annotation: Annotation, end: float, step: float, timing: Timing) -> float | None:
    """As `_fitting_rate`, also of an annotation whose first number is 1 as if it counted from there."""
    counted_from_one = timing.first == 0 and float(annotation.starts[0]) == 1.0
    ends = [end, end - 1] if counted_from_one else [end]
    return next((rate for last in ends if (rate := _fitting_rate(last, step, timing)) is not None), None)


def rate_hint(annotation: Annotation, end: float, step: float, timing: Timing) -> str:
    """Advice of a usual rate, where one fits: what was annotated at 1.01 per second was annotated at another length."""
    if timing.fps is None:
        return " If labels are numbered at another rate, pass both --data.options.fps and --data.options.label_fps."
    rate = best_rate(annotation, end, step, timing)
    if rate is None:
        return " If labels are numbered at another rate, pass it with --data.options.label_fps."
    return f" At {rate:g} fps they would match: if this is the label rate, pass --data.options.label_fps={rate:g}."


def unit_hint(annotation: Annotation, end: float, timing: Timing) -> str:
    """Advice of another unit of a table of segments, where its last number in that unit is as long as the video."""
    if annotation.kind != "segments" or not timing.fps:
        return ""
    other = {"seconds": end} if annotation.unit == "frames" else {"frames": end / timing.fps}
    numbers = {**other, "milliseconds": end / 1000}
    fitting = [unit for unit, seconds in numbers.items() if _LEAST_FIT <= seconds / timing.duration <= _MOST_FIT]
    if not fitting:
        return ""
    columns = {"frames": "start_frame and end_frame", "seconds": "start_seconds and end_seconds"}
    named = columns.get(fitting[0], "start_ms and end_ms")
    return (
        f" As {fitting[0]} they would match: if that is the unit, call the columns {named}, or pass "
        f"--data.options.segment_unit={fitting[0]}."
    )
