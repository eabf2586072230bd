"""Clips to augment, and torchvision's pixels of one operation of its RandAugment."""

from __future__ import annotations

import math

import torch
from torchvision.transforms import v2

from m33d_hf.data.augmentation.rand_augmentation import Operation
from m33d_hf.data.randomness import generator_of


def clips(count: int = 1) -> torch.Tensor:
    """Noise, a narrow range with a flat plane, and few values, in turn."""
    noise = torch.randint(0, 256, (count, 3, 3, 30, 41), generator=generator_of(3), dtype=torch.uint8)
    noise[1::3] = noise[1::3] // 4 + 90
    noise[1::3, 1, 2] = 7
    noise[2::3] = noise[2::3] // 128 * 128
    return noise


def theirs(frames: torch.Tensor, operation: Operation) -> torch.Tensor:
    """One operation by torchvision, as its RandAugment calls it, but for shears, which are about the centre here."""
    made = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR)
    fill = {torch.Tensor: [128.0] * 3}
    name, strength = operation
    if name.startswith("Shear"):
        degrees = math.degrees(math.atan(strength))
        shear = [degrees, 0.0] if name == "ShearX" else [0.0, degrees]
        options = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "fill": [128.0] * 3}
        return v2.functional.affine(frames, shear=shear, interpolation=made.interpolation, **options)
    return made._apply_image_or_video_transform(frames, name, strength, made.interpolation, fill)
