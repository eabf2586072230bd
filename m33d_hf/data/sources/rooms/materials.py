"""Colours, textures and lights, drawn independently of what they are put on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.data.sources.rooms.constants import NUM_MATERIALS

NUM_TEXTURES = 5  # plain, stripes, checks, waves, dots
_ALBEDO = (0.35, 0.95)
_CONTRAST = 0.25  # how far a texture's second colour lies from the first
_FIRST_WALL, _LAST_FACE = 2, 6


@dataclass
class Materials:
    """One material per room face, object slot and board slot, and the light of each room.

    Attributes:
        first_BM3, second_BM3: the two colours of the texture, in 0..1.
        texture_BM: 0 plain, 1 stripes, 2 checks, 3 waves, 4 dots.
        wave_BM3: wave vector of the texture in radians per metre, phase_BM its phase.
        light_B3: position of the lamp, colour_B3 its strength, fading_B its attenuation per square metre.
        ambient_B: strength of the light from everywhere.
    """

    first_BM3: Tensor
    second_BM3: Tensor
    texture_BM: Tensor
    wave_BM3: Tensor
    phase_BM: Tensor
    light_B3: Tensor
    colour_B3: Tensor
    fading_B: Tensor
    ambient_B: Tensor


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform float32 draws in [low, high)."""
    return torch.rand(*shape, generator=generator) * (high - low) + low


def sample_materials(generator: torch.Generator, room_B3: Tensor) -> Materials:
    """Draw materials and light for rooms of half width, height, half depth `room_B3`."""
    batch, count = room_B3.shape[0], NUM_MATERIALS
    first_BM3 = uniform(generator, *_ALBEDO, batch, count, 3)
    second_BM3 = (first_BM3 + uniform(generator, -_CONTRAST, _CONTRAST, batch, count, 3)).clamp(0.03, 1)
    saturation_BM1 = uniform(generator, 0.2, 1, batch, count, 1)
    first_BM3 = first_BM3.mean(-1, keepdim=True).lerp(first_BM3, saturation_BM1)
    # In half of the rooms the four walls are of one material, as walls usually are.
    alike_B = uniform(generator, 0, 1, batch) < 0.5
    source_BM = torch.arange(count).expand(batch, count).clone()
    source_BM[:, _FIRST_WALL:_LAST_FACE] = torch.where(
        alike_B[:, None], _FIRST_WALL, source_BM[:, _FIRST_WALL:_LAST_FACE]
    )
    rows_B1 = torch.arange(batch)[:, None]
    # Every second surface is plain: rand over twice the textures, the lower half all mean "plain".
    texture_BM = (uniform(generator, 0, 2 * NUM_TEXTURES - 1, batch, count).long() - NUM_TEXTURES + 1).clamp_min(0)
    length_BM1 = torch.exp(uniform(generator, 1.0, 2.7, batch, count, 1))
    wave_BM3 = torch.randn(batch, count, 3, generator=generator) * length_BM1
    light_B3 = uniform(generator, -0.8, 0.8, batch, 3) * room_B3
    light_B3[:, 1] = room_B3[:, 1] * uniform(generator, 0.75, 0.95, batch)
    return Materials(
        first_BM3=first_BM3[rows_B1, source_BM],
        second_BM3=second_BM3[rows_B1, source_BM],
        texture_BM=texture_BM[rows_B1, source_BM],
        wave_BM3=wave_BM3[rows_B1, source_BM],
        phase_BM=uniform(generator, 0, 6.28, batch, count)[rows_B1, source_BM],
        light_B3=light_B3,
        colour_B3=uniform(generator, 0.75, 1.1, batch, 3) * uniform(generator, 0.7, 1.3, batch, 1),
        fading_B=uniform(generator, 0.03, 0.15, batch),
        ambient_B=uniform(generator, 0.3, 0.6, batch),
    )
