"""Batched ray casting: what each pixel's ray meets first. Exact up to float32; no meshes, no rasteriser.

Things are cast one slot at a time, and only in the rooms whose camera has them in view: two thirds of the work
would otherwise go into boxes behind the camera and into padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.data.sources.rooms.constants import CEILING, CYLINDER, FLOOR, MAX_PARTS, ROOM_FACES, SPHERE, WALL
from m33d_hf.data.sources.rooms.geometry import Things, collect_things
from m33d_hf.data.sources.rooms.scene import Scenes

_EPSILON = 1e-6
_FAR = 1e6
_NEAREST = 0.05  # metres; nothing closer to the eye than this is seen


@dataclass
class Rays:
    """One ray per pixel centre: the point at z-depth t is eye + t * direction.

    Attributes:
        eye_B3: the common origin.
        axes_B33: rows right, up and forward, unit length.
        u_BW, v_BH: image coordinates divided by the focal length; u grows to the right, v upwards.
        direction_B3HW: right * u + up * v + forward, deliberately not of unit length: t is then the z-depth.
    """

    eye_B3: Tensor
    axes_B33: Tensor
    u_BW: Tensor
    v_BH: Tensor
    direction_B3HW: Tensor


@dataclass
class Hits:
    """What the rays meet: z-depth in metres, class id, material id, unit surface normal towards the eye's side."""

    depth_BHW: Tensor
    label_BHW: Tensor
    material_BHW: Tensor
    normal_B3HW: Tensor


@dataclass
class _Nearest:
    """The nearest surface so far: its z-depth and a number that says which face or part of which thing it is.

    Numbers 0 to 5 are the room's faces; thing `slot` owns `_STRIDE` numbers from 6 + slot * _STRIDE on: its boxes,
    then sphere, cylinder's side and cylinder's lid.
    """

    depth_BHW: Tensor
    surface_BHW: Tensor

    def offer(self, rows: Tensor, depth_NHW: Tensor, surface: Tensor | int) -> None:
        """Take over the given surface in rooms `rows` (N) wherever it is nearer; missed rays carry _FAR."""
        depth_before_NHW = self.depth_BHW[rows]
        nearer_NHW = depth_NHW < depth_before_NHW
        self.depth_BHW[rows] = torch.where(nearer_NHW, depth_NHW, depth_before_NHW)
        self.surface_BHW[rows] = torch.where(nearer_NHW, surface, self.surface_BHW[rows])


_SPHERE_PART, _SIDE_PART, _LID_PART = MAX_PARTS, MAX_PARTS + 1, MAX_PARTS + 2
_STRIDE = MAX_PARTS + 3


def _surface(slot: int, part: int) -> int:
    return ROOM_FACES + slot * _STRIDE + part


def make_rays(scenes: Scenes, height: int, width: int) -> Rays:
    """Rays of every room's camera for an image of height x width square pixels."""
    device = scenes.eye_B3.device
    (cy, cp, cr), (sy, sp, sr) = scenes.angles_B3.cos().unbind(1), scenes.angles_B3.sin().unbind(1)
    forward_B3 = torch.stack([sy * cp, sp, cy * cp], 1)
    level_B3 = torch.stack([cy, torch.zeros_like(cy), -sy], 1)
    above_B3 = torch.linalg.cross(forward_B3, level_B3)
    right_B3 = level_B3 * cr[:, None] + above_B3 * sr[:, None]
    up_B3 = above_B3 * cr[:, None] - level_B3 * sr[:, None]
    columns_W = (torch.arange(width, device=device) + 0.5 - width / 2) / width
    rows_H = (height / 2 - 0.5 - torch.arange(height, device=device)) / width
    u_BW, v_BH = columns_W / scenes.focal_B[:, None], rows_H / scenes.focal_B[:, None]
    axes_B33 = torch.stack([right_B3, up_B3, forward_B3], 1)
    direction = [_combine(axes_B33[..., axis], u_BW, v_BH) for axis in range(3)]
    return Rays(scenes.eye_B3, axes_B33, u_BW, v_BH, torch.stack(direction, 1))


