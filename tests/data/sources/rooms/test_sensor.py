"""The simulated depth camera: noise, steps, and holes where a real one has them."""

from __future__ import annotations

import torch

from helpers.rooms import empty_room, with_object
from m33d_hf.data.sources.rooms.constants import SPHERE
from m33d_hf.data.sources.rooms.generate import RoomsSpec, render_chunks
from m33d_hf.data.sources.rooms.render import cast_rays, make_rays
from m33d_hf.data.sources.rooms.sensor import draw_sensor_noise, sense


def quiet(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws that cause neither noise nor blobs nor speckle."""
    return torch.zeros(batch, size, size), torch.zeros(batch, 1, 6, 6), torch.ones(batch, size, size)


def test_share_of_holes_is_that_of_a_depth_camera():
    parts = list(render_chunks(RoomsSpec("test", 4, "frames", 128, 1, 48, 48)))
    holes = torch.cat([torch.from_numpy((part.sensor == 0).mean((1, 2, 3))) for part in parts])
    assert 0.02 < holes.mean() < 0.25
    assert holes.max() < 0.6 and (holes > 0).all()


def test_measured_depth_is_close_to_the_exact_one():
    for part in render_chunks(RoomsSpec("test", 4, "frames", 64, 1, 48, 48)):
        valid = part.sensor > 0
        exact = part.clean[valid]
        error = abs(part.sensor[valid] / 1000.0 - exact)
        assert error[exact < 1.5].mean() < 0.01
        assert (error < 0.08 + 0.03 * exact**2).all()
        assert error[exact > 3].mean() > error[exact < 1.5].mean(), "noise must grow with distance"


def test_without_noise_only_disparity_steps_remain():
    scenes = empty_room()
    rays = make_rays(scenes, 32, 32)
    hits = cast_rays(scenes, rays)
    measured = sense(hits, rays, scenes.focal_B, quiet(1, 32))
    valid = measured > 0
    assert valid.float().mean() > 0.95
    step = 2.85e-3 * hits.depth_BHW.square()
    error = (measured / 1000.0 - hits.depth_BHW).abs()
    assert (error[valid] <= (0.51 * step + 6e-4)[valid]).all()


def test_the_projector_casts_its_shadow_to_the_right_of_a_near_object():
    scenes = with_object(empty_room(), SPHERE, (0.3,) * 3, (0.0, 0.9, 0.2))
    rays = make_rays(scenes, 96, 96)
    hits = cast_rays(scenes, rays)
    hole = sense(hits, rays, scenes.focal_B, quiet(1, 96))[0] == 0
    row = int((hits.label_BHW[0] == SPHERE).sum(1).argmax())
    columns = (hits.label_BHW[0, row] == SPHERE).nonzero()[:, 0]
    left, right = int(columns[0]), int(columns[-1])
    width = (0.075 * 96 * 0.8) * (1 / 1.2 - 1 / 4.0)  # pixels between the disparities of ball and wall
    assert not hole[row, left - 8 : left - 1].any()
    assert abs(int(hole[row, right + 1 : right + 12].sum()) - width) <= 2


def test_blobs_and_speckle_follow_their_draws():
    noise = draw_sensor_noise(torch.Generator().manual_seed(0), 3, 20, 30)
    again = draw_sensor_noise(torch.Generator().manual_seed(0), 3, 20, 30)
    assert [tuple(value.shape) for value in noise] == [(3, 20, 30), (3, 1, 6, 6), (3, 20, 30)]
    assert all(torch.equal(a, b) for a, b in zip(noise, again))
    scenes = empty_room(3)
    rays = make_rays(scenes, 24, 24)
    hits = cast_rays(scenes, rays)
    pixel, blob, speckle = quiet(3, 24)
    blob[1] = 5.0
    speckle[2, 3, 4] = 0.0
    measured = sense(hits, rays, scenes.focal_B, (pixel, blob, speckle))
    assert (measured[1] == 0).all()
    assert measured[0, 3, 4] > 0 and measured[2, 3, 4] == 0
