"""Frames and clips in chunks of fixed size: item i is a function of (seed, split, unit, i), whatever else is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sources.rooms.constants import RENDERER_VERSION
from m33d_hf.data.sources.rooms.materials import uniform
from m33d_hf.data.sources.rooms.motion import draw_clips
from m33d_hf.data.sources.rooms.options import require_device
from m33d_hf.data.sources.rooms.render import cast_rays, make_rays
from m33d_hf.data.sources.rooms.scene import Scenes, sample_scenes
from m33d_hf.data.sources.rooms.sensor import draw_sensor_noise, sense
from m33d_hf.data.sources.rooms.shading import shade, to_uint8

# Draws are made per chunk, always for a full one: a longer data set begins with the shorter one.
# Ten clips make each motion appear once per chunk.
CHUNK = {"frames": 32, "clips": 10}
_DTYPES = {"rgb": "uint8", "sensor": "uint16", "clean": "float32", "segmentation": "uint8", "action": "uint8"}
# A chunk keeps a processor's cache busy, but not a GPU: by device, what is rendered together. Less is one chunk.
PIXELS_AT_ONCE = {"cuda": 2**22}
_DRAWING_THREADS = 8
_CAMERA_NOISE = (0.005, 0.015)  # standard deviation of the colour noise, in 0..1


@dataclass(frozen=True)
class RoomsSpec:
    """What there is to render: everything that decides the content, and nothing else.

    Attributes:
        split, seed: each split of each seed has its own rooms.
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
        """Render for the cache: number of items, and their rows of every array.

        Raises:
            ConfigError: the device is missing.
        """
        require_device(self.device)
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


@dataclass
class _Drawn:
    """What a chunk is drawn to be, on the CPU; rendering adds nothing random."""

    scenes: Scenes
    action_B: Tensor
    noise: Noise


def render_chunks(spec: RoomsSpec) -> Iterator[Rendered]:
    """Render `spec.count` items chunk by chunk, in order; the last one is cut to what was asked.

    A GPU renders several chunks at once, while threads draw the next ones.
    """
    total = -(-spec.count // CHUNK[spec.unit])
    together = _together(spec)
    left = spec.count
    groups = [range(start, min(start + together, total)) for start in range(0, total, together)]
    for rendered in _rendered_groups(spec, groups):
        whole = len(rendered.action)
        yield rendered if left >= whole else Rendered(*(value[:left] for value in vars(rendered).values()))
        left -= whole


def render_chunk(spec: RoomsSpec, number: int) -> Rendered:
    """Render chunk `number` in full."""
    return _render(spec, [_draw(spec, number)])


def _together(spec: RoomsSpec) -> int:
    """Chunks to render at once."""
    pixels = CHUNK[spec.unit] * spec.clip_length * spec.height * spec.width
    return max(1, PIXELS_AT_ONCE.get(spec.device, 0) // pixels)


def _rendered_groups(spec: RoomsSpec, groups: list[range]) -> Iterator[Rendered]:
    """Render groups of chunks; where a group has several, threads draw one group ahead."""
    if all(len(group) == 1 for group in groups):
        for group in groups:
            yield _render(spec, [_draw(spec, group[0])])
        return
    with ThreadPoolExecutor(min(_DRAWING_THREADS, os.cpu_count() or 1)) as pool:
        ahead = [pool.submit(_draw, spec, number) for number in groups[0]]
        for following in [*groups[1:], range(0)]:
            drawn, ahead = ahead, [pool.submit(_draw, spec, number) for number in following]
            yield _render(spec, [future.result() for future in drawn])


@torch.no_grad()
def _draw(spec: RoomsSpec, number: int) -> _Drawn:
    count = CHUNK[spec.unit]
    name = ("rooms", RENDERER_VERSION, spec.split, spec.seed, spec.unit, number)
    if spec.unit == "frames":
        scenes, action_B = sample_scenes(count, generator_of(*name, "scene")), torch.zeros(count)
    else:
        scenes, action_B = draw_clips(count, spec.clip_length, spec.height, spec.width, name)
    noise = draw_noise(generator_of(*name, "noise"), scenes.batch, spec.height, spec.width)
    return _Drawn(scenes, action_B, noise)


@torch.no_grad()
def _render(spec: RoomsSpec, drawn: list[_Drawn]) -> Rendered:
    """Render chunks that were drawn, as one batch."""
    noise = Noise(*(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*(part.noise for part in drawn))))
    scenes = drawn[0].scenes if len(drawn) == 1 else Scenes.concatenate([part.scenes for part in drawn])
    rgb, sensor, clean, segmentation = render_drawn(scenes, noise, spec.height, spec.width, spec.device)
    action_B = torch.cat([part.action_B for part in drawn])
    shape = (len(action_B), spec.clip_length)
    return Rendered(
        rgb=rgb.unflatten(0, shape).cpu().numpy(),
        sensor=sensor.unflatten(0, shape).cpu().numpy().astype(np.uint16),
        clean=clean.unflatten(0, shape).cpu().numpy(),
        segmentation=segmentation.unflatten(0, shape).cpu().numpy(),
        action=action_B.numpy().astype(np.uint8),
    )


class Noise(NamedTuple):
    """CPU draws of B frames: of the sensor as `draw_sensor_noise` gives them; of the camera (B, 3, H, W) normal, and
    its standard deviation (B,)."""

    pixel_BHW: Tensor
    blob_B1GG: Tensor
    speckle_BHW: Tensor
    camera_B3HW: Tensor
    strength_B: Tensor


def draw_noise(generator: torch.Generator, batch: int, height: int, width: int) -> Noise:
    """Draw the noise of `batch` frames."""
    sensor = draw_sensor_noise(generator, batch, height, width)
    camera_B3HW = torch.randn(batch, 3, height, width, generator=generator)
    return Noise(*sensor, camera_B3HW, uniform(generator, *_CAMERA_NOISE, batch))


def render_scenes(
    scenes: Scenes, height: int, width: int, generator: torch.Generator, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One frame of each scene, with noise drawn on the CPU; see `render_drawn`."""
    return render_drawn(scenes, draw_noise(generator, scenes.batch, height, width), height, width, device)


def render_drawn(
    scenes: Scenes, noise: Noise, height: int, width: int, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One frame of each scene: rgb (B,3,H,W) uint8, measured depth (B,H,W) int32 millimetres with 0 for holes,
    exact depth (B,H,W) float32 metres and class ids (B,H,W) uint8, on `device`."""
    scenes, noise = scenes.to(device), Noise(*(value.to(device) for value in noise))
    rays = make_rays(scenes, height, width)
    hits = cast_rays(scenes, rays)
    rgb_B3HW = to_uint8(shade(scenes, rays, hits), noise.camera_B3HW, noise.strength_B)
    sensor_BHW = sense(hits, rays, scenes.focal_B, noise[:3])
    return rgb_B3HW, sensor_BHW, hits.depth_BHW, hits.label_BHW.to(torch.uint8)
