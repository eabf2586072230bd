"""Clips: a room, one floating object (the hero), and one of ten motions of the camera or of the hero.

Every clip, whatever its motion, has a hero, so that the class is told by the motion alone. Candidates are drawn
again until the hero is well in sight and nothing passes through anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sources.rooms.constants import (
    BOX,
    CYLINDER,
    EMPTY,
    HERO_MATERIAL,
    HERO_SLOT,
    MOTION_NAMES,
    SPHERE,
)
from m33d_hf.data.sources.rooms.materials import uniform
from m33d_hf.data.sources.rooms.render import cast_rays, make_rays
from m33d_hf.data.sources.rooms.scene import Scenes, make_round, sample_scenes
from m33d_hf.errors import DataError

MIN_COVERAGE = 0.02  # share of the middle frame that the hero covers at least
_CHECK_MARGIN = 1.25  # coverage is measured on a small picture: ask for a little more
_CHECK_PIXELS = 40  # longer side of that picture
_MIN_END_COVERAGE = 0.008  # in the first and last frame, where the hero is what moves
_MIN_UNHIDDEN = 0.6  # share of the hero that no furniture hides
_EYE_MARGIN = 0.2  # metres between the eye and walls, furniture
_HERO_DISTANCE = 0.35  # metres between the eye and the hero's surface
_ATTEMPTS, _EMPTY_AFTER = 96, 32  # the room loses its furniture after so many failures
_HERO_MOTIONS = ("fall", "slide_left", "slide_right", "spin", "approach")


@dataclass
class Plan:
    """Numbers behind a clip of each scene: motion class, amplitude (about 1), direction of turning (1 or -1)."""

    action_B: Tensor
    amplitude_B: Tensor
    sign_B: Tensor

    def when(self, *names: str) -> Tensor:
        """1 where the motion is one of `names`, else 0."""
        chosen = torch.tensor([MOTION_NAMES.index(name) for name in names])
        return (self.action_B[:, None] == chosen).any(1).float()


def draw_clips(
    count: int, clip_length: int, height: int, width: int, name: tuple[int | str, ...]
) -> tuple[Scenes, Tensor]:
    """Draw `count` clips: scenes of every frame (count * clip_length, clip-major) and motion ids (count,) int64.

    Slot i of attempt k is a function of (name, k, i) alone; each slot takes its first acceptable attempt.

    Raises:
        DataError: no acceptable clip in 96 attempts (a picture shape in which the hero cannot be seen).
    """
    # Every ten clips hold every motion once, in random order.
    action_B = torch.rand(count, generator=generator_of(*name, "action")).argsort() % len(MOTION_NAMES)
    chosen: list[Scenes | None] = [None] * count
    for attempt in range(_ATTEMPTS):
        open_slots = torch.tensor([slot for slot in range(count) if chosen[slot] is None])
        if not len(open_slots):
            break
        generator = generator_of(*name, "clip", attempt)
        frames, _ = _candidate(generator, action_B, clip_length, furnished=attempt < _EMPTY_AFTER)
        frame_index = (open_slots[:, None] * clip_length + torch.arange(clip_length)).flatten()
        frames = frames.select(frame_index)
        good = acceptable(frames, action_B[open_slots], clip_length, height, width)
        for place in good.nonzero()[:, 0].tolist():
            frame_range = torch.arange(place * clip_length, (place + 1) * clip_length)
            chosen[int(open_slots[place])] = frames.select(frame_range)
    clips = [clip for clip in chosen if clip is not None]
    if len(clips) < count:
        raise DataError(
            f"no clip of rooms at {height} x {width} pixels shows its moving object after {_ATTEMPTS} attempts; use a "
            "less elongated image_size"
        )
    return Scenes.concatenate(clips), action_B


def _candidate(generator: torch.Generator, action_B: Tensor, clip_length: int, furnished: bool) -> tuple[Scenes, Plan]:
    """Rooms with a hero in front of the camera, posed for every frame."""
    batch = len(action_B)
    scenes = sample_scenes(batch, generator)
    plan = Plan(
        action_B=action_B,
        amplitude_B=uniform(generator, 0.75, 1.25, batch),
        sign_B=torch.where(uniform(generator, 0, 1, batch) < 0.5, -1.0, 1.0),
    )
    if not furnished:
        scenes.kind_BO = torch.full_like(scenes.kind_BO, EMPTY)
    set_hero(generator, scenes, plan)
    return pose(scenes, plan, clip_length), plan


def ground_axes(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Level unit vectors of the camera, forward and to the right (B, 3)."""
    sin, cos = scenes.angles_B3[:, 0].sin(), scenes.angles_B3[:, 0].cos()
    zero = torch.zeros_like(sin)
    return torch.stack([sin, zero, cos], 1), torch.stack([cos, zero, -sin], 1)


