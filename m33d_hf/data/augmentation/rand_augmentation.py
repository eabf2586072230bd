"""RandAugment of whole clips: torchvision's draws and operations, one draw for all frames of a clip.

A draw is made where a clip is read and carried out where its batch is finished: on an accelerator by torchvision, on a
CPU by `clip_operations`. Shifts are not carried out: the crop follows them (`rand_geometry`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from m33d_hf.data.augmentation.clip_operations import MOVING, Levels
from m33d_hf.data.augmentation.sent_numbers import Sending, sent
from m33d_hf.errors import MissingDependencyError
from m33d_hf.modeling.preprocessing_m33d import RGB_FILL, in_planes

# Strength at the highest magnitude; a sign is drawn for each. Shifts: share of the width or height.
_SIGNED = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150.0 / 331.0,
    "TranslateY": 150.0 / 331.0,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}
# torchvision's order, from which it draws by number.
OPERATIONS = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
_LEFT_OUT = ("Identity", "TranslateX", "TranslateY")
_LEVELS = 31


class Operation(NamedTuple):
    """One operation of a draw; `strength` means what torchvision means by it (shifts: pixels)."""

    name: str
    strength: float


def draw_operations(ops: int, magnitude: int, height: int, width: int) -> tuple[Operation, ...]:
    """Draw what torchvision's ``v2.RandAugment(ops, magnitude)`` does to a picture of height x width pixels.

    Args:
        ops: number of operations.
        magnitude: strength, 0 to 30.
        height: of the picture in pixels.
        width: of the picture in pixels.

    Returns:
        The operations in their order. Draws come from torch's default generator, as torchvision's do.
    """
    drawn = []
    for _ in range(ops):
        name = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))]
        strength = _strength(name, magnitude, height, width)
        if name in _SIGNED and torch.rand(()) <= 0.5:
            strength *= -1
        drawn.append(Operation(name, strength))
    return tuple(drawn)


def _strength(name: str, magnitude: int, height: int, width: int) -> float:
    """What the magnitude means to one operation, in torchvision's float32."""
    if name in _SIGNED:
        side = {"TranslateX": width, "TranslateY": height}.get(name, 1)
        return float(torch.linspace(0.0, _SIGNED[name] * side, _LEVELS)[magnitude])
    if name == "Posterize":
        return float((8 - torch.arange(_LEVELS) / ((_LEVELS - 1) / 4)).round()[magnitude])
    return float(torch.linspace(1.0, 0.0, _LEVELS)[magnitude]) if name == "Solarize" else 0.0


def augment_clip(frames: torch.Tensor, operations: Sequence[Operation]) -> torch.Tensor:
    """Carry out one draw but its shifts on (T, 3, H, W) uint8 on the CPU, of any layout; not changed.

    Returns:
        (T, 3, H, W) uint8 in planes.
    """
    pixels = in_planes(frames).numpy()
    levels: Levels | None = None
    for name, strength in operations:
        if name in MOVING:
            pixels = MOVING[name](pixels if levels is None else levels.pixels(), strength)
            levels = None
        elif name not in _LEFT_OUT:
            levels = levels or Levels(pixels)
            levels.apply(name, strength)
    return torch.from_numpy(pixels if levels is None else levels.pixels())


def augment_together(clips: torch.Tensor, drawn: Sequence[Sequence[Operation]]) -> torch.Tensor:
    """Carry out draws but their shifts by torchvision, clips that take the same operation at a time together.

    Args:
        clips: (B, T, 3, H, W) uint8 on any device; not changed.
        drawn: B draws.

    Returns:
        (B, T, 3, H, W) uint8; moving operations are bilinear, about the centre, with mid-grey around the picture.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingDependencyError("RandAugment requires torchvision: pip install torchvision") from error
    clips = clips.contiguous()
    for place in range(max(map(len, drawn), default=0)):
        groups: dict[Operation, list[int]] = {}
        for row, operations in enumerate(drawn):
            if place < len(operations) and operations[place].name not in _LEFT_OUT:
                groups.setdefault(operations[place], []).append(row)
        if not groups:
            continue
        order = sent([row for rows in groups.values() for row in rows], clips.device)
        chosen = clips.index_select(0, order).split([len(rows) for rows in groups.values()])
        with Sending():
            changed = [_by_torchvision(part, operation, v2) for part, operation in zip(chosen, groups, strict=True)]
        clips = clips.index_copy(0, order, torch.cat(changed))
    return clips


def _by_torchvision(clips: torch.Tensor, operation: Operation, v2: Any) -> torch.Tensor:
    """One operation on (B, T, 3, H, W) uint8."""
    name, strength = operation
    F = v2.functional
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        adjust = {"Color": F.adjust_saturation}.get(name) or getattr(F, f"adjust_{name.lower()}")
        return adjust(clips, 1.0 + strength)
    if name == "Posterize":
        return F.posterize(clips, int(strength))
    if name == "Solarize":
        return F.solarize(clips, 255 * strength)
    if name in ("AutoContrast", "Equalize"):
        return getattr(F, name.lower())(clips)
    # All frames of a clip as the channels of one picture: one sampling grid, one mask of what is grey.
    wide = clips.flatten(1, 2)
    options: dict[str, Any] = {
        "interpolation": v2.InterpolationMode.BILINEAR,
        "fill": [float(RGB_FILL)] * wide.shape[1],
    }
    if name == "Rotate":
        return F.rotate(wide, angle=strength, **options).view(clips.shape)
    degrees = math.degrees(math.atan(strength))
    options |= {"angle": 0.0, "scale": 1.0, "translate": [0, 0]}
    return F.affine(wide, shear=[degrees, 0.0] if name == "ShearX" else [0.0, degrees], **options).view(clips.shape)
