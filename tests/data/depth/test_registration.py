"""Registration against scenes whose depth both cameras know in closed form: rays that meet planes and spheres."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.shared_data import shared
from m33d_hf.data.depth.calibration import IDENTITY, Calibration, Camera
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.files.files import read_map
from m33d_hf.errors import DataError
from m33d_hf.modeling.depth_m33d import DepthSpec

COLOR = Camera(160, 120, 150.0, 148.0, 81.3, 58.2)
DEPTH = Camera(128, 104, 100.0, 101.0, 62.7, 52.4)
PLANES = (((0.0, 0.0, 1.0), 3.0), ((0.0, 0.9, 0.436), 2.2), ((-0.8, 0.0, 0.6), 2.4))  # normal, distance: n x = d
SPHERES = (((0.25, 0.1, 1.7), 0.3), ((-0.5, -0.2, 2.1), 0.25))


def turned(x: float, y: float, z: float, shift: tuple[float, float, float]) -> np.ndarray:
    """A rigid motion by angles about the axes, in radians."""
    turns = []
    for axis, angle in enumerate((x, y, z)):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turns[2] @ turns[1] @ turns[0], shift
    return matrix


NEAR_BY = turned(0.02, -0.03, 0.015, (0.05, -0.004, 0.006))


def ray_cast(camera: Camera, depth_to_camera: np.ndarray, sub: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """z of what each pixel's ray meets; the scene is stated in the depth camera's metres, and the rays go there."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    ways = np.stack([(u + sub[0] - camera.cx) / camera.fx, (v + sub[1] - camera.cy) / camera.fy, np.ones_like(u)], -1)
    back = np.linalg.inv(depth_to_camera)
    start, ways = back[:3, 3], ways @ back[:3, :3].T
    best = np.full(u.shape, np.inf)
    for normal, distance in PLANES:
        with np.errstate(divide="ignore"):
            along = (distance - start @ np.array(normal)) / (ways @ np.array(normal))
        best = np.where((along > 0) & (along < best), along, best)
    for middle, radius in SPHERES:
        to = start - np.array(middle)
        a, b, c = (ways**2).sum(-1), 2 * ways @ to, to @ to - radius**2
        inside = b**2 - 4 * a * c
        along = np.where(inside >= 0, (-b - np.sqrt(np.maximum(inside, 0))) / (2 * a), np.inf)
        best = np.where((along > 0) & (along < best), along, best)
    return best  # rays have z = 1 in their own camera, so that the way is the depth


def seen_by(matrix: np.ndarray, truth: np.ndarray, color: Camera, depth: Camera) -> np.ndarray:
    """Which colour pixels the depth camera sees well inside its picture: not hidden, by casting its own rays back."""
    v, u = np.mgrid[0 : color.height, 0 : color.width].astype(np.float64)
    points = np.stack([(u - color.cx) / color.fx * truth, (v - color.cy) / color.fy * truth, truth], -1)
    back = np.linalg.inv(matrix)
    x, y, z = np.moveaxis(points @ back[:3, :3].T + back[:3, 3], -1, 0)
    column, row = depth.fx * x / z + depth.cx, depth.fy * y / z + depth.cy
    inside = (column > 1) & (column < depth.width - 2) & (row > 1) & (row < depth.height - 2)
    own = ray_cast(depth, np.eye(4))
    found = own[
        np.clip(np.rint(row), 0, depth.height - 1).astype(int), np.clip(np.rint(column), 0, depth.width - 1).astype(int)
    ]
    return inside & (np.abs(found - z) < 0.05)


def smooth(truth: np.ndarray, reach: int) -> np.ndarray:
    """Pixels without an edge of the scene nearby."""
    flat = np.ones(truth.shape, bool)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            flat &= np.abs(np.roll(truth, (down, right), (0, 1)) - truth) < 0.04 * max(1, reach)
    return flat


@pytest.mark.parametrize(
    "color", [COLOR, Camera(640, 480, 560.0, 556.0, 322.0, 238.0), Camera(64, 48, 58.0, 59.0, 31.0, 24.0)]
)
@pytest.mark.parametrize("matrix", [np.eye(4), NEAR_BY], ids=["side by side in one place", "apart"])
def test_what_ray_casting_sees_from_the_colour_camera(color: Camera, matrix: np.ndarray):
    """Coarser, finer (5.6 times) and alike; the error is what a depth pixel's extent means on these slopes."""
    stored = ray_cast(DEPTH, np.eye(4)).astype(np.float32)
    found = register_depth(stored, Calibration(color, DEPTH, matrix))
    assert found.shape == color.size and found.dtype == np.float32
    truth = ray_cast(color, matrix)
    seen = seen_by(matrix, truth, color, DEPTH)
    assert seen.mean() > 0.4
    assert np.isfinite(found[seen]).mean() > 0.9995  # no grid of pinholes
    judged = seen & smooth(truth, 2) & np.isfinite(found)
    apart = np.abs(found - truth)[judged]
    assert judged.mean() > 0.3 and np.median(apart) < 0.01 and np.quantile(apart, 0.99) < 0.06


