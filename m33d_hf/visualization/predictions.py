"""Pictures of predictions at the size of what was predicted on, quickly enough for every frame of a video.

Drawn with Pillow: a figure of matplotlib takes as long as a model does. Only the colours of values are matplotlib's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.visualization.canvas import INK, INVALID
from m33d_hf.visualization.dense import color_labels, label_colors
from m33d_hf.visualization.reconstruction import ReconstructionViews, color_range, rgb_image

_SMALLEST = 240  # pixels of the short side below which a picture is enlarged, so that its bar can be read
_TICKS = 5


@lru_cache(maxsize=4)
def color_table(name: str = "viridis") -> np.ndarray:
    """(256, 3) uint8 of a colour map.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingDependencyError("coloured pictures require matplotlib: pip install matplotlib") from error
    found = colormaps[name](np.arange(256), bytes=True)[:, :3]
    return np.ascontiguousarray(found)


@dataclass(frozen=True)
class Scale:
    """Values and their colours.

    Attributes:
        low, high: values of the first and the last colour.
        unit: beside the bar.
    """

    low: float
    high: float
    unit: str = "m"

    def color(self, values_HW: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8; grey where a value is not finite, or 0, which stands for unknown."""
        known = np.isfinite(values_HW) & (values_HW != 0)
        span = max(self.high - self.low, 1e-9)
        places = np.clip((np.where(known, values_HW, self.low) - self.low) * (255.0 / span), 0, 255)
        table = color_table()
        grey = np.array([round(255 * value) for value in INVALID], np.uint8)
        return np.where(known[..., None], table[places.astype(np.uint8)], grey)


def value_scale(values: Sequence[np.ndarray], unit: str = "m") -> Scale:
    """From the 1st to the 99th percentile of what is known; from 0 to 1 where nothing is."""
    parts = [part[np.isfinite(part) & (part != 0)] for part in values]
    known = np.concatenate(parts) if parts else np.zeros(0)
    if not known.size:
        return Scale(0.0, 1.0, unit)
    low, high = np.percentile(known, (1, 99))
    # What varies by less than a hundredth is one colour: the noise of a constant is no picture.
    return Scale(float(low), float(max(high, low + 0.01 * abs(low), low + 1e-6)), unit)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """A small picture times a whole number, so that text fits beside it; larger ones as they are."""
    factor = max(1, -(-_SMALLEST // min(pixels.shape[:2])))
    if min(pixels.shape[:2]) >= _SMALLEST or factor == 1:
        return pixels
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def with_bar(pixels: np.ndarray, scale: Scale) -> np.ndarray:
    """A picture, (H, W, 3) uint8, with the bar of its colours at its right."""
    pixels = enlarged(pixels)
    return np.concatenate([pixels, bar(scale, pixels.shape[0])], axis=1)


@lru_cache(maxsize=8)
def bar(scale: Scale, height: int) -> np.ndarray:
    """(height, w, 3) uint8: the colours of a scale, its low end at the bottom, with values and unit."""
    size = int(np.clip(height / 24, 10, 48))
    font = _font(size)
    gap, thick = size // 2 + 2, int(1.2 * size)
    # Both ends in full; as many digits as tell the ticks apart.
    step = (scale.high - scale.low) / (_TICKS - 1)
    digits = int(np.clip(1 - np.floor(np.log10(max(step, 1e-9))), 0, 6)) if step < 10 else 0
    places = [(number / (_TICKS - 1), scale.low + number * step) for number in range(_TICKS)]
    words = [f"{value:.{digits}f}" for _, value in places]
    wide = max(font.getlength(word) for word in [*words, scale.unit])
    image = Image.new("RGB", (round(gap + thick + 2 * gap + wide), height), "white")
    draw = ImageDraw.Draw(image)
    top, bottom = round(2.2 * size), height - size
    column = color_table()[np.linspace(255, 0, max(1, bottom - top)).round().astype(int)]
    image.paste(Image.fromarray(np.repeat(column[:, None], thick, axis=1)), (gap, top))
    for (share, _), word in zip(places, words, strict=True):
        y = bottom - 1 - share * (bottom - 1 - top)
        draw.line([(gap + thick, y), (gap + thick + gap // 2, y)], fill=INK, width=max(1, size // 10))
        draw.text((gap + thick + gap, y), word, fill=INK, font=font, anchor="lm")
    draw.text((gap, size * 0.9), scale.unit, fill=INK, font=font, anchor="lm")
    return np.asarray(image)


def overlay(pixels: np.ndarray, labels_HW: np.ndarray, count: int, share: float = 0.55) -> np.ndarray:
    """(H, W, 3) uint8: class colours laid over a picture; pixels without a class stay as they are."""
    colors = (255 * color_labels(labels_HW, count)).astype(np.float32)
    known = ((labels_HW >= 0) & (labels_HW < count))[..., None]
    mixed = (1 - share) * pixels + share * colors
    return np.where(known, mixed.round(), pixels).astype(np.uint8)


def palette(count: int) -> list[int]:
    """Red, green, blue of 256 palette entries: the class colours, white for 255 (no class), black between."""
    table = np.zeros((256, 3), np.uint8)
    table[: min(count, 256)] = np.rint(255 * label_colors(count)[:256])
    if count < 256:
        table[255] = 255
    return [int(value) for value in table.reshape(-1)]


def with_legend(pixels: np.ndarray, names: Sequence[str], numbers: Sequence[int], total: int) -> np.ndarray:
    """A picture with a row per class at its right: its colour and its name, the first ones on top.

    Args:
        pixels: (H, W, 3) uint8.
        names: of the classes to list.
        numbers: their ids.
        total: number of all classes, which fixes the colours.
    """
    pixels = enlarged(pixels)
    height = pixels.shape[0]
    size = int(np.clip(height / 26, 10, 40))
    font, line = _font(size), round(1.5 * size)
    room = max(1, (height - size) // line)
    listed = list(zip(names, numbers, strict=True))
    if len(listed) > room:
        rest = len(listed) - (room - 1)
        listed = [*listed[: room - 1], (f"and {rest} more", -1)]
    wide = max((font.getlength(name) for name, _ in listed), default=0)
    image = Image.new("RGB", (round(wide + 3.2 * size), height), "white")
    draw = ImageDraw.Draw(image)
    colors = label_colors(total)
    for row, (name, number) in enumerate(listed):
        y = size // 2 + row * line
        if number >= 0:
            color = tuple(round(255 * value) for value in colors[number])
            draw.rectangle([size // 2, y, size // 2 + size, y + size], fill=color)
        draw.text((2 * size, y + size / 2), name, fill=INK, font=font, anchor="lm")
    return np.concatenate([pixels, np.asarray(image)], axis=1)


def with_caption(pixels: np.ndarray, lines: Sequence[tuple[str, float | None]]) -> np.ndarray:
    """A picture with lines of text below it; a share in [0, 1] is a bar behind its line.

    Args:
        pixels: (H, W, 3) uint8.
        lines: (words, share or None).
    """
    pixels = enlarged(pixels)
    width = pixels.shape[1]
    size = int(np.clip(width / 30, 10, 36))
    font, line = _font(size), round(1.6 * size)
    image = Image.new("RGB", (width, line * len(lines) + size // 2), "white")
    draw = ImageDraw.Draw(image)
    for row, (words, share) in enumerate(lines):
        y = size // 4 + row * line
        if share is not None:
            draw.rectangle([0, y, round(share * width), y + line - 2], fill="#cfe3f3")
        draw.text((size // 2, y + line / 2 - 1), words, fill=INK, font=font, anchor="lm")
    return np.concatenate([pixels, np.asarray(image)], axis=0)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def reconstruction_row(
    sample: Mapping[str, ReconstructionViews], config: M33DConfig, rgb_CHW: np.ndarray | None = None, frame: int = 0
) -> np.ndarray:
    """(H, W, 3) uint8: input, visible patches and reconstruction of every modality side by side, with headings.

    Args:
        sample: modality name -> views of one picture.
        config: of the model.
        rgb_CHW: the model's RGB input, which is shown first where it is not reconstructed.
        frame: which frame of the views.

    Raises:
        ConfigError: nothing is reconstructed. MissingDependencyError: matplotlib is not installed.
    """
    panels, titles = [], []
    if rgb_CHW is not None and "rgb" not in sample:
        spec = config.spec("rgb")
        shown = np.rint(255 * rgb_image(rgb_CHW, spec.channel_mean, spec.channel_std)).astype(np.uint8)
        panels.append(enlarged(shown))
        titles.append("rgb: input")
    for spec in config.specs:
        if spec.name not in sample:
            continue
        views = sample[spec.name]
        limits = color_range(views, slice(frame, frame + 1))
        for which, word in (("target", "input"), ("visible", "visible"), ("reconstruction", "reconstructed")):
            panels.append(enlarged(_view_pixels(views, which, frame, spec, limits)))
            titles.append(f"{spec.name}: {word}")
    if not sample:
        raise ConfigError("this model was pre-trained without reconstruction, so that there is nothing to draw.")
    size = int(np.clip(panels[0].shape[1] / 20, 10, 36))
    gap = np.full((panels[0].shape[0], max(2, size // 3), 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    heading = Image.new("RGB", (row.shape[1], 2 * size), "white")
    draw = ImageDraw.Draw(heading)
    for number, title in enumerate(titles):
        x = number * (panels[0].shape[1] + gap.shape[1])
        draw.text((x + size // 4, size), title, fill=INK, font=_font(size), anchor="lm")
    return np.concatenate([np.asarray(heading), row], axis=0)


def _view_pixels(
    views: ReconstructionViews, which: str, frame: int, spec: ModalitySpec, limits: tuple[float, float]
) -> np.ndarray:
    values = getattr(views, which)[frame]
    if spec.channels == 3:
        return np.rint(255 * rgb_image(values, spec.channel_mean, spec.channel_std)).astype(np.uint8)
    image = values[0].astype(np.float64)
    masked = np.isnan(views.visible[frame, 0])
    known = np.isfinite(image) & (views.valid[frame] | masked if which == "reconstruction" else views.valid[frame])
    low, high = limits
    places = np.clip((np.where(known, image, low) - low) * (255.0 / max(high - low, 1e-9)), 0, 255)
    grey = np.array([round(255 * value) for value in INVALID], np.uint8)
    return np.where(known[..., None], color_table()[places.astype(np.uint8)], grey)
