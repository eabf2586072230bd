"""Frames and clips in chunks of fixed size: item i is a function of (seed, split, unit, i), whatever else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sources.rooms.constants import RENDERER_VERSION
from m33d_hf.data.sources.rooms.materials import uniform
from m33d_hf.data.sources.rooms.motion import draw_clips
from m33d_hf.data.sources.rooms.render import cast_rays, make_rays
from m33d_hf.data.sources.rooms.scene import Scenes, sample_scenes
from m33d_hf.data.sources.rooms.sensor import draw_sensor_noise, sense
from m33d_hf.data.sources.rooms.shading import shade, to_uint8

# Draws are made per chunk, always for a full one: a longer data set begins with the shorter one.
# Ten clips make each motion appear once per chunk.
CHUNK = {"frames": 32, "clips": 10}
_DTYPES = {"rgb": "uint8", "sensor": "uint16", "clean": "float32", "segmentation": "uint8", "action": "uint8"}
_CAMERA_NOISE = (0.005, 0.015)  # standard deviation of the colour noise, in 0..1


@dataclass(frozen=True)
class RoomsSpec:
    """What there is to render: everything that decides the content, and nothing else.

    Attributes:
        split, seed: each split of each seed is a world of its own.
        unit: "frames" or "clips"; count of them; clip_length in frames (1 for frames).
        height, width: in pixels.
        device: "cpu" or "cuda"; they round differently in a few pixels.
    """

    split: str
    seed: int
    unit: str
    count: int
    clip_length: int
    height: int
    width: int
    device: str = "cpu"

    def parameters(self) -> dict[str, Any]:
        """Plain values that name the content, renderer included."""
        return {**asdict(self), "renderer": RENDERER_VERSION}

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Data type and shape of every array of the cache."""
        lead = (self.count, self.clip_length)
        map_shape = (*lead, self.height, self.width)
        shapes = {"rgb": (*lead, 3, self.height, self.width), "action": (self.count,)}
        return {name: (dtype, shapes.get(name, map_shape)) for name, dtype in _DTYPES.items()}

    def chunks(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Render for the cache: number of items, and their rows of every array."""
        for rendered in render_chunks(self):
            yield len(rendered.action), vars(rendered)


@dataclass
class Rendered:
    """N items of T frames each.

    Attributes:
        rgb: (N, T, 3, H, W) uint8.
        sensor: (N, T, H, W) uint16 millimetres, 0 = hole.
        clean: (N, T, H, W) float32 metres, exact.
        segmentation: (N, T, H, W) uint8 class ids.
        action: (N,) uint8 motion class; 0 for frames.
    """

    rgb: np.ndarray
    sensor: np.ndarray
    clean: np.ndarray
    segmentation: np.ndarray
    action: np.ndarray


def render_chunks(spec: RoomsSpec) -> Iterator[Rendered]:
    """Render `spec.count` items chunk by chunk; the last chunk is cut to what was asked."""
    size = CHUNK[spec.unit]
    for number in range(-(-spec.count // size)):
        rendered = render_chunk(spec, number)
        left = spec.count - number * size
        yield rendered if left >= size else Rendered(*(value[:left] for value in vars(rendered).values()))


@torch.no_grad()
def render_chunk(spec: RoomsSpec, number: int) -> Rendered:
    """Render chunk `number` in full."""
    count = CHUNK[spec.unit]
    name = ("rooms", RENDERER_VERSION, spec.split, spec.seed, spec.unit, number)
    if spec.unit == "frames":
        scenes, action_B = sample_scenes(count, generator_of(*name, "scene")), torch.zeros(count)
    else:
        scenes, action_B = draw_clips(count, spec.clip_length, spec.height, spec.width, name)
    rgb, sensor, clean, segmentation = render_scenes(
        scenes, spec.height, spec.width, generator_of(*name, "noise"), spec.device
    )
    shape = (count, spec.clip_length)
    return Rendered(
        rgb=rgb.unflatten(0, shape).cpu().numpy(),
        sensor=sensor.unflatten(0, shape).cpu().numpy().astype(np.uint16),
        clean=clean.unflatten(0, shape).cpu().numpy(),
        segmentation=segmentation.unflatten(0, shape).cpu().numpy(),
        action=action_B.numpy().astype(np.uint8),
    )


def render_scenes(
    scenes: Scenes, height: int, width: int, generator: torch.Generator, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One frame of each scene: rgb (B,3,H,W) uint8, measured depth (B,H,W) int32 millimetres with 0 for holes,
    exact depth (B,H,W) float32 metres and class ids (B,H,W) uint8, on `device`. Noise is drawn on the CPU."""
    batch = scenes.batch
    pixel_BHW, blob_B1GG, speckle_BHW = draw_sensor_noise(generator, batch, height, width)
    camera_noise_B3HW = torch.randn(batch, 3, height, width, generator=generator)
    strength_B = uniform(generator, *_CAMERA_NOISE, batch)
    scenes = scenes.to(device)
    rays = make_rays(scenes, height, width)
    hits = cast_rays(scenes, rays)
    rgb_B3HW = to_uint8(shade(scenes, rays, hits), camera_noise_B3HW.to(device), strength_B.to(device))
    sensor_noise = (pixel_BHW.to(device), blob_B1GG.to(device), speckle_BHW.to(device))
    sensor_BHW = sense(hits, rays, scenes.focal_B, sensor_noise)
    return rgb_B3HW, sensor_BHW, hits.depth_BHW, hits.label_BHW.to(torch.uint8)
