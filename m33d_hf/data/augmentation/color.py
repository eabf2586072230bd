"""Colour augmentation of RGB frames; parameters mean the same as in torchvision.

Written on float frames in one go, with a factor per frame: on the small images of the embedded data, torchvision's one
conversion to and from uint8 per operation, and one call per image, cost more than the operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from m33d_hf.data.augmentation.sent_numbers import sent
from m33d_hf.data.randomness import Uniforms

GREY_WEIGHTS = (0.299, 0.587, 0.114)
# Pixels of a plane whose hue is turned at once; more of them leave the second-level cache.
_HUE_PIXELS = 1 << 15

# One number, or one per frame as (T, 1, 1, 1); bit-equal either way.
Factor = float | torch.Tensor


def grey(frames: torch.Tensor) -> torch.Tensor:
    """Luma (ITU-R 601) of (..., 3, H, W) float, as (..., 1, H, W)."""
    red, green, blue = frames.unbind(-3)
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2]).unsqueeze(-3)


def adjust_brightness(frames: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Scale (..., 3, H, W) float in 0 to 255; factor 1 changes nothing, 0 is black."""
    return (frames * factor).clamp_(0, 255)


def adjust_contrast(frames: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Move away from (factor > 1) or towards the frame's mean luma."""
    mean = grey(frames).mean(dim=(-3, -2, -1), keepdim=True)
    return torch.lerp(mean, frames, factor).clamp_(0, 255)


def adjust_saturation(frames: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Move away from (factor > 1) or towards each pixel's luma."""
    return torch.lerp(grey(frames), frames, factor).clamp_(0, 255)


def adjust_hue(frames: torch.Tensor, shift: Factor) -> torch.Tensor:
    """Turn the HSV hue of (..., 3, H, W) float32 frames by `shift` of a circle, -0.5 to 0.5; the rest stays.

    With value V, chroma C and hue h in sixths of the circle, channel n of (5, 3, 1) is
    V - C max(0, min(k, 4 - k, 1)), k = (n + h) mod 6.
    """
    if frames.device.type != "cpu":
        return turned_by_torch(frames, shift)
    pixels = frames.numpy()
    turns = np.asarray(shift, np.float64)
    height, width = pixels.shape[-2:]
    if pixels.ndim != 4 or 2 * height * width <= _HUE_PIXELS or len(pixels) * height * width <= 2 * _HUE_PIXELS:
        return torch.from_numpy(_turned(pixels, turns))
    # Clips of large frames in strips: a dozen temporary planes of a whole clip would leave the cache.
    found = np.empty(pixels.shape, np.float32)
    rows = max(_HUE_PIXELS // width, 1)
    for frame, turn, place in zip(pixels, np.broadcast_to(turns, (len(pixels), 1, 1, 1)), found, strict=True):
        for top in range(0, height, rows):
            place[:, top : top + rows] = _turned(frame[:, top : top + rows], turn)
    return torch.from_numpy(found)


def turned_by_torch(frames: torch.Tensor, shift: Factor) -> torch.Tensor:
    """`adjust_hue` on accelerators, equal up to rounding."""
    red, green, blue = frames.unbind(-3)
    high = frames.amax(-3)
    chroma = high - frames.amin(-3)
    safe = chroma.clamp_min(1e-6)
    hue = torch.where(green == high, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = torch.where(red == high, (green - blue) / safe, hue)
    starts = torch.arange(5, 0, -2, dtype=frames.dtype, device=frames.device).view(3, 1, 1)  # made there, not sent
    k = hue.unsqueeze(-3) + (starts + 6.0 * shift)
    k = k - torch.floor(k / 6) * 6
    return high.unsqueeze(-3) - chroma.unsqueeze(-3) * torch.minimum(k, 4 - k).clamp_(0, 1)


def _turned(pixels: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """`adjust_hue` of (..., 3, h, w); NumPy takes a third of torch's time for so many small steps on one thread."""
    red, green, blue = pixels[..., 0, :, :], pixels[..., 1, :, :], pixels[..., 2, :, :]
    high = np.maximum(np.maximum(red, green), blue)
    chroma = np.minimum(np.minimum(red, green), blue)
    np.subtract(high, chroma, out=chroma)
    safe = np.maximum(chroma, np.float32(1e-6))
    # The sector is the last one written: red before green before blue where two channels are equally high.
    hue = _sector(red, green, safe, 4)
    np.copyto(hue, _sector(blue, red, safe, 2), where=green == high)
    np.copyto(hue, _sector(green, blue, safe, 0), where=red == high)
    starts = np.array((5.0, 3.0, 1.0)).reshape(3, 1, 1) + 6.0 * turns
    k = hue[..., None, :, :] + starts.astype(np.float32)
    turned = np.floor(k * np.float32(1 / 6))
    turned *= 6
    k -= turned
    np.minimum(k, np.subtract(4, k, out=turned), out=turned)
    np.minimum(np.maximum(turned, 0, out=turned), 1, out=turned)
    turned *= chroma[..., None, :, :]
    return np.subtract(high[..., None, :, :], turned, out=turned)


def _sector(first: np.ndarray, second: np.ndarray, safe: np.ndarray, start: int) -> np.ndarray:
    """Hue in sixths of the circle where the third channel is the highest."""
    hue = first - second
    hue /= safe
    if start:
        hue += start
    return hue


class Jitter(NamedTuple):
    """One draw of ColorJitter.

    Attributes:
        factors: factors of brightness, contrast and saturation, and the shift of the hue.
        order: numbers of the steps that are taken, in their order.
    """

    factors: tuple[float, ...]
    order: tuple[int, ...]


UNCHANGED = Jitter((1.0, 1.0, 1.0, 0.0), ())

_STEPS: tuple[Callable[[torch.Tensor, Factor], torch.Tensor], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


def draw_jitter(brightness: float, contrast: float, saturation: float, hue: float, draws: Uniforms) -> Jitter:
    """Draw torchvision's ColorJitter: factors in [1 - x, 1 + x] (hue in [-x, x]), in random order; 0 leaves one out."""
    strengths = (brightness, contrast, saturation)
    factors = [draws.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
    factors.append(draws.uniform(-hue, hue))
    used = (*strengths, hue)
    return Jitter(tuple(factors), tuple(step for step in draws.order(len(_STEPS)) if used[step] > 0))


def color_jitter(frames: torch.Tensor, drawn: Sequence[Jitter]) -> torch.Tensor:
    """Apply one draw per frame; frames that take the same step at the same place are computed together.

    Args:
        frames: (T, 3, H, W) float32 in 0 to 255; may be overwritten.
        drawn: T draws; the frames of a clip share theirs.
    """
    for place in range(len(_STEPS)):
        groups: dict[int, list[int]] = {}
        for row, jitter in enumerate(drawn):
            if place < len(jitter.order):
                groups.setdefault(jitter.order[place], []).append(row)
        for step, rows in groups.items():
            factors = [drawn[row].factors[step] for row in rows]
            # The shift of a hue in float64, but where an accelerator has none.
            dtype = torch.float64 if step == 3 and frames.device.type == "cpu" else torch.float32
            factor = sent(factors, frames.device, dtype).view(-1, 1, 1, 1)
            if len(rows) == len(frames):
                frames = _STEPS[step](frames, factor if len(set(factors)) > 1 else factors[0])
            else:
                index = sent(rows, frames.device)
                frames.index_copy_(0, index, _STEPS[step](frames.index_select(0, index), factor))
    return frames


def gaussian_blur(frames: torch.Tensor, kernel: int, sigma: float | Sequence[float]) -> torch.Tensor:
    """Blur (T, 3, H, W) float with a separable Gaussian, mirrored at the border.

    Args:
        frames: pixels.
        kernel: side of the kernel in pixels, odd; cut down to what a very small image can mirror.
        sigma: standard deviation in pixels, of all frames or of each.
    """
    # Sums of shifted views: several times faster than a one-channel convolution.
    for axis in (-2, -1):
        length = frames.shape[axis]
        radius = min(kernel // 2, length - 1)
        weights: Sequence[Factor]
        if isinstance(sigma, Sequence):
            bells = sent([weight for each in sigma for weight in _bell(radius, each)], frames.device, frames.dtype)
            weights = bells.view(len(frames), -1, 1, 1, 1).unbind(1)
        else:
            weights = _bell(radius, sigma)
        edge = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(frames, edge, mode="reflect")
        frames = padded.narrow(axis, 0, length) * weights[0]
        for shift in range(1, 2 * radius + 1):
            part, weight = padded.narrow(axis, shift, length), weights[shift]
            if isinstance(weight, torch.Tensor):
                frames.addcmul_(part, weight)
            else:
                frames.add_(part, alpha=weight)
    return frames


def _bell(radius: int, sigma: float) -> list[float]:
    """A Gaussian at -radius to radius, of sum 1."""
    heights = [math.exp(-0.5 * (position / sigma) ** 2) for position in range(-radius, radius + 1)]
    total = sum(heights)
    return [height / total for height in heights]
