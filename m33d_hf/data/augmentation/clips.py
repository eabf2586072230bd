"""Augmentation of clips with one draw for all frames: RandAugment and random erasing, as in VideoMAE."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import Operation, draw_operations
from m33d_hf.data.randomness import Draw, Uniforms, seeded
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError

ERASING_ATTEMPTS = 10


def draw_rand_augment(sample: RGBDSample, ops: int, magnitude: int) -> tuple[Operation, ...]:
    """Draw torchvision's RandAugment of a sample's RGB, the same operations with the same strength for all frames.

    It stands in for VideoMAE's 'rand-m7-n4-mstd0.5-inc1': other operations (no invert, no solarize-add), bilinear
    instead of bicubic, no noise on the magnitude, every operation applied (there with probability one half), and
    magnitudes that count to 30 (there to 10). It is drawn for the whole frames and carried out on the crop, which
    follows what moves (`rand_geometry`); what comes from outside is mid-grey.

    Args:
        sample: with (T, 3, H, W) RGB and its draw in `meta`.
        ops: number of operations, at least 1.
        magnitude: strength, 0 to 30.

    Raises:
        ConfigError: the sample has depth, pixel labels or another map, which would no longer match the RGB.
    """
    if sample.depth is not None or sample.segmentation is not None or sample.meta.get("modalities"):
        raise ConfigError(
            f"{sample.key}: RandAugment moves only the RGB, so the depth or pixel labels of this sample would no "
            "longer match it; set --transforms.randaugment_ops 0, or read RGB only (--data.options.depth null, if the "
            "source has that option)"
        )
    if sample.rgb is None:
        raise ConfigError(
            f"{sample.key}: RandAugment requires RGB, but the sample has none; set --transforms.randaugment_ops 0"
        )
    draw: Draw = sample.meta["draw"]
    with seeded(draw.seed, draw.epoch, sample.key, draw.view, "randaugment"):
        return draw_operations(ops, magnitude, sample.height, sample.width)


def erase_box(height: int, width: int, options: TransformOptions, draws: Uniforms) -> tuple[int, int, int, int] | None:
    """Draw the box (top, left, height, width) to erase, smaller than the frame; None if nothing is erased or no box
    fits.

    Its height / width is drawn uniformly in the logarithm.
    """
    if not draws.chance(options.erasing):
        return None
    low, high = math.log(options.erasing_aspect[0]), math.log(options.erasing_aspect[1])
    for _ in range(ERASING_ATTEMPTS):
        area = draws.uniform(*options.erasing_area) * height * width
        aspect = math.exp(draws.uniform(low, high))
        box_h, box_w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_h < height and 0 < box_w < width:
            return draws.integer(height - box_h + 1), draws.integer(width - box_w + 1), box_h, box_w
    return None


class Erasing(NamedTuple):
    """The erased part of a clip: a box (top, left, height, width) in pixels, and the generator of the noise in its
    place."""

    box: tuple[int, int, int, int]
    generator: torch.Generator

    def noise(self, frames: int, device: torch.device) -> torch.Tensor:
        """Draw (T, 3, h, w) float32, the same at every call; on another device than the CPU other numbers.

        Noise is standard normal for every value: on normalised RGB, it has the mean and deviation of the data.
        """
        on_cpu = device.type == "cpu"
        generator = self.generator.clone_state() if on_cpu else torch.Generator(device)
        if not on_cpu:
            generator.manual_seed(self.generator.initial_seed())
        return torch.randn((frames, 3, *self.box[2:]), generator=generator, device=device)


def draw_erasing(height: int, width: int, options: TransformOptions, draw: Draw, key: str) -> Erasing | None:
    """Draw the part to erase of a clip of T x 3 x H x W normalised pixels, as a function of (seed, epoch, key, view).

    Returns:
        None if nothing is erased.
    """
    if options.erasing == 0:
        return None
    generator = draw.generator(key, "erase")
    box = erase_box(height, width, options, Uniforms(generator))
    if box is None:
        return None
    return Erasing(box, generator)
