"""Surface normals from a depth map, as a further target of pre-training that needs no files."""

from __future__ import annotations

import torch

# A modality of this name is computed from depth; see docs/own_data.md.
DEPTH_NORMALS = "depth_normals"
# Neighbours lie this share of the longer side apart from a pixel, at least one pixel: depth is often stored in fewer
# pixels than the picture has, and its noise counts less the farther apart they are.
_REACH = 1 / 48
# Neighbours whose depths differ by more than this share of the nearest lie on two surfaces.
_JUMP = 0.15


def surface_normals(depth_T1HW: torch.Tensor) -> torch.Tensor:
    """Unit normals of the surfaces that depth shows, in the axes of normal maps: x right, y up, z towards the viewer.

    The camera is taken to look through the middle of the picture with a focal length of its longer side (53 degrees),
    whatever it was, and whatever part of its picture this is: a crop of half a picture turns a wall that is 45 degrees
    aside by up to 18 degrees. What depth is a multiple of does not matter.

    Args:
        depth_T1HW: distance along the viewing axis, NaN where nothing was measured.

    Returns:
        (T, 3, H, W) float32, NaN near the border, where a pixel or one of its four neighbours has no depth, and where
        one surface ends before another.
    """
    height, width = depth_T1HW.shape[-2:]
    focal = float(max(height, width))
    reach = max(1, round(focal * _REACH))
    normals = depth_T1HW.new_full((len(depth_T1HW), 3, height, width), torch.nan, dtype=torch.float32)
    if min(height, width) <= 2 * reach:
        return normals
    across = (torch.arange(width) - (width - 1) / 2) / focal
    down = (torch.arange(height) - (height - 1) / 2) / focal
    depth = depth_T1HW.float()
    points = torch.cat([depth * across, depth * down[:, None], depth], dim=1)
    inside = slice(reach, -reach)
    around = [
        points[..., inside, 2 * reach :],
        points[..., inside, : -2 * reach],
        points[..., 2 * reach :, inside],
        points[..., : -2 * reach, inside],
    ]
    crossed = torch.linalg.cross(around[2] - around[3], around[0] - around[1], dim=1)
    crossed[:, 1:].neg_()  # y was down and z away
    found = crossed / torch.linalg.vector_norm(crossed, dim=1, keepdim=True)
    distances = torch.stack([depth[..., inside, inside], *(each[:, 2:] for each in around)])
    nearest, farthest = distances.amin(dim=0), distances.amax(dim=0)  # NaN where one of them is
    normals[..., inside, inside] = torch.where(farthest <= (1 + _JUMP) * nearest, found, torch.nan)
    return normals


def normal_map(depth_T1HW: torch.Tensor) -> torch.Tensor:
    """`surface_normals` as pictures of normals hold them, from 0 to 1 instead of -1 to 1."""
    return (surface_normals(depth_T1HW) + 1) / 2
