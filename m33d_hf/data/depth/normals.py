"""Surface normals from a depth map, as a further target of pre-training that needs no files."""

from __future__ import annotations

import torch

# A modality of this name is computed from depth; see docs/own_data.md.
DEPTH_NORMALS = "depth_normals"


def surface_normals(depth_T1HW: torch.Tensor) -> torch.Tensor:
    """Unit normals of the surfaces that depth shows, towards the camera: x to the right, y down, z away from it.

    The camera is taken to look through the middle of the picture with a focal length of its longer side (53 degrees):
    a crop's own is not known. Another one turns the normals, alike in all pictures of a camera. What depth is a
    multiple of does not matter.

    Args:
        depth_T1HW: distance along z, NaN where nothing was measured.

    Returns:
        (T, 3, H, W) float32, NaN at the border and where a pixel or one of its four neighbours has no depth.
    """
    height, width = depth_T1HW.shape[-2:]
    focal = float(max(height, width))
    across = (torch.arange(width) - (width - 1) / 2) / focal
    down = (torch.arange(height) - (height - 1) / 2) / focal
    depth = depth_T1HW.float()
    points = torch.cat([depth * across, depth * down[:, None], depth], dim=1)
    right = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    below = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    normals = torch.full_like(points, torch.nan)
    crossed = torch.linalg.cross(below, right, dim=1)
    # 0 / 0, where both neighbours lie in one point, is NaN as well: such a pixel has no normal.
    normals[..., 1:-1, 1:-1] = crossed / torch.linalg.vector_norm(crossed, dim=1, keepdim=True)
    return normals.masked_fill(~torch.isfinite(depth), torch.nan)


def normal_map(depth_T1HW: torch.Tensor) -> torch.Tensor:
    """`surface_normals` as pictures of normals hold them, from 0 to 1 instead of -1 to 1."""
    return (surface_normals(depth_T1HW) + 1) / 2
