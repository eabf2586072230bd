"""The fixed-order workflow behind rendered procedures: phases, how long they take, and what one clip can tell.

A phase is an activity, one of the renderer's motions, repeated in strokes of `STROKE` frames. Two activities occur in
two phases each (`AMBIGUOUS_PAIRS`), with one law of durations for both, so that nothing but the order of things, that
is the clips before and after, tells such a phase from its twin. `clip_posterior` says how far one clip can get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from m33d_hf.data.randomness import Uniforms
from m33d_hf.data.sources.rooms.constants import MOTION_NAMES

STROKE = 8  # frames in which a motion runs through once


@dataclass(frozen=True)
class Phase:
    """A phase of the workflow.

    Attributes:
        name: unique.
        activity: a name of `MOTION_NAMES`, shown with the instrument that `INSTRUMENTS` gives it, if any.
        shortest, longest: frames; every number from one to the other is equally likely. They span a multiple of
            `STROKE` numbers, so that the next phase begins at any place of a stroke or clip with equal chance: how a
            phase lies to a grid of clips tells nothing.
        kept: chance that the phase is there at all.
    """

    name: str
    activity: str
    shortest: int
    longest: int
    kept: float = 1.0


WORKFLOW = (
    Phase("enter", "dolly_in", 8, 23),
    Phase("inspect_before", "orbit", 32, 47),
    Phase("fetch", "slide_left", 8, 23, kept=0.7),
    Phase("first_treatment", "spin", 32, 47),
    Phase("look_around", "pan_right", 16, 31),
    Phase("second_treatment", "spin", 32, 47),
    Phase("put_back", "slide_right", 8, 23, kept=0.7),
    Phase("inspect_after", "orbit", 32, 47),
    Phase("leave", "dolly_out", 8, 23),
)
# Activity -> colour of the ball above the hero, 0..1. Told by a glance, as instruments are in surgery, while a motion
# takes a long training to be told. Motions there and back share one: which way, only the motion says.
INSTRUMENTS = {
    "orbit": (0.05, 0.95, 0.05),
    "spin": (0.95, 0.05, 0.05),
    "slide_left": (0.05, 0.05, 0.95),
    "slide_right": (0.05, 0.05, 0.95),
    "pan_right": (0.95, 0.95, 0.05),
}
PHASE_NAMES = tuple(phase.name for phase in WORKFLOW)
AMBIGUOUS_PAIRS = (("inspect_before", "inspect_after"), ("first_treatment", "second_treatment"))
_ACTIVITY_L = np.array([MOTION_NAMES.index(phase.activity) for phase in WORKFLOW], dtype=np.uint8)


def activities_of(phases: np.ndarray) -> np.ndarray:
    """Motion ids (order of `MOTION_NAMES`) of phase ids, same shape, uint8."""
    return _ACTIVITY_L[phases]


def draw_timeline(generator: torch.Generator) -> list[tuple[int, int]]:
    """Draw a procedure: (phase id, frames) of the phases that are there, in order."""
    draw = Uniforms(generator)
    timeline = []
    for number, phase in enumerate(WORKFLOW):
        # Always two draws: that a phase is left out does not change the lengths of the others.
        there, frames = draw.chance(phase.kept), phase.shortest + draw.integer(phase.longest - phase.shortest + 1)
        if there:
            timeline.append((number, frames))
    return timeline


def phases_of(timeline: Sequence[tuple[int, int]]) -> np.ndarray:
    """Phase id of every frame (T,) uint8."""
    return np.concatenate([np.full(frames, phase, dtype=np.uint8) for phase, frames in timeline])


def clip_posterior(activities: np.ndarray) -> np.ndarray:
    """Chances of each phase (L,) float64 for one who sees the activity of every frame of a clip, and nothing else.

    A clip within one activity: a phase counts as often as it has clips of this length, on average over its durations;
    twins get one half each. A clip over a change of activities: the change tells where in the workflow it is, and the
    clip has the phase of most of its frames, as in `phase_base.cut_clips`.

    Args:
        activities: (T,) motion ids of the frames.

    Raises:
        ValueError: no procedure has such a clip.
    """
    starts = np.flatnonzero(np.diff(activities, prepend=-1))
    lengths = np.diff(starts, append=len(activities))
    runs = list(zip(activities[starts].tolist(), lengths.tolist(), strict=True))
    chances = np.zeros(len(WORKFLOW))
    for path in _paths(runs):
        if len(path) == 1:
            chances[path[0]] += _expected_clips(WORKFLOW[path[0]], len(activities))
        else:
            chances[path[int(lengths.argmax())]] += 1
    if not chances.any():
        raise ValueError(f"no procedure has a clip of the motions {activities.tolist()}")
    return chances / chances.sum()


def _expected_clips(phase: Phase, span: int) -> float:
    """Number of places, on average, at which `span` frames fit into the phase."""
    durations = np.arange(phase.shortest, phase.longest + 1)
    return phase.kept * float(np.maximum(durations - span + 1, 0).mean())


def _paths(runs: Sequence[tuple[int, int]], before: int | None = None) -> list[list[int]]:
    """All sequences of phases that show the runs (motion id, frames) of a clip.

    Args:
        runs: what is seen.
        before: the phase that the runs follow directly, only phases that may be left out in between; None for a clip
            that may begin anywhere.
    """
    if not runs:
        return [[]]
    paths = []
    for number in range(0 if before is None else before + 1, len(WORKFLOW)):
        if _ACTIVITY_L[number] == runs[0][0]:
            paths += [[number, *tail] for tail in _paths(runs[1:], number)]
        if before is not None and WORKFLOW[number].kept == 1:
            break
    return paths
