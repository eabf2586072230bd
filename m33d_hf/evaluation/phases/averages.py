"""One number from values per video and phase: every way that is in use, each by its name.

Funke, Rivoir and Speidel, "Metrics Matter in Surgical Phase Recognition" (arXiv 2305.13961), show that papers average
in different ways under the same words, and that this moves the numbers as much as new methods do. So a number is only
comparable with the names of its conventions.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.evaluation.phases.counts import METRICS, PhaseCounts

UNDEFINED = {
    "exclude_undefined": "a value that is undefined leaves the means; a phase that is predicted but not annotated in a "
    "video counts with precision, Jaccard and F1 of 0 (strategy A of arXiv 2305.13961)",
    "exclude_absent": "a phase leaves all means of a video in which it is not annotated, predicted or not; the "
    "precision of a phase that is there but never predicted leaves them too (strategy B of arXiv 2305.13961; the "
    "Cholec80 script)",
    "exclude_absent_rest_zero": "as exclude_absent, but the precision of a phase that is there and never predicted is "
    "0 (the M2CAI16 script)",
    "occurring_rest_zero": "a phase leaves the means of a video in which it is neither annotated nor predicted; "
    "everything else that is undefined is 0 (TeCNO's code; scikit-learn's defaults for each video)",
    "zero": "everything that is undefined is 0, and all phases count in all videos",
}
ORDERS = {
    "videos_then_phases": "each phase is averaged over the videos, then the phases are averaged",
    "phases_then_videos": "each video is averaged over its phases, then the videos are averaged",
    "pooled_frames": "the frames of all videos count as one video, then the phases are averaged",
}
MACRO_F1 = ("f1", "f1_of_means", "f1_of_video_means")
DDOF = 1


@dataclass(frozen=True)
class Average:
    """A mean with its spreads.

    Attributes:
        mean: a share, NaN where nothing is defined.
        over_videos: standard deviation of the videos' means over their phases.
        over_phases: standard deviation of the phases' means over the videos (of the phases, for pooled frames).

    Deviations divide by n - `DDOF` = n - 1, as Matlab's std does; NaN with fewer than two.
    """

    mean: float
    over_videos: float
    over_phases: float


def settled_values(counts: PhaseCounts, undefined: str) -> dict[str, np.ndarray]:
    """Each of `METRICS` as (V, L) shares, NaN where a value leaves the means.

    Videos without an annotated frame leave all of them.

    Raises:
        ConfigError: no such convention.
    """
    _check(undefined, UNDEFINED, "convention for undefined values")
    values = counts.values()
    absent = counts.annotated == 0
    nothing = absent & (counts.predicted == 0)
    gone = {"exclude_undefined": nothing, "occurring_rest_zero": nothing, "zero": np.zeros_like(absent)}.get(
        undefined, absent
    )
    empty = np.broadcast_to(counts.frames[:, None] == 0, absent.shape)
    for name, value in values.items():
        if undefined.endswith("zero"):
            value = np.nan_to_num(value, nan=0.0)
        values[name] = np.where(gone | empty, np.nan, value)
    return values


def averages(
    counts: PhaseCounts, undefined: str = "exclude_absent", order: str = "videos_then_phases"
) -> dict[str, Average]:
    """Accuracy and the macro means of `METRICS`, with both other ways to a macro F1.

    Args:
        counts: frames per video and phase.
        undefined: one of `UNDEFINED`.
        order: one of `ORDERS`.

    Returns:
        {"accuracy" (mean over the videos, or of the pooled frames), "precision", "recall", "jaccard", "f1" (mean of
        the phases' F1), "f1_of_means" (harmonic mean of the mean precision and the mean recall, without deviations),
        "f1_of_video_means" (the same for each video, then the mean over the videos; not for pooled frames)}.

    Raises:
        ConfigError: no such convention or order.
    """
    _check(order, ORDERS, "order of averages")
    pooled = order == "pooled_frames"
    counts = counts.pooled() if pooled else counts
    values = settled_values(counts, undefined)
    # Of one video, and so of pooled frames, the deviation over videos is NaN.
    found = {"accuracy": Average(_mean(counts.accuracy()), _deviation(counts.accuracy()), math.nan)}
    for name in METRICS:
        videos, phases = _along(values[name], 1), _along(values[name], 0)
        mean = _mean(phases if order == "videos_then_phases" else videos)
        found[name] = Average(mean, _deviation(videos), _deviation(phases))
    harmonic = _harmonic(np.array(found["precision"].mean), np.array(found["recall"].mean))
    found["f1_of_means"] = Average(float(harmonic), math.nan, math.nan)
    if not pooled:
        each = _harmonic(_along(values["precision"], 1), _along(values["recall"], 1))
        found["f1_of_video_means"] = Average(_mean(each), _deviation(each), math.nan)
    return found


def phase_averages(counts: PhaseCounts, undefined: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each of `METRICS` per phase: (L,) means over the videos, their standard deviations, and how many counted."""
    values = settled_values(counts, undefined)
    return {
        name: (
            _along(value, 0),
            np.array([_deviation(column) for column in value.T]),
            np.isfinite(value).sum(axis=0),
        )
        for name, value in values.items()
    }


def _check(name: str, known: dict[str, str], what: str) -> None:
    if name not in known:
        raise ConfigError(f"{name!r} is no {what}; they are {', '.join(known)}.{nearest_name_hint(name, list(known))}")


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row without a number is NaN, as it should be
        return (
            np.asarray(np.nanmean(values, axis=axis)) if values.shape[axis] else np.full(values.shape[1 - axis], np.nan)
        )


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else math.nan


def _deviation(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.std(ddof=DDOF)) if len(kept) > DDOF else math.nan


def _harmonic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """2 ab / (a + b); 0 where both are 0."""
    total = first + second
    return np.divide(2 * first * second, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
