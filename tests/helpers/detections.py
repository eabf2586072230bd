"""Detections made by hand, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.timeline import Detection, Stretch
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack

PHASES = ["Preparation", "cut & <b>tie</b>", "Packaging"]


def detection(
    path: Path,
    phases: list[int],
    *,
    span: int = 10,
    fps: float | None = 25.0,
    names: list[str] | None = None,
    unreadable: tuple[int, ...] = (),
    sure: list[float] | None = None,
    times: FrameTimes | None = None,
    lacks: tuple[Lack, ...] = (),
) -> Detection:
    """Clips of `span` frames one after the other, each of a phase; `sure` is the probability of each."""
    known = names or PHASES
    clips = []
    for number, phase in enumerate(phases):
        share = 0.9 if sure is None else sure[number]
        row = np.full(len(known), (1 - share) / (len(known) - 1))
        row[phase] = share
        wrong = np.roll(row, 1)  # the clip classifier says the next phase
        clips.append(ClipPrediction(number * span, (number + 1) * span, number not in unreadable, row, wrong))
    length = span * len(phases)
    gaps = [Stretch(number * span, (number + 1) * span, "damaged") for number in unreadable]
    moments = times if times is not None else FrameTimes(length, fps) if fps else None
    rate = moments.fps if moments is not None else None
    return Detection(path, length, rate, known, clips, gaps, moments, lacks)
