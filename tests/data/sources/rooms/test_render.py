"""The ray caster against formulas written down independently, and the statistics of what it shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.rooms import empty_room, with_object
from m33d_hf.data.sources.rooms.constants import (
    BOARD,
    BOX,
    CEILING,
    CHAIR,
    CLASS_NAMES,
    CYLINDER,
    FLOOR,
    SHELF,
    SPHERE,
    TABLE,
    WALL,
)
from m33d_hf.data.sources.rooms.generate import RoomsSpec, render_chunks
from m33d_hf.data.sources.rooms.render import cast_rays, make_rays
from m33d_hf.data.sources.rooms.scene import sample_scenes
from m33d_hf.data.sources.rooms.shading import shade


def pixel_rays(height: int, width: int, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (right, up) of the rays through the pixel centres, focal length in widths, float64."""
    right = (np.arange(width) + 0.5 - width / 2) / (focal * width)
    up = (height / 2 - np.arange(height) - 0.5) / (focal * width)
    return np.broadcast_to(right, (height, width)), np.broadcast_to(up[:, None], (height, width))


def yawed(right: np.ndarray, up: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """World directions (H, W, 3) of a camera turned right by `yaw`, then up by `pitch`; z-depth 1."""
    pitch_matrix = np.array([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    yaw_matrix = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    return np.stack([right, up, np.ones_like(right)], -1) @ (yaw_matrix @ pitch_matrix).T


@pytest.mark.parametrize(("size", "yaw", "pitch"), [((24, 24), 0.0, 0.0), ((20, 36), 0.7, -0.3), ((31, 17), -2.5, 0.4)])
def test_depth_of_an_empty_room_equals_the_plane_formula(size, yaw, pitch):
    eye = np.array([0.4, 1.2, -1.0])
    scenes = empty_room(eye=tuple(eye), angles=(yaw, pitch, 0.0))
    hits = cast_rays(scenes, make_rays(scenes, *size))
    direction = yawed(*pixel_rays(*size, 0.8), yaw, pitch)
    expected, labels = np.full(size, np.inf), np.zeros(size, int)
    planes = [(0, -2.0, WALL), (0, 2.0, WALL), (1, 0.0, FLOOR), (1, 2.5, CEILING), (2, -3.0, WALL), (2, 3.0, WALL)]
    for axis, level, label in planes:
        with np.errstate(divide="ignore"):
            depth = (level - eye[axis]) / direction[..., axis]
        nearer = (depth > 0) & (depth < expected)
        expected, labels = np.where(nearer, depth, expected), np.where(nearer, label, labels)
    np.testing.assert_allclose(hits.depth_BHW[0].numpy(), expected, rtol=2e-5)
    assert np.array_equal(hits.label_BHW[0].numpy(), labels)


def test_depth_of_a_sphere_equals_the_quadratic_formula():
    eye, centre, radius = np.array([0.0, 1.2, -1.0]), np.array([0.2, 1.0, 1.0]), 0.4
    scenes = with_object(empty_room(), SPHERE, (radius,) * 3, (0.2, 0.6, 1.0))
    hits = cast_rays(scenes, make_rays(scenes, 48, 48))
    direction = yawed(*pixel_rays(48, 48, 0.8), 0.0, 0.0)
    a, b = (direction**2).sum(-1), 2 * direction @ (eye - centre)
    root = b**2 - 4 * a * (((eye - centre) ** 2).sum() - radius**2)
    inside = root > 1e-3
    depth = (-b - np.sqrt(np.clip(root, 0, None))) / (2 * a)
    shown = hits.label_BHW[0].numpy() == SPHERE
    assert shown.sum() > 100 and shown[inside].all() and not shown[root < -1e-3].any()
    np.testing.assert_allclose(hits.depth_BHW[0].numpy()[inside], depth[inside], rtol=1e-4)
    # The normal points from the centre to the surface.
    points = eye + direction * depth[..., None]
    normals = hits.normal_B3HW[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(normals[inside], ((points - centre) / radius)[inside], atol=2e-3)


def test_a_turned_box_is_where_its_corners_are():
    yaw, half, base = 0.5, (0.3, 0.4, 0.2), (0.1, 0.3, 1.2)
    scenes = with_object(empty_room(), BOX, half, base, yaw)
    hits = cast_rays(scenes, make_rays(scenes, 96, 96))
    rays = make_rays(scenes, 96, 96)
    shown = hits.label_BHW[0] == BOX
    points = rays.eye_B3[0] + (rays.direction_B3HW[0] * hits.depth_BHW[0]).permute(1, 2, 0)[shown]
    offset = points - torch.tensor(base)
    along = torch.stack(
        [torch.tensor([math.cos(yaw), 0, -math.sin(yaw)]), torch.tensor([math.sin(yaw), 0, math.cos(yaw)])]
    )
    x, z = (offset @ along.T).unbind(1)
    relative = torch.stack([x / half[0], (offset[:, 1] - half[1]) / half[1], z / half[2]], 1).abs()
    assert len(points) > 400
    torch.testing.assert_close(relative.amax(1), torch.ones(len(points)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("height", [0.2, 1.6])
def test_a_cylinder_is_closed_above_and_below(height):
    scenes = with_object(empty_room(eye=(0.0, 1.3, -1.0)), CYLINDER, (0.3, 0.25, 0.3), (0.0, height, 0.6))
    rays = make_rays(scenes, 96, 96)
    hits = cast_rays(scenes, rays)
    shown = hits.label_BHW[0] == CYLINDER
    points = rays.eye_B3[0] + (rays.direction_B3HW[0] * hits.depth_BHW[0]).permute(1, 2, 0)[shown]
    radius = (points - torch.tensor([0.0, 0.0, 0.6]))[:, [0, 2]].norm(dim=1)
    on_side = (radius - 0.3).abs() < 1e-3
    lid = height + 0.5 if height < 1 else height
    on_lid = ((points[:, 1] - lid).abs() < 1e-3) & (radius <= 0.3)
    assert (on_side | on_lid).all()
    assert on_side.sum() > 100 and (on_lid & ~on_side).sum() > 30


@pytest.mark.parametrize("kind", [TABLE, SHELF, CHAIR])
def test_furniture_stays_inside_its_bounding_box_and_reaches_its_sides(kind):
    half, base = (0.35, 0.45, 0.25), (0.0, 0.0, 0.8)
    scenes = with_object(empty_room(eye=(0.9, 1.9, -0.9), angles=(-0.5, -0.5, 0.0)), kind, half, base, 0.3)
    rays = make_rays(scenes, 128, 128)
    hits = cast_rays(scenes, rays)
    shown = hits.label_BHW[0] == kind
    points = rays.eye_B3[0] + (rays.direction_B3HW[0] * hits.depth_BHW[0]).permute(1, 2, 0)[shown]
    offset = points - torch.tensor(base)
    cos, sin = math.cos(0.3), math.sin(0.3)
    x, z = cos * offset[:, 0] - sin * offset[:, 2], sin * offset[:, 0] + cos * offset[:, 2]
    assert shown.sum() > 300
    assert x.abs().max() <= half[0] + 1e-3 and z.abs().max() <= half[2] + 1e-3
    assert offset[:, 1].min() >= -1e-3 and abs(float(offset[:, 1].max()) - 2 * half[1]) < 2e-2


def test_nothing_in_view_is_culled():
    """Casting a wide picture and cutting out its middle must show the same as casting the middle alone."""
    scenes, wide = (sample_scenes(96, torch.Generator().manual_seed(3)) for _ in range(2))
    wide.focal_B = scenes.focal_B / 3
    small, large = cast_rays(scenes, make_rays(scenes, 32, 32)), cast_rays(wide, make_rays(wide, 96, 96))
    middle = (slice(None), slice(32, 64), slice(32, 64))
    # A grazing ray may round to either side; a box culled by mistake costs dozens of pixels.
    assert (small.label_BHW != large.label_BHW[middle]).sum() <= 5
    assert ((small.depth_BHW - large.depth_BHW[middle]).abs() > 1e-3).sum() <= 5


def test_points_lie_on_what_the_label_says():
    scenes = sample_scenes(40, torch.Generator().manual_seed(1))
    rays = make_rays(scenes, 32, 40)
    hits = cast_rays(scenes, rays)
    points = rays.eye_B3[..., None, None] + rays.direction_B3HW * hits.depth_BHW[:, None]
    room = scenes.room_B3[..., None, None]
    assert (points[:, 1][hits.label_BHW == FLOOR].abs() < 1e-3).all()
    assert ((points[:, 1] - room[:, 1])[hits.label_BHW == CEILING].abs() < 1e-3).all()
    to_wall = torch.minimum((room[:, 0] - points[:, 0].abs()).abs(), (room[:, 2] - points[:, 2].abs()).abs())
    assert (to_wall[hits.label_BHW == WALL] < 1e-3).all()
    assert (to_wall[hits.label_BHW == BOARD] < 0.07).all()
    beyond = (points.abs() - room).amax(1)
    assert (beyond < 1e-3).all() and (points[:, 1] > -1e-3).all()
    lengths = hits.normal_B3HW.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-2, rtol=0)
    assert ((hits.normal_B3HW * rays.direction_B3HW).sum(1) < 1e-3).all(), "normals must face the eye"


def test_no_object_stands_in_another_or_in_a_wall():
    scenes = sample_scenes(200, torch.Generator().manual_seed(2))
    used = scenes.kind_BO >= 0
    reach = scenes.half_BO3[..., [0, 2]].norm(dim=-1)
    on_floor = used & (scenes.base_BO3[..., 1] == 0)
    inside = scenes.base_BO3[..., [0, 2]].abs() + reach[..., None] <= scenes.room_B3[:, None, [0, 2]] + 1e-4
    assert inside.all(-1)[on_floor].all()
    gap = torch.cdist(scenes.base_BO3, scenes.base_BO3) - reach[:, None] - reach[:, :, None]
    pairs = on_floor[:, None] & on_floor[:, :, None] & ~torch.eye(used.shape[1], dtype=torch.bool)
    assert (gap[pairs] > -1e-4).all()


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray]:
    """RGB (N, 3, H, W) in 0..1 and labels (N, H, W) of 200 frames."""
    spec = RoomsSpec("train", 11, "frames", 200, 1, 40, 40)
    parts = list(render_chunks(spec))
    rgb = np.concatenate([part.rgb[:, 0] for part in parts]) / 255.0
    return rgb, np.concatenate([part.segmentation[:, 0] for part in parts])


def test_every_class_is_frequent_enough_to_be_learnt(frames):
    _, labels = frames
    for kind, name in enumerate(CLASS_NAMES):
        mask = labels == kind
        assert mask.mean() > 0.01, f"{name}: {mask.mean():.4f} of the pixels"
        assert mask.any((1, 2)).mean() > 0.15, f"{name} is in {mask.any((1, 2)).mean():.2f} of the frames"


def test_colour_says_little_about_the_class(frames):
    rgb, labels = frames
    pixels = rgb.transpose(0, 2, 3, 1)
    hues = pixels / pixels.sum(-1, keepdims=True).clip(1e-3)
    train, held_out = slice(0, 100), slice(100, 200)
    means = np.stack([hues[train][labels[train] == kind].mean(0) for kind in range(len(CLASS_NAMES))])
    assert np.abs(means - 1 / 3).max() < 0.04, "some class has a hue of its own"
    guess = ((hues[held_out][..., None, :] - means) ** 2).sum(-1).argmin(-1)
    recall = [(guess == kind)[labels[held_out] == kind].mean() for kind in range(len(CLASS_NAMES))]
    assert np.mean(recall) < 0.2, f"hue alone tells the class with balanced accuracy {np.mean(recall):.2f}"


def test_pictures_are_neither_dark_nor_burnt_out(frames):
    rgb, _ = frames
    means = rgb.mean((1, 2, 3))
    assert 0.4 < means.mean() < 0.75 and means.min() > 0.12
    assert (rgb > 0.999).mean() < 0.15


def test_textures_move_with_the_object():
    scenes = with_object(empty_room(2), BOX, (0.4, 0.4, 0.4), (0.0, 0.5, 1.0), 0.3)
    scenes.eye_B3[1] += torch.tensor([0.5, 0.0, 0.3])
    scenes.base_BO3[1] += torch.tensor([0.5, 0.0, 0.3])
    materials = scenes.materials
    for name in ("first_BM3", "second_BM3", "texture_BM", "wave_BM3", "phase_BM", "ambient_B", "colour_B3", "fading_B"):
        getattr(materials, name)[1] = getattr(materials, name)[0]
    materials.texture_BM[:] = 2
    materials.colour_B3[:] = 0  # ambient light only: the lamp does not move along
    rays = make_rays(scenes, 48, 48)
    hits = cast_rays(scenes, rays)
    colours = shade(scenes, rays, hits)
    mask = (hits.label_BHW == BOX).all(0)
    assert mask.sum() > 200
    difference = (colours[0] - colours[1]).abs().amax(0)[mask]
    assert (difference < 1e-3).float().mean() > 0.98
    assert colours[0][:, mask].std(1).max() > 0.01, "the box should show its texture"