def cast_rays(scenes: Scenes, rays: Rays) -> Hits:
    """First surface along every ray: the room, then whatever stands nearer."""
    things = collect_things(scenes)
    nearest = _cast_room(scenes, rays)
    visible_BG = _in_view(things, rays)
    inverse_y_BHW = _inverse(rays.direction_B3HW[:, 1])
    for slot in range(visible_BG.shape[1]):
        kind_B, visible_B = things.kind_BG[:, slot], visible_BG[:, slot]
        boxes_N = (visible_B & (things.part_count_BG[:, slot] > 0)).nonzero()[:, 0]
        if len(boxes_N):
            _cast_boxes(things, slot, boxes_N, rays, inverse_y_BHW, nearest)
        spheres_N = (visible_B & (kind_B == SPHERE)).nonzero()[:, 0]
        if len(spheres_N):
            _cast_sphere(things, slot, spheres_N, rays, nearest)
        cylinders_N = (visible_B & (kind_B == CYLINDER)).nonzero()[:, 0]
        if len(cylinders_N):
            _cast_cylinder_side(things, slot, cylinders_N, rays, nearest)
            _cast_cylinder_lid(things, slot, cylinders_N, rays, inverse_y_BHW, nearest)
    return _describe(things, rays, nearest)


def _combine(axes_B3: Tensor, u_BW: Tensor, v_BH: Tensor) -> Tensor:
    """axes[0] * u + axes[1] * v + axes[2] as (B, H, W): two small products and one large sum."""
    return (axes_B3[:, 0:1] * u_BW)[:, None] + (axes_B3[:, 1:2] * v_BH + axes_B3[:, 2:3])[..., None]


def _inverse(value: Tensor) -> Tensor:
    """1 / value with values near zero pushed off zero."""
    return torch.where(value.abs() < _EPSILON, _EPSILON, value).reciprocal_()


def _in_view(things: Things, rays: Rays) -> Tensor:
    """Whether a thing's bounding ball touches the camera's view (B, G); empty slots never do."""
    half_BG3 = things.half_BG3
    centre_BG3 = things.origin_BG3 - rays.eye_B3[:, None]
    centre_BG3[..., 1] += half_BG3[..., 1]
    radius_BG = half_BG3.norm(dim=-1)
    right_BG, up_BG, forward_BG = torch.einsum("bgc,bac->abg", centre_BG3, rays.axes_B33)
    visible_BG = (things.kind_BG >= 0) & (forward_BG + radius_BG > _NEAREST)
    for side_BG, edge_B in ((right_BG, rays.u_BW[:, -1]), (up_BG, rays.v_BH[:, 0])):
        slope_B1 = edge_B[:, None].clamp_min(_EPSILON)  # tangent of half the field of view, up to half a pixel
        beyond_BG = (side_BG.abs() - slope_B1 * forward_BG) * (1 + slope_B1.square()).rsqrt()
        visible_BG &= beyond_BG < radius_BG
    return visible_BG


def _cast_room(scenes: Scenes, rays: Rays) -> _Nearest:
    """The room seen from inside: the nearest of the three planes that the ray runs towards."""
    positive_B3HW = rays.direction_B3HW > 0
    high_B3 = scenes.room_B3
    low_B3 = -high_B3 * high_B3.new_tensor([1.0, 0.0, 1.0])
    to_high_B311 = (high_B3 - rays.eye_B3)[..., None, None]
    to_low_B311 = (low_B3 - rays.eye_B3)[..., None, None]
    plane_B3HW = torch.where(positive_B3HW, to_high_B311, to_low_B311) * _inverse(rays.direction_B3HW)
    depth_BHW, axis_BHW = plane_B3HW.abs().min(1)
    positive_BHW = positive_B3HW.gather(1, axis_BHW[:, None])[:, 0]
    # Faces: 0 floor, 1 ceiling, 2 and 3 the walls across x, 4 and 5 those across z.
    first_face = torch.tensor([2, 0, 4], device=axis_BHW.device)
    return _Nearest(depth_BHW, first_face[axis_BHW] + positive_BHW.long())


