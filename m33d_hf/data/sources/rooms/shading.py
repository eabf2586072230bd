"""Texture and light: from what the rays meet to colours. Colours are independent of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from m33d_hf.data.sources.rooms.constants import BOARD_SLOTS, EMPTY, FLOOR, OBJECT_SLOTS, ROOM_FACES
from m33d_hf.data.sources.rooms.render import Hits, Rays
from m33d_hf.data.sources.rooms.scene import Scenes

_GAMMA = 1 / 1.6
_CORNER_REACH = 0.25  # metres over which corners of the room are darker
_CONTACT_REACH = 0.15  # metres over which objects are darker towards the floor


def shade(scenes: Scenes, rays: Rays, hits: Hits) -> Tensor:
    """Colours (B, 3, H, W) in 0..1: a lamp with attenuation, ambient light, dark corners, soft blob shadows."""
    materials = scenes.materials
    point_B3HW = rays.eye_B3[..., None, None] + rays.direction_B3HW * hits.depth_BHW[:, None]
    to_light_B3HW = materials.light_B3[..., None, None] - point_B3HW
    distance2_BHW = to_light_B3HW.square().sum(1).clamp_min(1e-6)
    facing_BHW = ((hits.normal_B3HW * to_light_B3HW).sum(1) * distance2_BHW.rsqrt()).clamp_min(0)
    dim_BHW = _occlusion(scenes, hits, point_B3HW)
    lamp_BHW = facing_BHW * _shadows(scenes, hits, point_B3HW) * dim_BHW
    lamp_BHW = lamp_BHW / (1 + materials.fading_B[:, None, None] * distance2_BHW)
    ambient_BHW = materials.ambient_B[:, None, None] * (0.8 + 0.3 * hits.normal_B3HW[:, 1]) * dim_BHW
    light_B3HW = ambient_BHW[:, None] + lamp_BHW[:, None] * materials.colour_B3[..., None, None]
    albedo_B3HW = _albedo(scenes, hits, point_B3HW)
    return (albedo_B3HW * light_B3HW).clamp(0, 1) ** _GAMMA


def to_uint8(colour_B3HW: Tensor, noise_B3HW: Tensor, strength_B: Tensor) -> Tensor:
    """Add camera noise (unit normal `noise`, `strength` its standard deviation) and round to uint8."""
    noisy = torch.addcmul(colour_B3HW, noise_B3HW, strength_B[:, None, None, None])
    return (noisy.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _occlusion(scenes: Scenes, hits: Hits, point_B3HW: Tensor) -> Tensor:
    """Less light in the corners of the room and where objects meet the floor, 0.65..1."""
    x, y, z = point_B3HW.unbind(1)
    room = scenes.room_B3[..., None, None]
    faces = [room[:, 0] - x.abs(), torch.minimum(y, room[:, 1] - y), room[:, 2] - z.abs()]
    # A point of a wall lies on one face; the second smallest distance is the way to the next corner.
    low, high = torch.minimum(faces[0], faces[1]), torch.maximum(faces[0], faces[1])
    corner_BHW = torch.maximum(low, torch.minimum(high, faces[2])).clamp_min(0)
    on_room = 1 - 0.35 * torch.exp(corner_BHW / -_CORNER_REACH)
    on_object = 1 - 0.3 * torch.exp(y.clamp_min(0) / -_CONTACT_REACH)
    return torch.where(hits.material_BHW < ROOM_FACES, on_room, on_object)


def _shadows(scenes: Scenes, hits: Hits, point_B3HW: Tensor) -> Tensor:
    """A soft dark blob on the floor where each object's middle hides the lamp; 1 = no shadow."""
    light_B3 = scenes.materials.light_B3
    half_height_BO = scenes.half_BO3[..., 1]
    drop_BO = (light_B3[:, 1:2] - half_height_BO).clamp_min(0.5)
    slope_BO = half_height_BO / drop_BO
    blob_BO2 = scenes.base_BO3[..., [0, 2]]
    blob_BO2 = blob_BO2 + (blob_BO2 - light_B3[:, None, [0, 2]]) * slope_BO[..., None]
    area_BO = 1.3 * scenes.half_BO3[..., 0] * scenes.half_BO3[..., 2]
    strength_BO = 0.55 * (scenes.kind_BO != EMPTY).float()
    x, z = point_B3HW[:, 0], point_B3HW[:, 2]
    shadow_BHW = torch.ones_like(x)
    for slot in range(OBJECT_SLOTS):
        blob_x, blob_z = blob_BO2[:, slot, 0, None, None], blob_BO2[:, slot, 1, None, None]
        distance2 = (x - blob_x).square().add_((z - blob_z).square()).div_(area_BO[:, slot, None, None])
        dark = distance2.square_().neg_().exp_().mul_(strength_BO[:, slot, None, None])
        shadow_BHW.mul_(1 - dark)
    return torch.where(hits.label_BHW == FLOOR, shadow_BHW, 1.0)


def _albedo(scenes: Scenes, hits: Hits, point_B3HW: Tensor) -> Tensor:
    """Solid textures in the object's own coordinates, so that they move and turn with it."""
    materials, material = scenes.materials, hits.material_BHW
    rows = torch.arange(scenes.batch, device=material.device)[:, None, None]
    x, y, z = (point_B3HW - _pad(scenes.base_BO3)[rows, material].permute(0, 3, 1, 2)).unbind(1)
    yaw_BM = _pad(scenes.yaw_BO)
    cos, sin = yaw_BM.cos()[rows, material], yaw_BM.sin()[rows, material]
    x, z = cos * x - sin * z, sin * x + cos * z
    wave_x, wave_y, wave_z = materials.wave_BM3[rows, material].unbind(-1)
    phase = materials.phase_BM[rows, material]
    first = (x * wave_x + y * wave_y + z * wave_z + phase).sin_()
    second = (x * wave_z - y * wave_y + z * wave_x + phase).sin_()
    third = ((x * wave_y + y * wave_z + z * wave_x) * 1.7).sin_()
    patterns = torch.stack(
        [
            torch.zeros_like(first),
            (first > 0).float(),
            ((first > 0) ^ (second > 0)).float(),
            (first + second + third) / 6 + 0.5,
            (first + third > 0.8).float() * 0.8,
        ]
    )
    share_BHW = patterns.gather(0, materials.texture_BM[rows, material][None])[0]
    first_BHW3, second_BHW3 = materials.first_BM3[rows, material], materials.second_BM3[rows, material]
    return first_BHW3.lerp(second_BHW3, share_BHW[..., None]).permute(0, 3, 1, 2)


def _pad(value_BO: Tensor) -> Tensor:
    """Spread per-object values over the materials: 0 for the room's faces and the boards, which never move."""
    shape = value_BO.shape
    room = value_BO.new_zeros(shape[0], ROOM_FACES, *shape[2:])
    boards = value_BO.new_zeros(shape[0], BOARD_SLOTS, *shape[2:])
    return torch.cat([room, value_BO, boards], 1)
