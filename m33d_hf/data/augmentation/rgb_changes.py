"""What changes the RGB of a training sample and nothing else: RandAugment, colour jitter, greyscale, blur.

It is drawn where the sample is read (`transforms`) and carried out where its batch is finished, on an accelerator many
samples at a time. What is drawn does not depend on where that is; pixels do. RandAugment is torchvision's on an
accelerator and `clip_operations` on a CPU: one operation moves nearly all pixels by a level at most, but more at the
edge of a moved picture, and what follows in a draw may stretch the difference. Colour takes the same steps on both, and
differs by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from m33d_hf.data.augmentation.color import UNCHANGED, Jitter, color_jitter, gaussian_blur, grey
from m33d_hf.data.augmentation.rand_augmentation import Operation, augment_clip, augment_together
from m33d_hf.data.augmentation.sent_numbers import sent
from m33d_hf.modeling.preprocessing_m33d import Size, in_planes

# On a CPU: 1 MiB of float32 is one core's share of the second-level cache.
VALUES_AT_ONCE = 1 << 18


class ColorDraw(NamedTuple):
    """What changes in the colour of one sample; `blur` is (kernel, deviation)."""

    jitter: Jitter | None
    whiten: bool
    blur: tuple[int, float] | None


class RgbChanges(NamedTuple):
    """The changes of one sample in their order: RandAugment, then colour.

    Attributes:
        shown: (height, width) of the picture on its canvas, from the top left; the rest is padding and stays.
        operations: draw of RandAugment.
        color: draw of the colours.
    """

    shown: Size
    operations: tuple[Operation, ...] = ()
    color: ColorDraw | None = None

    def apply(self, frames: torch.Tensor) -> torch.Tensor:
        """The changed (T, 3, H, W) uint8, H and W of the canvas or of the picture."""
        return change_clips([frames], [self])[0]


def change_clips(clips: Sequence[torch.Tensor], changes: Sequence[RgbChanges]) -> list[torch.Tensor]:
    """Carry out the changes of clips (T, 3, H, W) uint8 of any layouts and sizes, on one device.

    Clips of one size go together: on a CPU as many as its cache holds, because a frame of 48 pixels costs less than the
    calls of the operations on it; on an accelerator all.

    Returns:
        New clips of the same sizes, in planes; those given stay as they are.
    """
    waiting: dict[torch.Size, list[int]] = {}
    shown = [clip[..., : change.shown[0], : change.shown[1]] for clip, change in zip(clips, changes, strict=True)]
    for row, part in enumerate(shown):
        waiting.setdefault(part.shape, []).append(row)
    found = list(clips)
    for rows in waiting.values():
        changed = _changed([shown[row] for row in rows], [changes[row] for row in rows])
        for row, part in zip(rows, changed, strict=True):
            if part.shape != clips[row].shape:
                height, width = part.shape[-2:]
                whole = in_planes(clips[row].clone())
                whole[..., :height, :width] = part
                part = whole
            found[row] = part
    return found


def change_rows(pixels: torch.Tensor, changes: Sequence[RgbChanges | None]) -> torch.Tensor:
    """Carry out the changes of the rows of a batch (B, 3, H, W) or (B, T, 3, H, W) uint8, None for none.

    Returns:
        A new batch, in planes.
    """
    clips = list(pixels if pixels.dim() == 5 else pixels[:, None])
    rows = [row for row, change in enumerate(changes) if change is not None]
    changed = change_clips([clips[row] for row in rows], [change for change in changes if change is not None])
    for row, clip in zip(rows, changed, strict=True):
        clips[row] = clip
    return torch.stack([in_planes(clip) for clip in clips]).view(pixels.shape)


def _changed(clips: Sequence[torch.Tensor], changes: Sequence[RgbChanges]) -> list[torch.Tensor]:
    """Clips of one shape (T, 3, H, W)."""
    found = list(clips)
    rows = [row for row, change in enumerate(changes) if change.operations]
    if rows:
        drawn = [changes[row].operations for row in rows]
        if _on_cpu(clips[0]):
            augmented = [augment_clip(clips[row], operations) for row, operations in zip(rows, drawn, strict=True)]
        else:
            augmented = list(augment_together(torch.stack([clips[row] for row in rows]), drawn))
        for row, clip in zip(rows, augmented, strict=True):
            found[row] = clip
    colors = [(row, change.color) for row, change in enumerate(changes) if change.color is not None]
    count = len(colors)
    if _on_cpu(clips[0]):
        count = max(VALUES_AT_ONCE // clips[0].numel(), 1)
    for start in range(0, len(colors), max(count, 1)):
        some = colors[start : start + count]
        recolored = _recolored([found[row] for row, _ in some], [color for _, color in some])
        for (row, _), clip in zip(some, recolored, strict=True):
            found[row] = clip
    return found


def _on_cpu(clip: torch.Tensor) -> bool:
    return clip.device.type == "cpu"


def _recolored(clips: Sequence[torch.Tensor], draws: Sequence[ColorDraw]) -> Sequence[torch.Tensor]:
    """Clips of one shape (T, 3, H, W) uint8 with other colours."""
    frames = torch.cat([in_planes(clip) for clip in clips]).float()
    length = len(clips[0])
    if any(draw.jitter is not None for draw in draws):
        frames = color_jitter(frames, [draw.jitter or UNCHANGED for draw in draws for _ in range(length)])
    if _on_cpu(frames):  # clip by clip, in its cache
        for number, draw in enumerate(draws):
            clip = frames[number * length : (number + 1) * length]
            if draw.whiten:
                clip.copy_(grey(clip).expand_as(clip))
            if draw.blur is not None:
                clip.copy_(gaussian_blur(clip, *draw.blur))
    else:
        frames = _whitened_and_blurred(frames, [draw for draw in draws for _ in range(length)])
    return frames.round_().clamp_(0, 255).to(torch.uint8).split(length)


def _whitened_and_blurred(frames: torch.Tensor, draws: Sequence[ColorDraw]) -> torch.Tensor:
    """Frames (N, 3, H, W) after greyscale and blur, one draw each, with one call for all and one per kernel."""
    if any(draw.whiten for draw in draws):
        rows = sent([draw.whiten for draw in draws], frames.device)
        frames = torch.where(rows.view(-1, 1, 1, 1), grey(frames), frames)
    sigmas: dict[int, dict[int, float]] = {}
    for number, draw in enumerate(draws):
        if draw.blur is not None:
            sigmas.setdefault(draw.blur[0], {})[number] = draw.blur[1]
    for kernel, rows_of in sigmas.items():
        index = sent(list(rows_of), frames.device)
        blurred = gaussian_blur(frames.index_select(0, index), kernel, list(rows_of.values()))
        frames = frames.index_copy(0, index, blurred)
    return frames
