"""Finds out from the whole data set whether annotations number frames (or seconds) from 0 or from 1, or asks the user.

A file from 1 that is read from 0 puts every label one step late: a frame, or at one label a second a whole second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from m33d_hf.data.sources.phases.alignment import Timing, frame_phases, is_counted
from m33d_hf.data.sources.phases.annotations import Annotation
from m33d_hf.errors import ConfigError, DataError

_HOW = "--data.options.label_start=1 (or 0)"


def first_number(
    annotations: Mapping[str, Annotation], timing_of: Callable[[str], Timing | None], stated: int | None = None
) -> tuple[int, str | None]:
    """The number that annotations give to the first frame, the same for a whole data set, and a sentence about it.

    A 0 anywhere settles it. Where all numbers begin at 1, some file must show it: a number that counted from 0 would
    lie after the end of its video, or every k-th frame as 1, 1 + k, 1 + 2k.

    Args:
        annotations: by key of their video, of all splits.
        timing_of: frames and rates of a video; None where it cannot be read.
        stated: 0 or 1, as somebody said; None to judge.

    Raises:
        ConfigError: files begin at 1, and the meaning is unknown; or `stated` is neither 0 nor 1.
        DataError: files that contradict each other, or what was stated.
    """
    if stated not in (None, 0, 1) or isinstance(stated, bool):
        raise ConfigError(f"label_start is {stated!r}; it must be 0 or 1, the number of the first frame in annotations")
    numbered = {key: each for key, each in annotations.items() if _is_numbered(each)}
    zero = next((each for each in numbered.values() if each.starts[0] == 0), None)
    if stated is not None:
        if stated == 1 and zero is not None:
            raise DataError(f"{zero.path}, {zero.entry} {zero.lines[0]}: the number is 0, but label_start is 1")
        return stated, f"frames are numbered from {stated} in the annotations, as given" if numbered else None
    from_one = {key: each for key, each in numbered.items() if each.starts[0] == 1}
    if not from_one:
        return 0, None
    shown = next((why for key, each in from_one.items() if (why := _sign_of_one(key, each, timing_of(key)))), None)
    if zero is not None:
        if shown is not None:
            raise DataError(
                f"annotations contradict each other: {shown}, so it counts from 1, and {zero.path} begins at 0. Number "
                f"all files the same way, or pass {_HOW}"
            )
        return 0, None
    if shown is not None:
        return 1, f"frames are numbered from 1 in the annotations: {shown}"
    if any(_does_not_fit(key, each, timing_of(key)) for key, each in from_one.items()):
        return 0, None  # that is said first, see `frame_phases`
    first = next(iter(from_one.values()))
    raise ConfigError(
        f"{len(from_one)} of {len(numbered)} annotations begin at number 1, such as {first.path} ({first.entry} "
        f"{first.lines[0]}), none has a 0, and it is unknown whether 1 is the first frame or the second. Pass {_HOW}, "
        "the number of the first frame (or second) of a video"
    )


def _is_numbered(annotation: Annotation) -> bool:
    return is_counted(annotation) and len(annotation.starts) > 0


def _last_number(annotation: Annotation) -> float:
    """The greatest number that may name a frame; that of an end may be the frame behind it."""
    return float(annotation.starts[-1] if annotation.stops is None else annotation.stops.max() - 1)


def _sign_of_one(key: str, annotation: Annotation, timing: Timing | None) -> str | None:
    """What shows that the file counts from 1; None where nothing does."""
    steps = np.diff(annotation.starts) if annotation.stops is None else np.zeros(0)
    if len(steps) > 1 and steps.min() > 1 and (steps == steps[0]).all():
        return (
            f"{annotation.path} has every {steps[0]:g}th of them as {annotation.starts[0]:g}, {annotation.starts[1]:g}"
        )
    if timing is None:
        return None
    last = _last_number(annotation) + (1 if annotation.stops is not None and timing.inclusive else 0)
    length = timing.duration if annotation.unit == "seconds" else timing.label_length
    length += timing.lost / (timing.fps or 1.0) if annotation.unit == "seconds" else timing.lost / timing.ratio
    if not length <= last <= length + 1:
        return None  # inside the video either way, or so far outside that the rate is another one
    return (
        f"{annotation.path} ends at {last:g}, which counted from 0 would lie after the end of {key} "
        f"({timing.describe()})"
    )


def _does_not_fit(key: str, annotation: Annotation, timing: Timing | None) -> bool:
    """Whether the file is refused anyhow, counted from 0: for its rate as a rule, which must be put right first."""
    if timing is None:
        return False
    try:
        frame_phases(annotation, np.zeros(len(annotation.starts), np.uint8), timing, key)
    except (DataError, ConfigError):
        return True
    return False
