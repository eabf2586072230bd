"""Procedures as frames: one room and hero, filmed through the strokes of a drawn timeline.

Video i is a function of (seed, split, i) alone. Every stroke begins anew from the middle pose of the video, with an
amplitude, a direction of turning and a place of the activity's instrument of its own, drawn alike for all phases;
light, colours and camera stay as they are and noise is drawn per frame. So nothing in a frame or clip tells how far the
procedure has got, except the activity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sources.rooms.constants import EMPTY, HERO_MATERIAL, HERO_SLOT, MOTION_NAMES, RENDERER_VERSION, SPHERE
from m33d_hf.data.sources.rooms.generate import render_scenes
from m33d_hf.data.sources.rooms.materials import uniform
from m33d_hf.data.sources.rooms.motion import Plan, acceptable, ground_axes, nothing_collides, pose, set_hero
from m33d_hf.data.sources.rooms.options import require_device
from m33d_hf.data.sources.rooms.scene import Scenes, sample_scenes
from m33d_hf.data.sources.rooms.workflow import (
    INSTRUMENTS,
    STROKE,
    WORKFLOW,
    activities_of,
    draw_timeline,
    phases_of,
)
from m33d_hf.errors import DataError

# Raise it whenever the same seed gives other videos though renderer and workflow are the same.
PROCEDURES_VERSION = 1
_AMPLITUDE = (0.75, 1.25)  # as that of clips
_TOOL_SLOT, _TOOL_MATERIAL = HERO_SLOT + 1, HERO_MATERIAL + 1
_TOOL_RADIUS = (0.11, 0.15)  # metres
_TOOL_GAP = 0.04  # metres of air between hero and instrument
_AT_ONCE = 64  # frames rendered together: more fall out of the processor's cache
_BACK = {"dolly_out": "dolly_in", "pan_left": "pan_right", "slide_left": "slide_right"}
_TRIED = sorted({_BACK.get(phase.activity, phase.activity) for phase in WORKFLOW})
_ATTEMPTS, _CANDIDATES = 64, 32  # rooms are drawn so many at a time, so many times


@dataclass(frozen=True)
class ProceduresSpec:
    """What there is to render: split and seed, number of videos, size in pixels, "cpu" or "cuda"."""

    split: str
    seed: int
    count: int
    height: int
    width: int
    device: str = "cpu"

    @property
    def unit(self) -> str:
        """What is counted."""
        return "procedures"

    def parameters(self) -> dict[str, Any]:
        """Plain values that name the content, renderer and workflow included."""
        workflow = [asdict(phase) for phase in WORKFLOW]
        versions = {"renderer": RENDERER_VERSION, "procedures": PROCEDURES_VERSION, "stroke": STROKE}
        tools = {name: list(colour) for name, colour in INSTRUMENTS.items()}
        return {**asdict(self), "unit": self.unit, **versions, "workflow": workflow, "instruments": tools}

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Data type and shape of every array of the cache; frames of all videos one after the other (F).

        rgb (F, 3, H, W), sensor (F, H, W) millimetres with 0 for holes, clean (F, H, W) metres, phase (F,) ids,
        length (count,) frames of each video.
        """
        frames = sum(len(self.phases(index)) for index in range(self.count))
        size = (self.height, self.width)
        return {
            "rgb": ("uint8", (frames, 3, *size)),
            "sensor": ("uint16", (frames, *size)),
            "clean": ("float32", (frames, *size)),
            "phase": ("uint8", (frames,)),
            "length": ("int64", (self.count,)),
        }

    def chunks(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Render for the cache, one video at a time.

        Raises:
            ConfigError: the device is not there.
        """
        require_device(self.device, "procedures")
        for index in range(self.count):
            yield 1, render_procedure(self, index)

    def name(self, index: int) -> tuple[int | str, ...]:
        """What the draws about video `index` start from."""
        return ("procedures", RENDERER_VERSION, PROCEDURES_VERSION, self.split, self.seed, index)

    def timeline(self, index: int) -> list[tuple[int, int]]:
        """(phase id, frames) of video `index`."""
        return draw_timeline(generator_of(*self.name(index), "timeline"))

    def phases(self, index: int) -> np.ndarray:
        """Phase id of every frame of video `index` (T,) uint8."""
        return phases_of(self.timeline(index))


@torch.no_grad()
def render_procedure(spec: ProceduresSpec, index: int) -> dict[str, np.ndarray]:
    """Rows of video `index` for the arrays of `ProceduresSpec.arrays`.

    Raises:
        DataError: no room can be found in which all motions are in sight (a very elongated picture).
    """
    name = spec.name(index)
    room = draw_room(name, spec.height, spec.width)
    frames = pose_strokes(room, spec.timeline(index), generator_of(*name, "strokes"))
    noise = generator_of(*name, "noise")
    parts = [
        render_scenes(frames.select(rows), spec.height, spec.width, noise, spec.device)
        for rows in torch.arange(frames.batch).split(_AT_ONCE)
    ]
    rgb, sensor, clean, _ = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return {
        "rgb": rgb,
        "sensor": sensor.astype(np.uint16),
        "clean": clean,
        "phase": spec.phases(index),
        "length": np.array([len(rgb)], dtype=np.int64),
    }


def pose_strokes(room: Scenes, timeline: list[tuple[int, int]], generator: torch.Generator) -> Scenes:
    """Scenes of all frames of a procedure (T) in one room (a batch of 1); the last stroke of a phase may be cut."""
    strokes = [(phase, min(STROKE, frames - start)) for phase, frames in timeline for start in range(0, frames, STROKE)]
    phase_S = np.array([phase for phase, _ in strokes])
    plan = Plan(
        action_B=torch.from_numpy(activities_of(phase_S)).long(),
        amplitude_B=uniform(generator, *_AMPLITUDE, len(strokes)),
        sign_B=torch.where(uniform(generator, 0, 1, len(strokes)) < 0.5, -1.0, 1.0),
    )
    frames = pose(room.select(torch.zeros(len(strokes), dtype=torch.long)), plan, STROKE)
    _hold_instruments(generator, frames, plan.action_B)
    shown_S = torch.tensor([shown for _, shown in strokes])
    return frames.select((torch.arange(STROKE) < shown_S[:, None]).flatten().nonzero()[:, 0])


def _hold_instruments(generator: torch.Generator, frames: Scenes, action_S: Tensor) -> None:
    """Put each activity's instrument above the hero, at a place of each stroke's own, in place (S * STROKE scenes)."""
    strokes = len(action_S)
    radius_S = uniform(generator, *_TOOL_RADIUS, strokes)
    aside_S = uniform(generator, -0.5, 0.5, strokes)  # of the hero's half width
    _, right_B3 = ground_axes(frames)
    radius_B, aside_B, action_B = (value.repeat_interleave(STROKE) for value in (radius_S, aside_S, action_S))
    half_B3 = frames.half_BO3[:, HERO_SLOT]
    base_B3 = frames.base_BO3[:, HERO_SLOT] + right_B3 * (aside_B * half_B3[:, 0])[:, None]
    base_B3[:, 1] += 2 * half_B3[:, 1] + _TOOL_GAP
    frames.kind_BO[:, _TOOL_SLOT] = EMPTY
    frames.half_BO3[:, _TOOL_SLOT] = radius_B[:, None].expand(-1, 3)
    frames.base_BO3[:, _TOOL_SLOT] = base_B3
    for name, colour in INSTRUMENTS.items():
        held_B = action_B == MOTION_NAMES.index(name)
        frames.kind_BO[held_B, _TOOL_SLOT] = SPHERE
        for colour_BM3 in (frames.materials.first_BM3, frames.materials.second_BM3):
            colour_BM3[held_B, _TOOL_MATERIAL] = torch.tensor(colour)


def draw_room(name: tuple[int | str, ...], height: int, width: int) -> Scenes:
    """The first room (a batch of 1) in which every motion of the workflow has space and shows the hero, a box.

    Raises:
        DataError: none in 64 x 32 candidates.
    """
    for attempt in range(_ATTEMPTS):
        generator = generator_of(*name, "room", attempt)
        rooms = sample_scenes(_CANDIDATES, generator)
        # The hero has to be one that is seen to turn: a box, as in clips of this motion.
        ones_B = torch.ones(_CANDIDATES)
        rooms.kind_BO[:, _TOOL_SLOT] = EMPTY
        set_hero(generator, rooms, Plan(torch.full((_CANDIDATES,), MOTION_NAMES.index("spin")), ones_B, ones_B))
        good = _suitable(rooms, height, width).nonzero()[:, 0]
        if len(good):
            return rooms.select(good[:1])
    raise DataError(
        f"no room for procedures at {height} x {width} pixels shows its moving object in all motions; use a less "
        "elongated image_size"
    )


def _suitable(rooms: Scenes, height: int, width: int) -> Tensor:
    """Whether all motions, as far as they ever go, are acceptable in each room (B,) bool.

    A motion back, or turning the other way, goes through the same poses in the other order: one of each is tried.
    """
    trials = len(_TRIED)

    def trial(chosen: Scenes) -> tuple[Scenes, Tensor]:
        action_B = torch.tensor([MOTION_NAMES.index(name) for name in _TRIED]).repeat(chosen.batch)
        ones_B = torch.ones(len(action_B))
        plan = Plan(action_B, ones_B * _AMPLITUDE[1], ones_B)
        return pose(chosen.select(torch.arange(chosen.batch).repeat_interleave(trials)), plan, STROKE), action_B

    good_B = nothing_collides(trial(rooms)[0]).view(rooms.batch, -1).all(1)
    # An instrument is above the hero, as wide as it at most: only the ceiling can be in its way.
    top_B = rooms.base_BO3[:, HERO_SLOT, 1] + 2 * rooms.half_BO3[:, HERO_SLOT, 1]
    good_B &= top_B + _TOOL_GAP + 2 * _TOOL_RADIUS[1] <= rooms.room_B3[:, 1]
    places = good_B.nonzero()[:, 0]
    if len(places):  # pictures are drawn only of rooms with space
        frames, action_B = trial(rooms.select(places))
        good_B[places] = acceptable(frames, action_B, STROKE, height, width).view(-1, trials).all(1)
    return good_B