def test_shifting_the_extrinsics_is_noticed():
    """The comparison above can fail: turned the wrong way round, the cameras disagree."""
    stored = ray_cast(DEPTH, np.eye(4)).astype(np.float32)
    truth = ray_cast(COLOR, NEAR_BY)
    judged = seen_by(NEAR_BY, truth, COLOR, DEPTH) & smooth(truth, 2)
    errors = []
    for matrix in (NEAR_BY, np.linalg.inv(NEAR_BY), np.eye(4)):
        found = register_depth(stored, Calibration(COLOR, DEPTH, matrix))
        errors.append(np.nanmean(np.abs(found - truth)[judged]))
    assert errors[0] < 0.012 and min(errors[1:]) > 3 * errors[0]


@pytest.mark.parametrize("camera", [DEPTH, Camera(33, 17, 21.7, 400.3, 3.1, 16.9)])
def test_one_camera_gives_its_input_back_bit_by_bit(camera: Camera):
    generator = np.random.default_rng(3)
    depth = generator.uniform(0.1, 80, camera.size).astype(np.float32)
    depth[generator.random(camera.size) < 0.2] = np.nan
    found = register_depth(depth, Calibration(camera, camera, IDENTITY))
    assert np.array_equal(found.view(np.uint32), depth.view(np.uint32))


def test_nearer_wins_and_what_is_hidden_stays_a_hole():
    """A board at 1 m before a wall at 2 m, cameras 0.1 m apart: the shadow is f b (1 / near - 1 / far) pixels wide."""
    camera = Camera(100, 60, 100.0, 100.0, 50.0, 30.0)
    depth = np.full(camera.size, 2.0, np.float32)
    depth[:, 40:60] = 1.0
    matrix = np.eye(4)
    matrix[0, 3] = 0.1  # colour sees everything further right: the board by 10 pixels, the wall by 5
    found = register_depth(depth, Calibration(camera, camera, matrix))
    expected = np.full(camera.size, 2.0, np.float32)
    expected[:, :5] = np.nan  # beyond the border of the depth camera
    expected[:, 45:50] = np.nan  # seen by the colour camera alone, behind the board's left edge
    expected[:, 50:70] = 1.0  # the board hides the wall at 65 to 69
    assert np.array_equal(found, expected, equal_nan=True)


def test_holes_stay_holes():
    camera = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)
    fine = camera.resized(90, 120)
    depth = np.full(camera.size, 2.0, np.float32)
    depth[10:14, 20:23] = np.nan
    depth[20, 5], depth[21, 5] = 0, np.inf
    found = register_depth(depth, Calibration(fine, camera))
    expected = np.isnan(np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)).repeat(3, 0).repeat(3, 1)
    assert np.array_equal(np.isnan(found), expected)
    assert not np.isfinite(register_depth(np.full(camera.size, np.nan, np.float32), Calibration(fine, camera))).any()


def test_points_behind_and_beside_the_colour_camera():
    camera = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)
    matrix = turned(0, 2.0, 0, (0, 0, 0))  # looks away
    depth = np.full(camera.size, 1.0, np.float32)
    found = register_depth(depth, Calibration(camera, camera, matrix))
    assert np.isnan(found).all()
    ahead = np.eye(4)
    ahead[2, 3] = -0.9999  # the wall lies in the colour camera's plane
    assert np.isnan(register_depth(depth, Calibration(camera, camera, ahead))).all()


def test_size_of_the_map():
    with pytest.raises(DataError, match=r"\(30, 41\).*\(30, 40\)"):
        register_depth(np.ones((30, 41), np.float32), Calibration(COLOR, Camera(40, 30, 40.0, 40.0, 20.0, 15.0)))


def test_frames_of_a_real_camera_register_into_each_other():
    """A real Kinect's frame, seen from where it stood ten frames later by its tracked poses, is what it measured there.

    The same comparison without the motion is clearly worse.
    """
    folder = shared("research_only/7scenes_seq")
    camera = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)
    maps, poses = [], []
    for number in (100, 110):
        stored = read_map(folder / f"frame-{number:06d}.depth.png")
        maps.append(DepthSpec(unit="millimetre").decode(stored))
        poses.append(np.loadtxt(folder / f"frame-{number:06d}.pose.txt"))
    motion = np.linalg.inv(poses[1]) @ poses[0]
    assert np.linalg.norm(motion[:3, 3]) > 0.02
    found = register_depth(maps[0], Calibration(camera, camera, motion))
    both = np.isfinite(found) & np.isfinite(maps[1])
    apart, still = np.abs(found - maps[1])[both], np.abs(maps[0] - maps[1])[both & np.isfinite(maps[0])]
    assert both.mean() > 0.5 and np.median(apart) < 0.01 and np.median(still) > 5 * np.median(apart)
