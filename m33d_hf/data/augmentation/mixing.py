"""Mixup, CutMix and label smoothing of a batch of clips, as in VideoMAE's fine-tuning.

This is the only step of the data path in which a sample depends on its batch: the partner of a row is the row counted
from the other end. Draws are a function of (seed, epoch, key of the first row).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from m33d_hf.data.augmentation.options import MixingOptions
from m33d_hf.data.randomness import SeedPart, seeded

Box = tuple[int, int, int, int]
# Values of a row: two parts of them and their blend are 768 KiB of float32.
BLENDED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class MixDraw:
    """How one batch is mixed: the `share` of the row itself, and for CutMix the (top, bottom, left, right) box."""

    share: float
    box: Box | None = None


def soft_targets(labels_B: torch.Tensor, num_labels: int, smoothing: float = 0.0) -> torch.Tensor:
    """(B,) class ids to (B, L) float32 rows of sum 1: ``smoothing / L``, and ``1 - smoothing`` more at the class."""
    off = smoothing / num_labels
    targets = torch.full((len(labels_B), num_labels), off, dtype=torch.float32)
    return targets.scatter_(1, labels_B[:, None], 1.0 - smoothing + off)


def draw_mix(options: MixingOptions, height: int, width: int, *seed: SeedPart) -> MixDraw:
    """Draw how a batch of `height` x `width` frames is mixed; share 1 when it is not.

    CutMix's box has ``1 - share`` of the frame's area before it is cut off at the border; the share is then what is
    really left (timm's "correct_lam").
    """
    if not options.mixes:
        return MixDraw(1.0)
    with seeded(*seed):
        # All draws in a fixed order, used or not: a changed probability leaves the other batches as they were.
        chance, switch, centre_h, centre_w = torch.rand(4, dtype=torch.float64).tolist()
        cut = options.cutmix > 0 and (options.mixup == 0 or switch < options.switch_probability)
        alpha = torch.tensor(options.cutmix if cut else options.mixup, dtype=torch.float64)
        share = float(torch.distributions.Beta(alpha, alpha, validate_args=False).sample())  # options are checked
    if chance >= options.probability:
        return MixDraw(1.0)
    if not cut:
        return MixDraw(share)
    box = cutmix_box(height, width, share, int(centre_h * height), int(centre_w * width))
    top, bottom, left, right = box
    return MixDraw(1.0 - (bottom - top) * (right - left) / (height * width), box)


def cutmix_box(height: int, width: int, share: float, centre_h: int, centre_w: int) -> Box:
    """(top, bottom, left, right) of a box around a pixel, sides sqrt(1 - share) of the frame's, cut at the border."""
    ratio = (1.0 - share) ** 0.5
    half_h, half_w = int(height * ratio) // 2, int(width * ratio) // 2
    return (
        max(centre_h - half_h, 0),
        min(centre_h + half_h, height),
        max(centre_w - half_w, 0),
        min(centre_w + half_w, width),
    )


def mix_batch(pixels: torch.Tensor, targets_BL: torch.Tensor, drawn: MixDraw) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every row with its partner, row B - 1 - i; the middle row of an odd batch stays as it is.

    Args:
        pixels: (B, ..., H, W) float, contiguous; overwritten. A box spans all frames and channels.
        targets_BL: rows of sum 1.
        drawn: one draw for the whole batch.

    Returns:
        Mixed pixels and targets, of the same shapes.
    """
    if drawn.share == 1.0:
        return pixels, targets_BL
    targets = targets_BL * drawn.share + targets_BL.flip(0) * (1.0 - drawn.share)
    if drawn.box is not None:
        top, bottom, left, right = drawn.box
        box = pixels[..., top:bottom, left:right]
        box.copy_(box.flip(0))
    elif pixels.device.type == "cpu":
        _blend_pairs(pixels, drawn.share)
    else:
        pixels = torch.lerp(pixels.flip(0), pixels, drawn.share)
    return pixels, targets


def _blend_pairs(pixels: torch.Tensor, share: float) -> None:
    """Blend every row with its partner in place, a part of two rows at a time that the cache holds."""
    rows = pixels.view(len(pixels), -1)
    for row in range(len(rows) // 2):
        for one, other in zip(rows[row].split(BLENDED_AT_ONCE), rows[-1 - row].split(BLENDED_AT_ONCE), strict=True):
            blended = torch.lerp(other, one, share)
            torch.lerp(one, other, share, out=other)
            one.copy_(blended)
