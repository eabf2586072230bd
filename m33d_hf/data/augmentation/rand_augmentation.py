"""RandAugment of whole clips: torchvision's operations, draws and results, bit for bit, in half its time.

torchvision treats a clip as a batch of float images. Here moving operations see all frames as the channels of one
picture (one sampling grid instead of one per frame), shifts by whole pixels copy, and operations that depend on nothing
but a pixel's value go through tables of its 256 values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from m33d_hf.errors import MissingDependencyError
from m33d_hf.modeling.preprocessing_m33d import RGB_FILL

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
_LEVELS = 31
_VALUES = 256


def augment_clip(frames: torch.Tensor, ops: int, magnitude: int) -> torch.Tensor:
    """Apply torchvision's ``v2.RandAugment(ops, magnitude, interpolation=BILINEAR, fill=mid-grey)``.

    Args:
        frames: (T, 3, H, W) uint8 on the CPU, of any layout; not changed.
        ops: number of operations.
        magnitude: strength, 0 to 30.

    Returns:
        (T, 3, H, W) uint8. Draws come from torch's default generator, as torchvision's do.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingDependencyError("RandAugment requires torchvision: pip install torchvision") from error
    frames = frames.contiguous()  # planes: twice to five times faster for most operations
    for _ in range(ops):
        name = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))]
        strength = _strength(name, magnitude, frames.shape[-2], frames.shape[-1])
        if name in _SIGNED and torch.rand(()) <= 0.5:
            strength *= -1
        frames = apply_operation(frames, name, strength, v2)
    return frames


def _strength(name: str, magnitude: int, height: int, width: int) -> float:
    """What the magnitude means to one operation, in torchvision's float32."""
    if name in _SIGNED:
        side = {"TranslateX": width, "TranslateY": height}.get(name, 1)
        return float(torch.linspace(0.0, _SIGNED[name] * side, _LEVELS)[magnitude])
    if name == "Posterize":
        return float((8 - torch.arange(_LEVELS) / ((_LEVELS - 1) / 4)).round()[magnitude])
    return float(torch.linspace(1.0, 0.0, _LEVELS)[magnitude]) if name == "Solarize" else 0.0


def apply_operation(frames: torch.Tensor, name: str, strength: float, v2: Any) -> torch.Tensor:
    """One operation on contiguous (T, 3, H, W) uint8; the result is contiguous, too."""
    F = v2.functional
    if name in ("ShearX", "ShearY", "Rotate"):
        return _moved(frames, name, strength, v2)
    if name == "TranslateX":
        return _shifted(frames, int(strength), 0)
    if name == "TranslateY":
        return _shifted(frames, 0, int(strength))
    by_value: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "Brightness": lambda values: F.adjust_brightness(values, 1.0 + strength),
        "Solarize": lambda values: F.solarize(values, 255 * strength),
    }
    if name in by_value:
        table = by_value[name](torch.arange(_VALUES, dtype=torch.uint8).view(1, 16, 16))
        return _looked_up(frames, table.view(1, -1).numpy())
    if name == "Posterize":
        return F.posterize(frames, int(strength))
    if name == "AutoContrast":
        return _looked_up(frames, _stretching(frames))
    if name == "Equalize":
        return _looked_up(frames, _equalizing(frames))
    if name == "Color":
        return F.adjust_saturation(frames, 1.0 + strength)
    if name == "Contrast":
        return F.adjust_contrast(frames, 1.0 + strength)
    if name == "Sharpness":
        # Its convolution is three times faster pixel by pixel.
        pixels = frames.contiguous(memory_format=torch.channels_last)
        return F.adjust_sharpness(pixels, 1.0 + strength).contiguous()
    return frames


def _moved(frames: torch.Tensor, name: str, strength: float, v2: Any) -> torch.Tensor:
    """Shear or turn all frames as one picture of 3 T channels."""
    wide = frames.view(1, -1, *frames.shape[-2:])
    options = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": [float(RGB_FILL)] * wide.shape[1]}
    if name == "Rotate":
        moved = v2.functional.rotate(wide, angle=strength, **options)
    else:
        degrees = math.degrees(math.atan(strength))
        shear = [degrees, 0.0] if name == "ShearX" else [0.0, degrees]
        options |= {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": shear, "center": [0, 0]}
        moved = v2.functional.affine(wide, **options)
    return moved.view(frames.shape)


def _shifted(frames: torch.Tensor, right: int, down: int) -> torch.Tensor:
    """Shift by whole pixels, where bilinear sampling is off by less than rounding takes back."""
    height, width = frames.shape[-2:]
    found = torch.full_like(frames, RGB_FILL)
    found[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = frames[
        ..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    return found


def _planes(frames: torch.Tensor) -> np.ndarray:
    """(3 T, H W) of contiguous frames."""
    return frames.numpy().reshape(frames.shape[0] * frames.shape[1], -1)


def _looked_up(frames: torch.Tensor, tables: np.ndarray) -> torch.Tensor:
    """Replace every value by that of one table (1, 256), or of one per frame and channel (3 T, 256)."""
    planes = frames.numpy().reshape(len(tables), -1)
    found = np.empty_like(planes)
    for place, plane, table in zip(found, planes, tables, strict=True):
        # bytearray.translate: an array as index would be made eight bytes wide first.
        place[:] = np.frombuffer(bytearray(plane).translate(table.tobytes()), np.uint8)
    return torch.from_numpy(found).view(frames.shape)


def _stretching(frames: torch.Tensor) -> np.ndarray:
    """AutoContrast: a table per plane that spreads its values over 0 to 255."""
    planes = _planes(frames)
    low, high = (torch.from_numpy(found).float()[:, None] for found in (planes.min(1), planes.max(1)))
    flat = high == low
    scale = (high - low) * (1.0 / 255.0)
    low[flat], scale[flat] = 0.0, 1.0
    return (torch.arange(float(_VALUES)) - low).div_(scale).clamp_(0, 255).to(torch.uint8).numpy()


def _equalizing(frames: torch.Tensor) -> np.ndarray:
    """Equalize: a table per plane that spreads its histogram, by PIL's integer rule; a plane of few values stays."""
    planes = _planes(frames)
    tables = np.tile(np.arange(_VALUES, dtype=np.uint8), (len(planes), 1))
    for plane, table in zip(planes, tables, strict=True):
        counts = np.bincount(plane, minlength=_VALUES)
        below = counts.cumsum()
        step = (plane.size - counts[below.argmax()]) // 255
        if step > 0:
            table[0] = 0
            table[1:] = ((below[:-1] + step // 2) // step).clip(0, 255)
    return tables