def set_hero(generator: torch.Generator, scenes: Scenes, plan: Plan) -> None:
    """Put a box, sphere or cylinder near the middle of the camera's view, in place."""
    batch = scenes.batch
    kinds = torch.tensor([BOX, SPHERE, CYLINDER])
    kind_B = kinds[(uniform(generator, 0, 3, batch)).long().clamp_max(2)]
    # A turning ball is hardly seen to turn.
    kind_B = torch.where(plan.when("spin") > 0, BOX, kind_B)
    half_B3 = make_round(uniform(generator, 0.18, 0.32, batch, 3), kind_B)
    distance_B = uniform(generator, 1.3, 2.1, batch)
    forward_B3, right_B3 = ground_axes(scenes)
    aside_B = uniform(generator, -0.25, 0.25, batch) * distance_B
    scenes.angles_B3[:, 1] = scenes.angles_B3[:, 1].clamp(-0.35, 0.25)
    middle_B = scenes.eye_B3[:, 1] + scenes.angles_B3[:, 1].tan() * distance_B
    lowest_B = middle_B - half_B3[:, 1] + uniform(generator, -0.25, 0.15, batch)
    base_B3 = scenes.eye_B3 + forward_B3 * distance_B[:, None] + right_B3 * aside_B[:, None]
    base_B3[:, 1] = lowest_B.clamp_min(0)
    scenes.kind_BO[:, HERO_SLOT] = kind_B
    scenes.half_BO3[:, HERO_SLOT] = half_B3
    scenes.base_BO3[:, HERO_SLOT] = base_B3


def pose(scenes: Scenes, plan: Plan, clip_length: int) -> Scenes:
    """Scenes of all frames, clip-major. The scene given is the pose of the middle of the motion."""
    batch = scenes.batch
    frames = scenes.select(torch.arange(batch).repeat_interleave(clip_length))
    time_T = torch.linspace(-0.5, 0.5, clip_length)
    phase_BT1 = (plan.amplitude_B[:, None] * time_T)[..., None]
    forward_B13, right_B13 = (axis[:, None] for axis in ground_axes(scenes))

    def amount(name: str, opposite: str | None = None) -> Tensor:
        value_B = plan.when(name) - (plan.when(opposite) if opposite else 0)
        return value_B[:, None, None] * phase_BT1

    hero_B13 = scenes.base_BO3[:, None, HERO_SLOT]
    # The camera on its circle about the hero: its offset turns and it keeps looking at it.
    circle_BT1 = 0.9 * plan.sign_B[:, None, None] * amount("orbit")
    away_x, away_y, away_z = (scenes.eye_B3[:, None] - hero_B13).unbind(-1)
    cos, sin = circle_BT1[..., 0].cos(), circle_BT1[..., 0].sin()
    offset_BT3 = torch.stack([cos * away_x + sin * away_z, away_y.expand_as(cos), cos * away_z - sin * away_x], -1)
    eye_BT3 = hero_B13 + offset_BT3 + 0.9 * forward_B13 * amount("dolly_in", "dolly_out")
    turn_BT1 = circle_BT1 + 0.55 * amount("pan_right", "pan_left")
    base_BT3 = hero_B13 + 1.1 * right_B13 * amount("slide_right", "slide_left")
    base_BT3 = base_BT3 - forward_B13 * amount("approach")
    base_BT3[..., 1] -= _fall(plan, time_T)
    yaw_BT1 = scenes.yaw_BO[:, None, HERO_SLOT, None] + 2.4 * plan.sign_B[:, None, None] * amount("spin")

    frames.eye_B3 = eye_BT3.flatten(0, 1)
    frames.angles_B3[:, 0] += turn_BT1.flatten()
    frames.base_BO3[:, HERO_SLOT] = base_BT3.flatten(0, 1)
    frames.yaw_BO[:, HERO_SLOT] = yaw_BT1.flatten()
    return frames


def _fall(plan: Plan, time_T: Tensor) -> Tensor:
    """How far the hero has fallen below its middle height (B, T), in metres: from rest, ever faster."""
    progress_T = (time_T + 0.5).square()
    return (plan.when("fall") * plan.amplitude_B)[:, None] * (progress_T - 0.4)


