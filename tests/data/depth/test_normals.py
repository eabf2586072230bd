"""Normals of planes and of a sphere, by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from m33d_hf.data.depth.normals import normal_map, surface_normals

SIZES = [(40, 48), (168, 224)]  # neighbours are one pixel apart, and five


def _rays(height: int, width: int) -> torch.Tensor:
    """(H, W, 3), y up and z towards the viewer: one unit away, with the longer side as focal length."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    across, up = (columns - (width - 1) / 2) / width, ((height - 1) / 2 - rows) / width
    return torch.stack([across, up, -torch.ones(height, width)], dim=-1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.0, 0.8, 0.6), (0.6, 0.0, 0.8), (-2 / 3, 1 / 3, 2 / 3)])
def test_a_plane_has_its_normal_everywhere(normal: tuple[float, float, float], size: tuple[int, int]) -> None:
    """A ray r meets the plane of the points P with n P = -3 at the depth -3 / (n r); behind the camera is nothing."""
    expected = torch.tensor(normal)
    depth = -3.0 / (_rays(*size) @ expected)
    depth[(depth < 0.3) | (depth > 30)] = math.nan
    found = surface_normals(depth[None, None])[0].permute(1, 2, 0)
    known = found.isfinite().all(dim=-1)
    assert known.float().mean() > 0.3
    assert torch.allclose(found[known], expected.expand(int(known.sum()), 3), atol=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_sphere_points_away_from_its_centre_and_its_rim_has_none(size: tuple[int, int]) -> None:
    centre, radius, rays = torch.tensor([0.2, 0.1, -3.0]), 1.0, _rays(*size)
    half, squared = rays @ centre, (rays * rays).sum(-1)
    inside = half**2 - squared * (centre @ centre - radius**2)
    depth = torch.where(inside > 0, (half - inside.clamp_min(0).sqrt()) / squared, 6.0)  # before a wall
    expected = (rays * depth[..., None] - centre) / radius
    found = surface_normals(depth[None, None])[0].permute(1, 2, 0)
    known = found.isfinite().all(dim=-1)
    on_it, on_the_wall = known & (inside > 0), known & (inside <= 0)
    assert on_it.sum() > 100 and on_the_wall.sum() > 100
    assert float((found[on_it] * expected[on_it]).sum(-1).clamp(max=1).acos().rad2deg().max()) < 8
    assert torch.allclose(found[on_the_wall], torch.tensor([0.0, 0.0, 1.0]), atol=1e-3)


def test_scale_does_not_matter_and_a_mirrored_picture_has_mirrored_normals() -> None:
    depth = 2 + 0.1 * torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    found = surface_normals(depth)
    assert found.isfinite().any()
    assert torch.allclose(surface_normals(1000 * depth), found, atol=1e-4, equal_nan=True)
    mirrored = surface_normals(depth.flip(-1)).flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    assert torch.allclose(mirrored, found, atol=1e-5, equal_nan=True)
    assert torch.allclose(normal_map(depth), (found + 1) / 2, equal_nan=True)


def test_depth_of_few_pixels_makes_no_stairs() -> None:
    """A wall 45 degrees aside, stored in a quarter of the pixels along each side and enlarged to the nearest one."""
    expected = torch.tensor([math.sqrt(0.5), 0.0, math.sqrt(0.5)])
    depth = (-3.0 / (_rays(168, 224) @ expected))[2::4, 2::4].repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = surface_normals(depth[None, None])[0].permute(1, 2, 0)
    known = found.isfinite().all(dim=-1)
    assert float((found[known] @ expected).clamp(max=1).acos().rad2deg().median()) < 12


def test_the_border_a_hole_with_its_neighbours_and_an_edge_have_none() -> None:
    depth = torch.full((1, 1, 5, 9), 2.0)
    depth[0, 0, 2, 3] = math.nan
    depth[..., 7:] = 5.0
    known = surface_normals(depth).isfinite().all(dim=1)[0]
    expected = torch.zeros(5, 9, dtype=torch.bool)
    expected[1:-1, 1:-1] = True
    for row, column in ((2, 3), (1, 3), (3, 3), (2, 2), (2, 4)):
        expected[row, column] = False
    expected[:, 6:8] = False  # 2 m beside 5 m
    assert torch.equal(known, expected)
    assert surface_normals(torch.ones(1, 1, 2, 2)).isnan().all()
    assert surface_normals(torch.ones(3, 1, 200, 8)).isnan().all(), "too narrow for neighbours"
