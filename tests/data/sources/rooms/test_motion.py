"""Clips show the motion that their label names, with the moving object in sight and nothing in its way."""

from __future__ import annotations

import pytest
import torch

from m33d_hf.data.sources.rooms.constants import BOX, EMPTY, HERO_MATERIAL, HERO_SLOT, MOTION_NAMES
from m33d_hf.data.sources.rooms.motion import MIN_COVERAGE, draw_clips, hero_coverage
from m33d_hf.data.sources.rooms.render import Hits, cast_rays, make_rays
from m33d_hf.data.sources.rooms.scene import Scenes

CLIPS, LENGTH, SIZE = 40, 7, 48


class Clips:
    """Clips with what is known about them: scenes of all frames, motion ids, hits, hero's mask and centroid."""

    def __init__(self) -> None:
        parts = [draw_clips(10, LENGTH, SIZE, SIZE, ("test", number)) for number in range(CLIPS // 10)]
        self.frames = Scenes.concatenate([part[0] for part in parts])
        self.action = torch.cat([part[1] for part in parts])
        self.hits: Hits = cast_rays(self.frames, make_rays(self.frames, SIZE, SIZE))
        self.mask = (self.hits.material_BHW == HERO_MATERIAL).unflatten(0, (CLIPS, LENGTH)).float()
        grid = torch.arange(SIZE).float()
        area = self.mask.sum((2, 3)).clamp_min(1)
        self.area = self.mask.mean((2, 3))
        self.x = (self.mask * grid).sum((2, 3)) / area
        self.y = (self.mask * grid[:, None]).sum((2, 3)) / area

    def of(self, name: str) -> torch.Tensor:
        chosen = (self.action == MOTION_NAMES.index(name)).nonzero()[:, 0]
        assert len(chosen) == CLIPS // 10, "every motion appears once in ten clips"
        return chosen

    def per_clip(self, value: torch.Tensor) -> torch.Tensor:
        return value.unflatten(0, (CLIPS, LENGTH))


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips()


def moved(values: torch.Tensor) -> torch.Tensor:
    """Change from the first to the last frame of each clip."""
    return values[:, -1] - values[:, 0]


@pytest.mark.parametrize(("name", "sign"), [("pan_left", 1), ("pan_right", -1)])
def test_panning_moves_the_picture_the_other_way(clips, name, sign):
    chosen = clips.of(name)
    x = clips.x[chosen]
    middle = LENGTH // 2
    near = x[:, middle + 1] - x[:, middle - 1]  # the hero may leave the picture later on
    assert (near * sign > 1).all()
    base = clips.per_clip(clips.frames.base_BO3[:, HERO_SLOT])[chosen]
    assert torch.equal(base[:, 0], base[:, -1]), "the hero itself rests"


@pytest.mark.parametrize(("name", "sign"), [("slide_left", -1), ("slide_right", 1)])
def test_sliding_moves_the_object_to_the_named_side(clips, name, sign):
    chosen = clips.of(name)
    assert (moved(clips.x[chosen]) * sign > 6).all()
    eye = clips.per_clip(clips.frames.eye_B3)[chosen]
    assert torch.equal(eye[:, 0], eye[:, -1]), "the camera rests"


def test_falling_goes_down_ever_faster(clips):
    chosen = clips.of("fall")
    assert (moved(clips.y[chosen]) > 6).all()
    height = clips.per_clip(clips.frames.base_BO3[:, HERO_SLOT, 1])[chosen]
    steps = -height.diff(dim=1)
    assert (steps > 0).all() and (steps.diff(dim=1) > 0).all()


@pytest.mark.parametrize("name", ["dolly_in", "approach"])
def test_coming_nearer_makes_the_object_larger(clips, name):
    chosen = clips.of(name)
    hero, eye = clips.frames.base_BO3[:, HERO_SLOT], clips.frames.eye_B3
    distance = clips.per_clip((hero - eye)[:, [0, 2]].norm(dim=1))[chosen]
    assert (moved(distance) < -0.4).all()
    kept = clips.area[chosen][:, : LENGTH // 2 + 1]  # up to the middle it is surely inside the picture
    assert (kept[:, -1] > kept[:, 0]).all()


def test_dolly_out_makes_it_smaller(clips):
    chosen = clips.of("dolly_out")
    kept = clips.area[chosen][:, LENGTH // 2 :]
    assert (kept[:, -1] < kept[:, 0]).all()


def test_dolly_moves_the_camera_and_approach_the_object(clips):
    eye, hero = clips.per_clip(clips.frames.eye_B3), clips.per_clip(clips.frames.base_BO3[:, HERO_SLOT])
    assert (moved(eye).norm(dim=1)[clips.of("dolly_in")] > 0.4).all()
    assert (moved(hero).norm(dim=1)[clips.of("dolly_in")] == 0).all()
    assert (moved(eye).norm(dim=1)[clips.of("approach")] == 0).all()
    assert (moved(hero).norm(dim=1)[clips.of("approach")] > 0.4).all()


def test_orbiting_keeps_distance_and_keeps_the_object_in_place(clips):
    chosen = clips.of("orbit")
    offset = clips.per_clip((clips.frames.eye_B3 - clips.frames.base_BO3[:, HERO_SLOT])[:, [0, 2]])[chosen]
    distance = offset.norm(dim=-1)
    torch.testing.assert_close(distance, distance[:, :1].expand_as(distance), atol=1e-4, rtol=0)
    assert (moved(offset).norm(dim=1) > 0.5).all()
    # The line of sight: seen from the camera the hero stays at the same bearing.
    yaw = clips.per_clip(clips.frames.angles_B3[:, 0])[chosen]
    bearing = torch.atan2(-offset[..., 0], -offset[..., 1]) - yaw
    turn = torch.atan2((bearing - bearing[:, :1]).sin(), (bearing - bearing[:, :1]).cos())
    assert turn.abs().max() < 1e-3


def test_spinning_turns_a_box_on_the_spot(clips):
    chosen = clips.of("spin")
    assert (clips.frames.kind_BO.unflatten(0, (CLIPS, LENGTH))[chosen][..., HERO_SLOT] == BOX).all()
    assert (moved(clips.per_clip(clips.frames.yaw_BO[:, HERO_SLOT])[chosen]).abs() > 1.5).all()
    assert (moved(clips.x[chosen]).abs() < 5).all()


def test_the_moving_object_is_in_sight(clips):
    assert (clips.area[:, LENGTH // 2] >= MIN_COVERAGE).all()
    hero_moves = [clips.of(name) for name in ("fall", "slide_left", "slide_right", "spin", "approach")]
    for chosen in hero_moves:
        assert (clips.area[chosen][:, [0, -1]] > 0.004).all()


def test_the_moving_object_is_not_hidden_behind_furniture(clips):
    middle = clips.frames.select(torch.arange(CLIPS) * LENGTH + LENGTH // 2)
    hero_kind = middle.kind_BO[:, HERO_SLOT].clone()
    middle.kind_BO[:] = EMPTY
    middle.kind_BO[:, HERO_SLOT] = hero_kind
    whole = hero_coverage(middle, SIZE, SIZE)
    assert (clips.area[:, LENGTH // 2] > 0.5 * whole).all()


def test_the_camera_passes_through_nothing(clips):
    frames = clips.frames
    room = frames.room_B3
    assert (frames.eye_B3[:, [0, 2]].abs() < room[:, [0, 2]] - 0.19).all()
    reach = frames.half_BO3[..., [0, 2]].norm(dim=-1)
    gap = (frames.base_BO3 - frames.eye_B3[:, None])[..., [0, 2]].norm(dim=-1) - reach
    below = frames.eye_B3[:, 1:2] < frames.base_BO3[..., 1] + 2 * frames.half_BO3[..., 1]
    assert (gap[(frames.kind_BO != EMPTY) & below] > 0.1).all()
    assert float(clips.hits.depth_BHW.min()) > 0.1


def test_the_object_stays_in_the_room(clips):
    frames = clips.frames
    base, half = frames.base_BO3[:, HERO_SLOT], frames.half_BO3[:, HERO_SLOT]
    assert (base[:, 1] >= 0).all() and (base[:, 1] + 2 * half[:, 1] <= frames.room_B3[:, 1] + 1e-5).all()
    assert (base[:, [0, 2]].abs() + half[:, [0, 2]] <= frames.room_B3[:, [0, 2]] + 0.2).all()


def test_most_rooms_keep_their_furniture(clips):
    others = (clips.frames.kind_BO != EMPTY).sum(1) - 1
    assert (others > 0).float().mean() > 0.9


@pytest.mark.parametrize("size", [(24, 64), (64, 24)])
def test_elongated_pictures_still_show_the_object(size):
    frames, action = draw_clips(10, 3, *size, ("elongated",))
    assert sorted(action.tolist()) == list(range(10))
    coverage = hero_coverage(frames, *size).unflatten(0, (10, 3))
    assert (coverage[:, 1] >= MIN_COVERAGE).all()