def acceptable(frames: Scenes, action_B: Tensor, clip_length: int, height: int, width: int) -> Tensor:
    """Whether each clip may be used (B,) bool: nothing collides and the hero is in sight.

    Args:
        frames: scenes of all frames, clip-major.
        action_B: motion ids.
        clip_length: frames per clip T.
        height, width: size of the pictures; visibility is measured on a smaller one of the same shape.
    """
    free_B = nothing_collides(frames).unflatten(0, (-1, clip_length)).all(1)
    good_B = free_B.clone()
    places = free_B.nonzero()[:, 0]
    if len(places):
        good_B[places] = _hero_in_sight(frames, action_B, places, clip_length, height, width)
    return good_B


def nothing_collides(frames: Scenes) -> Tensor:
    """Per frame: the hero and the eye are inside the room and outside of each other and of everything else."""
    half_BO3, base_BO3 = frames.half_BO3, frames.base_BO3
    radius_BO = half_BO3[..., [0, 2]].norm(dim=-1)
    top_BO = base_BO3[..., 1] + 2 * half_BO3[..., 1]
    other_BO = frames.kind_BO != EMPTY
    other_BO[:, HERO_SLOT] = False
    hero_B3, hero_radius_B, hero_top_B = base_BO3[:, HERO_SLOT], radius_BO[:, HERO_SLOT], top_BO[:, HERO_SLOT]
    eye_B3 = frames.eye_B3

    limit_B2 = frames.room_B3[:, [0, 2]]
    free_B = (hero_B3[:, [0, 2]].abs() <= limit_B2 - hero_radius_B[:, None]).all(1)
    free_B &= (hero_B3[:, 1] >= 0) & (hero_top_B <= frames.room_B3[:, 1])
    free_B &= (eye_B3[:, [0, 2]].abs() <= limit_B2 - _EYE_MARGIN).all(1)

    gap_BO = (base_BO3 - hero_B3[:, None])[..., [0, 2]].norm(dim=-1) - radius_BO - hero_radius_B[:, None]
    level_BO = (hero_B3[:, 1:2] < top_BO) & (base_BO3[..., 1] < hero_top_B[:, None])
    free_B &= ~(other_BO & level_BO & (gap_BO < 0)).any(1)
    gap_BO = (base_BO3 - eye_B3[:, None])[..., [0, 2]].norm(dim=-1) - radius_BO
    level_BO = eye_B3[:, 1:2] < top_BO + _EYE_MARGIN
    free_B &= ~(other_BO & level_BO & (gap_BO < _EYE_MARGIN)).any(1)
    return free_B & (gap_BO[:, HERO_SLOT] > _HERO_DISTANCE)


def _hero_in_sight(
    frames: Scenes, action_B: Tensor, places: Tensor, clip_length: int, height: int, width: int
) -> Tensor:
    """Coverage of the hero in the first, middle and last frame of the clips `places`, with and without the rest."""
    times = torch.tensor([0, clip_length // 2, clip_length - 1])
    seen = frames.select((places[:, None] * clip_length + times).flatten())
    alone = seen.select(torch.arange(seen.batch))
    alone.board_on_BS = torch.zeros_like(alone.board_on_BS)
    hero_kind_B = alone.kind_BO[:, HERO_SLOT].clone()
    alone.kind_BO = torch.full_like(alone.kind_BO, EMPTY)
    alone.kind_BO[:, HERO_SLOT] = hero_kind_B
    scale = min(1.0, _CHECK_PIXELS / max(height, width))
    size = (max(1, math.ceil(height * scale)), max(1, math.ceil(width * scale)))
    covered_B3, whole_B3 = (hero_coverage(scenes, *size).unflatten(0, (-1, 3)) for scenes in (seen, alone))
    unhidden_B3 = covered_B3 >= _MIN_UNHIDDEN * whole_B3
    good_B = (covered_B3[:, 1] >= MIN_COVERAGE * _CHECK_MARGIN) & unhidden_B3[:, 1]
    ids = torch.tensor([MOTION_NAMES.index(name) for name in _HERO_MOTIONS])
    hero_moves_B = (action_B[places, None] == ids).any(1)
    ends_B = ((covered_B3 >= _MIN_END_COVERAGE) & unhidden_B3).all(1)
    return good_B & (ends_B | ~hero_moves_B)


def hero_coverage(scenes: Scenes, height: int, width: int) -> Tensor:
    """Share of each picture (B,) that shows the hero."""
    hits = cast_rays(scenes, make_rays(scenes, height, width))
    return (hits.material_BHW == HERO_MATERIAL).float().mean((1, 2))
