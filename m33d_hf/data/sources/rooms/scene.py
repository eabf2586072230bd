"""Random rooms: the shape of the room, its furniture, its boards and the camera.

Everything is drawn for B rooms at once from one CPU generator, so that a batch is a function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from m33d_hf.data.sources.rooms.constants import (
    BOARD_SLOTS,
    BOX,
    CHAIR,
    CLASS_NAMES,
    CYLINDER,
    EMPTY,
    FURNITURE_SLOTS,
    OBJECT_SLOTS,
    SHELF,
    SIMPLE_SLOTS,
    SPHERE,
    TABLE,
)
from m33d_hf.data.sources.rooms.materials import Materials, sample_materials, uniform

_FURNITURE = ((TABLE, 3.0), (SHELF, 2.0), (CHAIR, 3.5), (BOX, 0.5), (EMPTY, 3.0))
_SIMPLE = ((BOX, 2.5), (SPHERE, 4.5), (CYLINDER, 3.5), (EMPTY, 0.3))

# Half extents in metres, (x, y, z) lowest and highest, by class id; a sphere and a cylinder use x as the radius.
_HALF_RANGES = {
    BOX: ((0.20, 0.15, 0.20), (0.42, 0.45, 0.42)),
    SPHERE: ((0.28, 0.28, 0.28), (0.50, 0.50, 0.50)),
    CYLINDER: ((0.22, 0.20, 0.22), (0.42, 0.55, 0.42)),
    TABLE: ((0.40, 0.30, 0.30), (0.80, 0.42, 0.50)),
    SHELF: ((0.30, 0.50, 0.14), (0.60, 1.00, 0.24)),
    CHAIR: ((0.20, 0.40, 0.20), (0.27, 0.55, 0.27)),
}
_Record = TypeVar("_Record", bound=Any)
_CANDIDATES = 12  # places tried for an object before it is left out
_EYE_CLEARANCE = 0.55  # metres between the eye and the nearest object's bounding circle

# What the camera looks at, as cumulative shares; the rest looks up, or few frames would show a ceiling.
_LOOK_MIDDLE, _LOOK_BOARD, _LOOK_OBJECT = 0.35, 0.52, 0.84


@dataclass
class Scenes:
    """B rooms with everything that is needed to render one frame of each.

    Attributes:
        room_B3: half width X, height Y, half depth Z.
        kind_BO: class id of each object, EMPTY for an unused slot.
        half_BO3: half extents of the object's bounding box.
        base_BO3: the middle of its underside.
        yaw_BO: turn about the vertical axis.
        board_centre_BS3, board_half_BS3, board_on_BS: boards on the walls, aligned with the axes.
        eye_B3: position of the camera.
        angles_B3: its yaw (0 looks along +z, positive turns right), pitch (positive looks up) and roll.
        focal_B: focal length divided by the image width.
        materials: colours, textures and the light.
    """

    room_B3: Tensor
    kind_BO: Tensor
    half_BO3: Tensor
    base_BO3: Tensor
    yaw_BO: Tensor
    board_centre_BS3: Tensor
    board_half_BS3: Tensor
    board_on_BS: Tensor
    eye_B3: Tensor
    angles_B3: Tensor
    focal_B: Tensor
    materials: Materials

    @property
    def batch(self) -> int:
        """Number of rooms B."""
        return self.room_B3.shape[0]

    def select(self, index: Tensor) -> Scenes:
        """Rooms `index` (any order, repeats allowed), as new tensors."""
        return _map_tensors(self, lambda value: value[index])

    def to(self, device: torch.device | str) -> Scenes:
        """The same rooms on another device."""
        return _map_tensors(self, lambda value: value.to(device))

    @staticmethod
    def concatenate(parts: list[Scenes]) -> Scenes:
        """All rooms of `parts`, in order."""
        return _zip_tensors(parts)


def _map_tensors(record: _Record, function: Callable[[Tensor], Tensor]) -> _Record:
    """Apply `function` to every tensor of a (nested) dataclass of tensors."""
    values = {}
    for entry in fields(record):
        value = getattr(record, entry.name)
        values[entry.name] = function(value) if isinstance(value, Tensor) else _map_tensors(value, function)
    return type(record)(**values)


def _zip_tensors(records: list[_Record]) -> _Record:
    """Concatenate every tensor of (nested) dataclasses of tensors."""
    values = {}
    for entry in fields(records[0]):
        column = [getattr(record, entry.name) for record in records]
        values[entry.name] = torch.cat(column) if isinstance(column[0], Tensor) else _zip_tensors(column)
    return type(records[0])(**values)


def sample_scenes(batch: int, generator: torch.Generator) -> Scenes:
    """Draw `batch` rooms on the CPU."""
    half_BX2 = uniform(generator, 1.4, 2.6, batch, 2)
    height_B = uniform(generator, 2.2, 3.0, batch)
    room_B3 = torch.stack([half_BX2[:, 0], height_B, half_BX2[:, 1]], 1)
    eye_B3 = _sample_eye(generator, room_B3)
    kind_BO = _sample_kinds(generator, batch)
    half_BO3 = _sample_halves(generator, kind_BO)
    yaw_BO = _sample_yaw(generator, batch)
    kind_BO, base_BO3 = _place(generator, room_B3, eye_B3, kind_BO, half_BO3)
    half_BO3, base_BO3 = _stand_on_tables(generator, kind_BO, half_BO3, base_BO3, yaw_BO)
    board_centre_BS3, board_half_BS3, board_on_BS = _sample_boards(generator, room_B3)
    target_B3 = _sample_target(generator, room_B3, kind_BO, half_BO3, base_BO3, board_centre_BS3, board_on_BS)
    return Scenes(
        room_B3=room_B3,
        kind_BO=kind_BO,
        half_BO3=half_BO3,
        base_BO3=base_BO3,
        yaw_BO=yaw_BO,
        board_centre_BS3=board_centre_BS3,
        board_half_BS3=board_half_BS3,
        board_on_BS=board_on_BS,
        eye_B3=eye_B3,
        angles_B3=_look_at(generator, eye_B3, target_B3),
        focal_B=0.5 / torch.tan(uniform(generator, 55, 72, batch) * math.pi / 360),
        materials=sample_materials(generator, room_B3),
    )


def _choose(generator: torch.Generator, table: tuple[tuple[int, float], ...], *shape: int) -> Tensor:
    """Draw class ids of the given shape from (id, weight) pairs."""
    ids = torch.tensor([entry[0] for entry in table])
    weights = torch.tensor([entry[1] for entry in table])
    edges = (weights.cumsum(0) / weights.sum())[:-1]
    return ids[torch.bucketize(uniform(generator, 0, 1, *shape), edges)]


def _sample_kinds(generator: torch.Generator, batch: int) -> Tensor:
    furniture_BF = _choose(generator, _FURNITURE, batch, FURNITURE_SLOTS)
    return torch.cat([furniture_BF, _choose(generator, _SIMPLE, batch, SIMPLE_SLOTS)], 1)


def _sample_halves(generator: torch.Generator, kind_BO: Tensor) -> Tensor:
    low_C3 = torch.full((len(CLASS_NAMES), 3), 0.1)
    high_C3 = low_C3.clone()
    for class_id, (low, high) in _HALF_RANGES.items():
        low_C3[class_id], high_C3[class_id] = torch.tensor(low), torch.tensor(high)
    kind = kind_BO.clamp_min(0)
    share_BO3 = uniform(generator, 0, 1, *kind_BO.shape, 3)
    half_BO3 = low_C3[kind] + share_BO3 * (high_C3[kind] - low_C3[kind])
    return make_round(half_BO3, kind_BO)


def make_round(half_BO3: Tensor, kind_BO: Tensor) -> Tensor:
    """Give spheres three equal half extents and cylinders two, those of x."""
    x, y, z = half_BO3.unbind(-1)
    is_sphere = kind_BO == SPHERE
    z = torch.where(is_sphere | (kind_BO == CYLINDER), x, z)
    return torch.stack([x, torch.where(is_sphere, x, y), z], -1)


def _sample_yaw(generator: torch.Generator, batch: int) -> Tensor:
    """Half of the objects stand square to the walls, the others anyhow."""
    yaw_BO = uniform(generator, -math.pi, math.pi, batch, OBJECT_SLOTS)
    square_BO = (yaw_BO / (math.pi / 2)).round() * (math.pi / 2)
    return torch.where(uniform(generator, 0, 1, batch, OBJECT_SLOTS) < 0.5, square_BO, yaw_BO)


def _sample_eye(generator: torch.Generator, room_B3: Tensor) -> Tensor:
    """Somewhere near a wall, between knee and eye height."""
    batch = room_B3.shape[0]
    angle_B = uniform(generator, -math.pi, math.pi, batch)
    x = angle_B.cos() * (room_B3[:, 0] - 0.3) * uniform(generator, 0.75, 1, batch)
    z = angle_B.sin() * (room_B3[:, 2] - 0.3) * uniform(generator, 0.75, 1, batch)
    y = torch.minimum(uniform(generator, 0.7, 1.9, batch), room_B3[:, 1] - 0.3)
    return torch.stack([x, y, z], 1)


def _place(
    generator: torch.Generator, room_B3: Tensor, eye_B3: Tensor, kind_BO: Tensor, half_BO3: Tensor
) -> tuple[Tensor, Tensor]:
    """Give each object the first of a few random places that touches nothing; without one it is left out."""
    batch = room_B3.shape[0]
    rows = torch.arange(batch)
    radius_BO = half_BO3[..., [0, 2]].norm(dim=-1)
    place_BO2 = torch.zeros(batch, OBJECT_SLOTS, 2)
    placed_BO = torch.zeros(batch, OBJECT_SLOTS, dtype=torch.bool)
    for slot in range(OBJECT_SLOTS):
        radius_B1 = radius_BO[:, slot, None]
        share_BQ2 = uniform(generator, -1, 1, batch, _CANDIDATES, 2)
        candidate_BQ2 = share_BQ2 * (room_B3[:, None, [0, 2]] - radius_B1[..., None])
        gap_BQO = torch.cdist(candidate_BQ2, place_BO2) - radius_BO[:, None] - radius_B1[..., None]
        free_BQ = ((gap_BQO > 0) | ~placed_BO[:, None]).all(-1)
        free_BQ &= (candidate_BQ2 - eye_B3[:, None, [0, 2]]).norm(dim=-1) > radius_B1 + _EYE_CLEARANCE
        free_BQ &= kind_BO[:, slot, None] != EMPTY
        first_B = free_BQ.float().argmax(1)
        placed_BO[:, slot] = free_BQ[rows, first_B]
        place_BO2[:, slot] = candidate_BQ2[rows, first_B]
    base_BO3 = torch.stack([place_BO2[..., 0], torch.zeros(batch, OBJECT_SLOTS), place_BO2[..., 1]], -1)
    return torch.where(placed_BO, kind_BO, EMPTY), base_BO3


def _stand_on_tables(
    generator: torch.Generator, kind_BO: Tensor, half_BO3: Tensor, base_BO3: Tensor, yaw_BO: Tensor
) -> tuple[Tensor, Tensor]:
    """Move some of the simple objects, made smaller, onto the first table; each to its own part of it."""
    batch = kind_BO.shape[0]
    rows = torch.arange(batch)
    half_BO3, base_BO3 = half_BO3.clone(), base_BO3.clone()
    is_table_BF = kind_BO[:, :FURNITURE_SLOTS] == TABLE
    table_B = is_table_BF.float().argmax(1)
    half_B3, base_B3, yaw_B = half_BO3[rows, table_B], base_BO3[rows, table_B], yaw_BO[rows, table_B]
    for number in range(SIMPLE_SLOTS):
        slot = FURNITURE_SLOTS + number
        moves_B = is_table_BF.any(1) & (uniform(generator, 0, 1, batch) < 0.2) & (kind_BO[:, slot] != EMPTY)
        scale_B = uniform(generator, 0.4, 0.6, batch)
        # A third of the table top each, so that two objects never stand inside one another.
        third_B = (2 * (number + 0.5) / SIMPLE_SLOTS - 1) * (half_B3[:, 0] - 0.1)
        limit_B = half_B3[:, 0] / SIMPLE_SLOTS / half_BO3[:, slot, 0]
        scale_B = torch.minimum(scale_B, limit_B)
        top_B3 = torch.stack([third_B * yaw_B.cos(), 2 * half_B3[:, 1], -third_B * yaw_B.sin()], 1)
        half_BO3[:, slot] = torch.where(moves_B[:, None], half_BO3[:, slot] * scale_B[:, None], half_BO3[:, slot])
        base_BO3[:, slot] = torch.where(moves_B[:, None], base_B3 + top_B3, base_BO3[:, slot])
    return half_BO3, base_BO3


def _sample_boards(generator: torch.Generator, room_B3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boards hang on three different walls, at eye height."""
    batch = room_B3.shape[0]
    wall_BS = uniform(generator, 0, 1, batch, 4).argsort(1)[:, :BOARD_SLOTS]
    on_x_BS, side_BS = wall_BS < 2, (wall_BS % 2 * 2 - 1).float()
    half_width_BS = uniform(generator, 0.35, 0.85, batch, BOARD_SLOTS)
    half_height_BS = uniform(generator, 0.25, 0.5, batch, BOARD_SLOTS)
    thickness_BS = uniform(generator, 0.03, 0.06, batch, BOARD_SLOTS)
    along_BS = uniform(generator, -1, 1, batch, BOARD_SLOTS)
    height_BS = uniform(generator, 1.1, 1.6, batch, BOARD_SLOTS)
    x_B1, z_B1 = room_B3[:, 0:1], room_B3[:, 2:3]
    x_BS = torch.where(on_x_BS, side_BS * x_B1, along_BS * (x_B1 - half_width_BS))
    z_BS = torch.where(on_x_BS, along_BS * (z_B1 - half_width_BS), side_BS * z_B1)
    half_x_BS = torch.where(on_x_BS, thickness_BS, half_width_BS)
    half_z_BS = torch.where(on_x_BS, half_width_BS, thickness_BS)
    on_BS = uniform(generator, 0, 1, batch, BOARD_SLOTS) < 0.8
    centre_BS3 = torch.stack([x_BS, height_BS, z_BS], -1)
    return centre_BS3, torch.stack([half_x_BS, half_height_BS, half_z_BS], -1), on_BS