def _cast_boxes(
    things: Things, slot: int, rows_N: Tensor, rays: Rays, inverse_y_BHW: Tensor, nearest: _Nearest
) -> None:
    """Slab test of all boxes of one thing; they share its turned axes, hence the rays' local directions."""
    count = int(things.part_count_BG[rows_N, slot].max())
    eye_N13 = things.local(rays.eye_B3[rows_N], rows_N, slot)[:, None]
    offset_NP3 = things.part_centre_BGP3[rows_N, slot, :count] - eye_N13
    half_NP3 = things.part_half_BGP3[rows_N, slot, :count]
    cos_N1, sin_N1 = things.cos_BG[rows_N, slot, None], things.sin_BG[rows_N, slot, None]
    across_N3, along_N3 = rays.axes_B33[rows_N, :, 0], rays.axes_B33[rows_N, :, 2]
    u_NW, v_NH = rays.u_BW[rows_N], rays.v_BH[rows_N]
    inverses = (
        _inverse(_combine(cos_N1 * across_N3 - sin_N1 * along_N3, u_NW, v_NH)),
        inverse_y_BHW[rows_N],
        _inverse(_combine(sin_N1 * across_N3 + cos_N1 * along_N3, u_NW, v_NH)),
    )
    enters, leaves = [], []
    for axis, inverse_NHW in enumerate(inverses):
        middle = inverse_NHW[:, None] * offset_NP3[..., axis, None, None]
        reach = inverse_NHW.abs()[:, None] * half_NP3[..., axis, None, None]
        enters.append(middle - reach)
        leaves.append(middle.add_(reach))
    enter = torch.maximum(torch.maximum(enters[0], enters[1], out=enters[0]), enters[2], out=enters[0])
    leave = torch.minimum(torch.minimum(leaves[0], leaves[1], out=leaves[0]), leaves[2], out=leaves[0])
    missed_NPHW = (enter >= leave).logical_or_(enter <= _NEAREST)
    depth_NHW, part_NHW = enter.masked_fill_(missed_NPHW, _FAR).min(1)
    nearest.offer(rows_N, depth_NHW, part_NHW + _surface(slot, 0))


def _per_pixel(value_N: Tensor) -> Tensor:
    return value_N[:, None, None]


def _cast_sphere(things: Things, slot: int, rows_N: Tensor, rays: Rays, nearest: _Nearest) -> None:
    """Quadratic |eye + t d - centre|^2 = r^2, the smaller root."""
    radius_N = things.half_BG3[rows_N, slot, 0]
    offset_N3 = rays.eye_B3[rows_N] - things.origin_BG3[rows_N, slot]
    offset_N3[:, 1] -= radius_N
    direction_N3HW = rays.direction_B3HW[rows_N]
    square_NHW = direction_N3HW.square().sum(1)
    half_b_NHW = (direction_N3HW * offset_N3[..., None, None]).sum(1)
    constant_N = offset_N3.square().sum(1) - radius_N.square()
    root_NHW = half_b_NHW.square() - square_NHW * _per_pixel(constant_N)
    depth_NHW = (-half_b_NHW - root_NHW.clamp_min(0).sqrt_()) / square_NHW
    missed_NHW = (root_NHW <= 0) | (depth_NHW <= _NEAREST)
    nearest.offer(rows_N, depth_NHW.masked_fill_(missed_NHW, _FAR), _surface(slot, _SPHERE_PART))


def _cast_cylinder_side(things: Things, slot: int, rows_N: Tensor, rays: Rays, nearest: _Nearest) -> None:
    """The sphere's quadratic without the vertical axis, cut at the cylinder's height."""
    radius_N, half_N = things.half_BG3[rows_N, slot, :2].unbind(1)
    offset_N3 = rays.eye_B3[rows_N] - things.origin_BG3[rows_N, slot]
    offset_N3[:, 1] -= half_N
    x, y, z = rays.direction_B3HW[rows_N].unbind(1)
    square_NHW = (x.square() + z.square()).clamp_min(_EPSILON)
    half_b_NHW = x * _per_pixel(offset_N3[:, 0]) + z * _per_pixel(offset_N3[:, 2])
    constant_N = offset_N3[:, [0, 2]].square().sum(1) - radius_N.square()
    root_NHW = half_b_NHW.square() - square_NHW * _per_pixel(constant_N)
    depth_NHW = (-half_b_NHW - root_NHW.clamp_min(0).sqrt_()) / square_NHW
    height_NHW = _per_pixel(offset_N3[:, 1]) + y * depth_NHW
    missed_NHW = (root_NHW <= 0) | (depth_NHW <= _NEAREST) | (height_NHW.abs() >= _per_pixel(half_N))
    nearest.offer(rows_N, depth_NHW.masked_fill_(missed_NHW, _FAR), _surface(slot, _SIDE_PART))


