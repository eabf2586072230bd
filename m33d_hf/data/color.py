"""Colour augmentation of RGB frames, with torchvision's meaning of every parameter.

Written on float frames in one go: on the small images of the embedded data, torchvision's one conversion to and
from uint8 per operation costs more than the operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from m33d_hf.data.randomness import Uniforms

GREY_WEIGHTS = (0.299, 0.587, 0.114)


def grey(frames: torch.Tensor) -> torch.Tensor:
    """Luma (ITU-R 601) of (..., 3, H, W) float, as (..., 1, H, W)."""
    red, green, blue = frames.unbind(-3)
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2]).unsqueeze(-3)


def adjust_brightness(frames: torch.Tensor, factor: float) -> torch.Tensor:
    """Scale (..., 3, H, W) float in 0 to 255; factor 1 changes nothing, 0 is black."""
    return (frames * factor).clamp_(0, 255)


def adjust_contrast(frames: torch.Tensor, factor: float) -> torch.Tensor:
    """Move away from (factor > 1) or towards the frame's mean luma."""
    mean = grey(frames).mean(dim=(-3, -2, -1), keepdim=True)
    return torch.lerp(mean, frames, factor).clamp_(0, 255)


def adjust_saturation(frames: torch.Tensor, factor: float) -> torch.Tensor:
    """Move away from (factor > 1) or towards each pixel's luma."""
    return torch.lerp(grey(frames), frames, factor).clamp_(0, 255)


def adjust_hue(frames: torch.Tensor, shift: float) -> torch.Tensor:
    """Turn the HSV hue of float32 CPU frames by `shift` of a circle, -0.5 to 0.5; value and saturation stay.

    With value V, chroma C and hue h in sixths of the circle, channel n of (5, 3, 1) is
    V - C max(0, min(k, 4 - k, 1)), k = (n + h) mod 6.
    """
    # NumPy: a third of torch's time for so many small elementwise steps on one thread.
    pixels = frames.numpy()
    red, green, blue = pixels[..., 0, :, :], pixels[..., 1, :, :], pixels[..., 2, :, :]
    high = np.maximum(np.maximum(red, green), blue)
    chroma = np.minimum(np.minimum(red, green), blue)
    np.subtract(high, chroma, out=chroma)
    safe = np.maximum(chroma, np.float32(1e-6))
    # The sector is the last one written: red before green before blue where two channels are equally high.
    hue = _sector(red, green, safe, 4)
    np.copyto(hue, _sector(blue, red, safe, 2), where=green == high)
    np.copyto(hue, _sector(green, blue, safe, 0), where=red == high)
    starts = np.array([start + 6.0 * shift for start in (5.0, 3.0, 1.0)], np.float32)
    k = hue[..., None, :, :] + starts[:, None, None]
    turned = np.floor(k * np.float32(1 / 6))
    turned *= 6
    k -= turned
    np.minimum(k, np.subtract(4, k, out=turned), out=turned)
    np.minimum(np.maximum(turned, 0, out=turned), 1, out=turned)
    turned *= chroma[..., None, :, :]
    return torch.from_numpy(np.subtract(high[..., None, :, :], turned, out=turned))


def _sector(first: np.ndarray, second: np.ndarray, safe: np.ndarray, start: int) -> np.ndarray:
    """Hue in sixths of the circle where the third channel is the highest."""
    hue = first - second
    hue /= safe
    if start:
        hue += start
    return hue


def color_jitter(
    frames: torch.Tensor, brightness: float, contrast: float, saturation: float, hue: float, draws: Uniforms
) -> torch.Tensor:
    """Apply torchvision's ColorJitter: factors in [1 - x, 1 + x] (hue in [-x, x]), in random order.

    Args:
        frames: (T, 3, H, W) float in 0 to 255; all frames get the same factors.
        brightness: strength, 0 for none; so are contrast and saturation.
        contrast: see brightness.
        saturation: see brightness.
        hue: at most 0.5 of a circle.
        draws: source of randomness.
    """
    steps: list[tuple[Callable[[torch.Tensor, float], torch.Tensor], float, float, float]] = [
        (adjust_brightness, brightness, max(0.0, 1 - brightness), 1 + brightness),
        (adjust_contrast, contrast, max(0.0, 1 - contrast), 1 + contrast),
        (adjust_saturation, saturation, max(0.0, 1 - saturation), 1 + saturation),
        (adjust_hue, hue, -hue, hue),
    ]
    factors = [draws.uniform(low, high) for _, _, low, high in steps]
    for index in draws.order(len(steps)):
        apply, strength, _, _ = steps[index]
        if strength > 0:
            frames = apply(frames, factors[index])
    return frames


def gaussian_blur(frames: torch.Tensor, kernel: int, sigma: float) -> torch.Tensor:
    """Blur (T, 3, H, W) float with a separable Gaussian, mirrored at the border.

    Args:
        frames: pixels.
        kernel: side of the kernel in pixels, odd; cut down to what a very small image can mirror.
        sigma: standard deviation in pixels.
    """
    # Sums of shifted views: several times faster than a one-channel convolution.
    for axis in (-2, -1):
        length = frames.shape[axis]
        radius = min(kernel // 2, length - 1)
        position = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.softmax(-0.5 * (position / sigma) ** 2, dim=0).tolist()
        edge = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(frames, edge, mode="reflect")
        frames = padded.narrow(axis, 0, length) * weights[0]
        for shift in range(1, 2 * radius + 1):
            frames.add_(padded.narrow(axis, shift, length), alpha=weights[shift])
    return frames