def _sample_target(
    generator: torch.Generator,
    room_B3: Tensor,
    kind_BO: Tensor,
    half_BO3: Tensor,
    base_BO3: Tensor,
    board_centre_BS3: Tensor,
    board_on_BS: Tensor,
) -> Tensor:
    """A point to look at: the middle of the room, a board, a simple object, or somewhere under the ceiling."""
    batch = room_B3.shape[0]
    rows = torch.arange(batch)
    middle_B3 = uniform(generator, -0.5, 0.5, batch, 3) * room_B3
    low_B = uniform(generator, 0.2, 1.2, batch)
    high_B = uniform(generator, 0.6, 0.95, batch) * room_B3[:, 1]
    mode_B = uniform(generator, 0, 1, batch)
    middle_B3[:, 1] = torch.where(mode_B < _LOOK_OBJECT, low_B, high_B)
    board_B = board_on_BS.float().argmax(1)
    looks_B = (mode_B >= _LOOK_MIDDLE) & (mode_B < _LOOK_BOARD) & board_on_BS.any(1)
    target_B3 = torch.where(looks_B[:, None], board_centre_BS3[rows, board_B], middle_B3)
    simple_BS = kind_BO[:, FURNITURE_SLOTS:]
    preferred_BS = (simple_BS != EMPTY).float() + (simple_BS == SPHERE).float()
    slot_B = FURNITURE_SLOTS + preferred_BS.argmax(1)
    object_B3 = base_BO3[rows, slot_B].clone()
    object_B3[:, 1] += half_BO3[rows, slot_B, 1]
    looks_B = (mode_B >= _LOOK_BOARD) & (mode_B < _LOOK_OBJECT) & (preferred_BS.amax(1) > 0)
    return torch.where(looks_B[:, None], object_B3, target_B3)


def _look_at(generator: torch.Generator, eye_B3: Tensor, target_B3: Tensor) -> Tensor:
    batch = eye_B3.shape[0]
    away_B3 = target_B3 - eye_B3
    # The thing looked at is rarely in the exact middle.
    yaw_B = torch.atan2(away_B3[:, 0], away_B3[:, 2]) + uniform(generator, -0.25, 0.25, batch)
    pitch_B = torch.atan2(away_B3[:, 1], away_B3[:, [0, 2]].norm(dim=1)) + uniform(generator, -0.12, 0.12, batch)
    roll_B = uniform(generator, -0.08, 0.08, batch)
    return torch.stack([yaw_B, pitch_B.clamp(-0.7, 0.7), roll_B], 1)
