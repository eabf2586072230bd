"""Hand-made rooms for the renderer's tests."""

from __future__ import annotations

import torch

from m33d_hf.data.sources.rooms import RoomsSource
from m33d_hf.data.sources.rooms.constants import BOX, CYLINDER, EMPTY, HERO_SLOT, SPHERE
from m33d_hf.data.sources.rooms.scene import Scenes, sample_scenes


def empty_room(
    batch: int = 1, eye: tuple[float, float, float] = (0.0, 1.2, -1.0), angles: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> Scenes:
    """Rooms of 4 x 2.5 x 6 m (half width 2, half depth 3) without furniture and boards, focal length 0.8 widths."""
    scenes = sample_scenes(batch, torch.Generator().manual_seed(0))
    scenes.room_B3 = torch.tensor([[2.0, 2.5, 3.0]]).repeat(batch, 1)
    scenes.kind_BO = torch.full_like(scenes.kind_BO, EMPTY)
    scenes.board_on_BS = torch.zeros_like(scenes.board_on_BS)
    scenes.eye_B3 = torch.tensor([eye], dtype=torch.float32).repeat(batch, 1)
    scenes.angles_B3 = torch.tensor([angles], dtype=torch.float32).repeat(batch, 1)
    scenes.focal_B = torch.full((batch,), 0.8)
    scenes.materials.light_B3 = torch.tensor([[0.5, 2.3, 0.5]]).repeat(batch, 1)
    return scenes


def with_object(
    scenes: Scenes, kind: int, half: tuple[float, float, float], base: tuple[float, float, float], yaw: float = 0.0
) -> Scenes:
    """Put one object into the hero's slot (boxes, spheres, cylinders) or the first furniture slot, in place."""
    slot = HERO_SLOT if kind in (BOX, SPHERE, CYLINDER) else 0
    scenes.kind_BO[:, slot] = kind
    scenes.half_BO3[:, slot] = torch.tensor(half)
    scenes.base_BO3[:, slot] = torch.tensor(base)
    scenes.yaw_BO[:, slot] = yaw
    return scenes


def render_rooms(cache_dir: str) -> None:
    """For a process of its own: print what came of rendering a set that others may render at the same time."""
    source = RoomsSource("train", num_frames=64, image_size=32, cache_dir=cache_dir)
    print("rooms:", source.digest(), int(source[63].read([0]).rgb.sum()))
