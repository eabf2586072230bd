"""A structured-light depth camera of the Kinect kind: noise, disparity steps and holes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from m33d_hf.data.sources.rooms.render import Hits, Rays

NEAREST, FARTHEST = 0.35, 8.0  # metres that the sensor can measure
_BASELINE = 0.075  # metres between projector and camera
_STEP = 2.85e-3  # depth resolution is _STEP * z^2 (Khoshelham and Elberink 2012)
_GRAZING = 0.10  # cosine between ray and normal below which too little light returns
_BLOB_GRID = 6  # reflecting patches: smooth noise of this many cells a side ...
_BLOB_THRESHOLD = 1.4  # ... above this many standard deviations
_SPECKLE = 0.004  # share of pixels that drop out alone
_MILLIMETRES = 1000.0


def draw_sensor_noise(generator: torch.Generator, batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """CPU draws for `sense`: pixel noise (B, H, W), blob noise (B, 1, 6, 6), both normal; speckle (B, H, W) in 0..1."""
    pixel_BHW = torch.randn(batch, height, width, generator=generator)
    blob_B1GG = torch.randn(batch, 1, _BLOB_GRID, _BLOB_GRID, generator=generator)
    return pixel_BHW, blob_B1GG, torch.rand(batch, height, width, generator=generator)


def sense(hits: Hits, rays: Rays, focal_B: Tensor, noise: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Measured z-depth in whole millimetres (B, H, W) int32, 0 where the sensor returns nothing.

    Noise grows with distance as 1.2 mm + 1.9 mm (z - 0.4)^2 (Nguyen et al. 2012), then depth moves to the
    nearest disparity step. Holes: out of range, grazing surfaces, the projector's shadow beside near edges,
    reflecting patches and single pixels.
    """
    pixel_BHW, blob_B1GG, speckle_BHW = noise
    depth_BHW = hits.depth_BHW
    height, width = depth_BHW.shape[-2:]
    noisy_BHW = depth_BHW + pixel_BHW * (0.0012 + 0.0019 * (depth_BHW - 0.4).square())
    disparity_BHW = (1 / (_STEP * noisy_BHW.clamp_min(0.1))).round_().clamp_min_(1)
    measured_BHW = 1 / (_STEP * disparity_BHW)
    cosine_BHW = (hits.normal_B3HW * rays.direction_B3HW).sum(1).abs() * rays.direction_B3HW.square().sum(1).rsqrt()
    blob_BHW = F.interpolate(blob_B1GG, (height, width), mode="bicubic", align_corners=False)[:, 0]
    hole_BHW = (cosine_BHW < _GRAZING) | (blob_BHW > _BLOB_THRESHOLD) | (speckle_BHW < _SPECKLE)
    hole_BHW |= (depth_BHW < NEAREST) | (depth_BHW > FARTHEST) | _projector_shadow(depth_BHW, focal_B)
    return (measured_BHW * _MILLIMETRES).round_().masked_fill_(hole_BHW, 0).to(torch.int32)


def _projector_shadow(depth_BHW: Tensor, focal_B: Tensor) -> Tensor:
    """Pixels that the camera sees and the projector, 7.5 cm to its left, does not.

    A pixel s columns to the left with a disparity larger by s or more hides the light that should come here.
    """
    width = depth_BHW.shape[-1]
    disparity_BHW = (_BASELINE * width) * focal_B[:, None, None] / depth_BHW  # pixels
    shadow_BHW = torch.zeros_like(depth_BHW, dtype=torch.bool)
    for shift in range(1, min(max(2, width // 8), width - 1) + 1):
        nearer = disparity_BHW[..., :-shift] - disparity_BHW[..., shift:] >= shift
        shadow_BHW[..., shift:] |= nearer
    return shadow_BHW


def sensor_metres(millimetres: np.ndarray) -> np.ndarray:
    """What `sense` stores (uint16 millimetres, 0 = hole) as float32 metres with NaN for holes, same shape."""
    depth = millimetres.astype(np.float32) * np.float32(1 / _MILLIMETRES)
    depth[millimetres == 0] = np.nan
    return depth
