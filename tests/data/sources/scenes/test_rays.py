"""Aria's fisheye camera: the inverse against its forward formula, written separately and solved by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import root

from m33d_hf.data.sources.scenes.rays import axis_cosines
from m33d_hf.errors import DataError

SIZE, F, C = (176, 176), 74.409, (89.04, 86.92)
# Aria's own size of the numbers: strong bending, small shifts.
DISTORTION = np.array([0.365, -0.174, -0.753, 2.435, -2.578, 0.879, 8.0e-4, -2.9e-4, 1e-3, -5e-4, 7e-4, 2e-4])
INTRINSICS = np.array([[F, 0, C[0]], [0, F, C[1]], [0, 0, 1.0]])


def project(direction: np.ndarray) -> np.ndarray:
    """Pixel (u, v) of a direction, step by step as the camera's documentation has it."""
    x, y, z = direction
    theta = np.arctan2(np.hypot(x, y), z)
    bent = theta + sum(k * theta ** (2 * i + 3) for i, k in enumerate(DISTORTION[:6]))
    q = bent * np.array([x, y]) / max(np.hypot(x, y), 1e-300)
    square, p = q @ q, DISTORTION[6:8]
    q = q + 2 * (q @ p) * q + square * p
    q = q + np.array([DISTORTION[8:10], DISTORTION[10:12]]) @ [square, square**2]
    return F * q + C


def test_cosines_are_those_of_directions_that_meet_the_pixels():
    found = axis_cosines(SIZE, INTRINSICS, DISTORTION)

    def missed(at: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        return project(np.array([*at, 1.0])) - pixel

    for row, column in np.random.default_rng(0).integers(20, 156, (40, 2)):
        pixel = np.array([column, row])
        solved = root(missed, (pixel - C) / F, (pixel,), tol=1e-12)
        assert solved.success and found[row, column] == pytest.approx(1 / np.sqrt(1 + solved.x @ solved.x), abs=1e-7)


def test_a_straight_camera_without_distortion_has_the_cosine_of_its_angle():
    found = axis_cosines((5, 101), np.array([[100.0, 0, 50], [0, 100, 2], [0, 0, 1]]), np.zeros(12))
    assert np.allclose(found[2], np.cos(np.abs(np.arange(101) - 50) / 100), atol=1e-12)


def test_pixels_beyond_the_lens_have_none():
    found = axis_cosines((3, 400), np.array([[100.0, 0, 200], [0, 100, 1], [0, 0, 1]]), np.zeros(12))
    assert np.isnan(found[1, :40]).all() and np.isfinite(found[1, 60:340]).all()


@pytest.mark.parametrize("distortion", [np.zeros(4), np.full(12, np.nan)])
def test_other_parameters_are_refused(distortion: np.ndarray):
    with pytest.raises(DataError, match="Fisheye624"):
        axis_cosines(SIZE, INTRINSICS, distortion)