def _cast_cylinder_lid(
    things: Things, slot: int, rows_N: Tensor, rays: Rays, inverse_y_BHW: Tensor, nearest: _Nearest
) -> None:
    """The lid or the underside, whichever faces the eye."""
    radius_N, half_N = things.half_BG3[rows_N, slot, :2].unbind(1)
    offset_N3 = rays.eye_B3[rows_N] - things.origin_BG3[rows_N, slot]
    offset_N3[:, 1] -= half_N
    x, _, z = rays.direction_B3HW[rows_N].unbind(1)
    depth_NHW = _per_pixel(offset_N3[:, 1].sign() * half_N - offset_N3[:, 1]) * inverse_y_BHW[rows_N]
    x_NHW = _per_pixel(offset_N3[:, 0]) + x * depth_NHW
    z_NHW = _per_pixel(offset_N3[:, 2]) + z * depth_NHW
    missed_NHW = x_NHW.square() + z_NHW.square() >= _per_pixel(radius_N.square())
    missed_NHW |= (depth_NHW <= _NEAREST) | _per_pixel(offset_N3[:, 1].abs() <= half_N)
    nearest.offer(rows_N, depth_NHW.masked_fill_(missed_NHW, _FAR), _surface(slot, _LID_PART))


def _describe(things: Things, rays: Rays, nearest: _Nearest) -> Hits:
    """Class, material and normal of the nearest surfaces."""
    surface_BHW = nearest.surface_BHW
    device, batch = surface_BHW.device, surface_BHW.shape[0]
    on_thing_BHW = surface_BHW >= ROOM_FACES
    slot_BHW = (surface_BHW - ROOM_FACES).div(_STRIDE, rounding_mode="floor")
    material_BHW = torch.where(on_thing_BHW, ROOM_FACES + slot_BHW, surface_BHW)
    faces = torch.tensor([FLOOR, CEILING, WALL, WALL, WALL, WALL], device=device)
    labels_BM = torch.cat([faces.expand(batch, -1), things.kind_BG], 1)
    label_BHW = labels_BM.gather(1, material_BHW.flatten(1)).view_as(material_BHW)
    inward = torch.tensor([[0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], device=device)
    normal_BHW3 = inward.float()[surface_BHW.clamp_max(ROOM_FACES - 1)]
    where_N3 = on_thing_BHW.nonzero()
    if len(where_N3):
        row_N, y_N, x_N = where_N3.unbind(1)
        direction_N3 = rays.direction_B3HW.permute(0, 2, 3, 1)[row_N, y_N, x_N]
        point_N3 = rays.eye_B3[row_N] + direction_N3 * nearest.depth_BHW[row_N, y_N, x_N, None]
        slot_N = slot_BHW[row_N, y_N, x_N]
        part_N = (surface_BHW[row_N, y_N, x_N] - ROOM_FACES) % _STRIDE
        normal_BHW3[row_N, y_N, x_N] = _thing_normals(things, row_N, slot_N, part_N, point_N3)
    return Hits(nearest.depth_BHW, label_BHW, material_BHW, normal_BHW3.permute(0, 3, 1, 2).contiguous())


def _thing_normals(things: Things, row_N: Tensor, slot_N: Tensor, part_N: Tensor, point_N3: Tensor) -> Tensor:
    """Unit normals in room coordinates at points on things.

    A box's normal is that of the face whose coordinate, relative to the half extent, is largest; a sphere's is the
    coordinate over the radius; a cylinder's side leaves out the vertical, its lid the horizontal ones.
    """
    local_N3 = things.local(point_N3, row_N, slot_N)
    is_box_N1 = (part_N < MAX_PARTS)[:, None]
    box_N = part_N.clamp_max(MAX_PARTS - 1)
    whole_half_N3 = things.half_BG3[row_N, slot_N]
    whole_centre_N3 = whole_half_N3 * whole_half_N3.new_tensor([0.0, 1.0, 0.0])
    half_N3 = torch.where(is_box_N1, things.part_half_BGP3[row_N, slot_N, box_N], whole_half_N3)
    centre_N3 = torch.where(is_box_N1, things.part_centre_BGP3[row_N, slot_N, box_N], whole_centre_N3)
    scaled_N3 = (local_N3 - centre_N3) / half_N3
    face_N1 = scaled_N3.abs().argmax(1, keepdim=True)
    flat_N3 = torch.zeros_like(scaled_N3).scatter_(1, face_N1, scaled_N3.gather(1, face_N1).sign())
    mask = scaled_N3.new_ones(_STRIDE, 3)
    mask[_SIDE_PART], mask[_LID_PART] = mask.new_tensor([1.0, 0.0, 1.0]), mask.new_tensor([0.0, 1.0, 0.0])
    normal_N3 = torch.where(is_box_N1, flat_N3, scaled_N3 * mask[part_N])
    return things.turned_back(normal_N3, row_N, slot_N)
