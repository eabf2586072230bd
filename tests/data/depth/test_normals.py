"""Normals of planes and of a sphere, by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from m33d_hf.data.depth.normals import normal_map, surface_normals

HEIGHT, WIDTH = 40, 48


def _rays() -> torch.Tensor:
    """(H, W, 3) of the camera that is assumed: one unit along z, the longer side as focal length."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([(columns - 23.5) / WIDTH, (rows - 19.5) / WIDTH, torch.ones(HEIGHT, WIDTH)], dim=-1)


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.0, -0.8, -0.6), (0.6, 0.0, -0.8), (-2 / 3, 1 / 3, -2 / 3)])
def test_a_plane_has_its_normal_everywhere(normal: tuple[float, float, float]) -> None:
    """A ray r meets the plane of the points P with n P = -3 at the depth -3 / (n r); behind the camera is nothing."""
    expected = torch.tensor(normal)
    depth = -3.0 / (_rays() @ expected)
    depth[(depth < 0.3) | (depth > 30)] = math.nan
    found = surface_normals(depth[None, None])[0].permute(1, 2, 0)
    known = found.isfinite().all(dim=-1)
    assert known.float().mean() > 0.3
    assert torch.allclose(found[known], expected.expand(int(known.sum()), 3), atol=2e-3)


def test_a_sphere_points_away_from_its_centre() -> None:
    centre, radius, rays = torch.tensor([0.2, -0.1, 3.0]), 1.0, _rays()
    half, squared = rays @ centre, (rays * rays).sum(-1)
    inside = half**2 - squared * (centre @ centre - radius**2)
    depth = (half - inside.sqrt()) / squared  # the nearer of the two meetings; NaN where there is none
    expected = (rays * depth[..., None] - centre) / radius
    found = surface_normals(depth[None, None])[0].permute(1, 2, 0)
    known = found.isfinite().all(dim=-1) & (inside > 0.3)  # not at the rim, where a pixel is far across the surface
    assert known.sum() > 100
    assert float((found[known] * expected[known]).sum(-1).clamp(max=1).acos().rad2deg().max()) < 2.5


def test_scale_does_not_matter_and_a_mirrored_picture_has_mirrored_normals() -> None:
    depth = 2 + torch.rand(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    found = surface_normals(depth)
    assert torch.allclose(surface_normals(1000 * depth), found, atol=1e-4, equal_nan=True)
    mirrored = surface_normals(depth.flip(-1)).flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    assert torch.allclose(mirrored, found, atol=1e-5, equal_nan=True)
    assert torch.allclose(normal_map(depth), (found + 1) / 2, equal_nan=True)


def test_the_border_and_a_hole_with_its_neighbours_have_none() -> None:
    depth = torch.full((1, 1, 5, 7), 2.0)
    depth[0, 0, 2, 3] = math.nan
    known = surface_normals(depth).isfinite().all(dim=1)[0]
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[1:-1, 1:-1] = True
    for row, column in ((2, 3), (1, 3), (3, 3), (2, 2), (2, 4)):
        expected[row, column] = False
    assert torch.equal(known, expected)
    assert surface_normals(torch.ones(1, 1, 2, 2)).isnan().all()
