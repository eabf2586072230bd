"""From rooms to what the ray caster knows: things made of up to seven upright boxes, spheres and cylinders.

G counts things: the object slots, then the boards. P counts the boxes of one thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.data.sources.rooms.constants import (
    BOARD,
    BOX,
    CHAIR,
    EMPTY,
    MAX_PARTS,
    SHELF,
    TABLE,
)
from m33d_hf.data.sources.rooms.scene import Scenes

Part = tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # centre and half extents, (B, G) each


@dataclass
class Things:
    """Objects and boards, each in its own coordinates: origin at the middle of the underside, turned by the yaw.

    Attributes:
        kind_BG: class id, EMPTY for an unused slot.
        origin_BG3: origin in room coordinates; cos_BG and sin_BG of the yaw.
        half_BG3: half extents of the bounding box; a round thing has its radius in x.
        part_centre_BGP3, part_half_BGP3: boxes in the thing's coordinates; unused ones have negative extents,
            which no ray can hit.
        part_count_BG: boxes in use, the first ones; 0 for round things.
    """

    kind_BG: Tensor
    origin_BG3: Tensor
    cos_BG: Tensor
    sin_BG: Tensor
    half_BG3: Tensor
    part_centre_BGP3: Tensor
    part_half_BGP3: Tensor
    part_count_BG: Tensor

    def local(self, points: Tensor, rows: Tensor, slots: Tensor | int) -> Tensor:
        """Room coordinates (N, 3) in those of thing `slots` of room `rows` (N each)."""
        x, y, z = (points - self.origin_BG3[rows, slots]).unbind(-1)
        cos, sin = self.cos_BG[rows, slots], self.sin_BG[rows, slots]
        return torch.stack([cos * x - sin * z, y, sin * x + cos * z], -1)

    def turned_back(self, vectors: Tensor, rows: Tensor, slots: Tensor | int) -> Tensor:
        """Directions (N, 3) of the thing's coordinates in those of the room."""
        x, y, z = vectors.unbind(-1)
        cos, sin = self.cos_BG[rows, slots], self.sin_BG[rows, slots]
        return torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def collect_things(scenes: Scenes) -> Things:
    """Objects and boards of every room, with the boxes they are made of."""
    board_origin_BS3 = scenes.board_centre_BS3.clone()
    board_origin_BS3[..., 1] -= scenes.board_half_BS3[..., 1]
    board_kind_BS = torch.where(scenes.board_on_BS, BOARD, EMPTY)
    kind_BG = torch.cat([scenes.kind_BO, board_kind_BS], 1)
    half_BG3 = torch.cat([scenes.half_BO3, scenes.board_half_BS3], 1)
    yaw_BG = torch.cat([scenes.yaw_BO, torch.zeros_like(board_origin_BS3[..., 0])], 1)
    centre, half, count = _parts(kind_BG, half_BG3)
    return Things(
        kind_BG=kind_BG,
        origin_BG3=torch.cat([scenes.base_BO3, board_origin_BS3], 1),
        cos_BG=yaw_BG.cos(),
        sin_BG=yaw_BG.sin(),
        half_BG3=half_BG3,
        part_centre_BGP3=centre,
        part_half_BGP3=half,
        part_count_BG=count,
    )


def _parts(kind_BG: Tensor, half_BG3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = half_BG3.unbind(-1)
    zero = torch.zeros_like(x)
    whole: list[Part] = [((zero, y, zero), (x, y, z))]
    makers = {BOX: whole, BOARD: whole}
    makers |= {TABLE: _table(x, 2 * y, z), CHAIR: _chair(x, 2 * y, z), SHELF: _shelf(x, 2 * y, z)}
    centre = half_BG3.new_zeros(*kind_BG.shape, MAX_PARTS, 3)
    half = torch.full_like(centre, -1.0)
    count = torch.zeros_like(kind_BG)
    for kind, parts in makers.items():
        is_kind = kind_BG == kind
        part_centre = torch.stack([torch.stack(part[0], -1) for part in parts], -2)
        part_half = torch.stack([torch.stack(part[1], -1) for part in parts], -2)
        chosen, used = is_kind[..., None, None], slice(0, len(parts))
        centre[:, :, used] = torch.where(chosen, part_centre, centre[:, :, used])
        half[:, :, used] = torch.where(chosen, part_half, half[:, :, used])
        count = torch.where(is_kind, len(parts), count)
    return centre, half, count


def _legs(x: Tensor, z: Tensor, top: Tensor, thickness: float) -> list[Part]:
    """Four legs from the floor to height `top`; `thickness` is half a leg's width."""
    thick = torch.full_like(x, thickness)
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    return [((sx * (x - thick), top / 2, sz * (z - thick)), (thick, top / 2, thick)) for sx, sz in signs]


def _table(x: Tensor, height: Tensor, z: Tensor) -> list[Part]:
    zero, plate = torch.zeros_like(x), torch.full_like(x, 0.03)
    return [((zero, height - plate, zero), (x, plate, z)), *_legs(x, z, height - 2 * plate, 0.035)]


def _chair(x: Tensor, height: Tensor, z: Tensor) -> list[Part]:
    zero, plate = torch.zeros_like(x), torch.full_like(x, 0.03)
    seat = height / 2
    back: Part = ((zero, (seat + height) / 2, plate - z), (x, (height - seat) / 2, plate))
    return [((zero, seat, zero), (x, plate, z)), back, *_legs(x, z, seat - plate, 0.025)]


def _shelf(x: Tensor, height: Tensor, z: Tensor) -> list[Part]:
    """Two sides, a back and four boards."""
    zero, plate, sheet = torch.zeros_like(x), torch.full_like(x, 0.025), torch.full_like(x, 0.015)
    parts: list[Part] = [((side * (x - plate), height / 2, zero), (plate, height / 2, z)) for side in (1, -1)]
    parts.append(((zero, height / 2, sheet - z), (x, height / 2, sheet)))
    for number in range(4):
        level = plate + (height - 2 * plate) * (number / 3)
        parts.append(((zero, level, zero), (x, plate, z)))
    return parts
