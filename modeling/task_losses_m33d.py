# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Losses of the fine-tuning tasks as pure functions that return (sum, count).

The loss of a batch is sum / max(count, 1). Both are returned so that a trainer can add the counts of all
ranks and
accumulation steps before it divides: the loss of a batch then does not depend on how the batch was cut up.
A pixel without ground truth takes no part; a batch without any such pixel has loss 0 and zero, finite
gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BERHU_FRACTION = 0.2  # of the largest error: where berHu turns from linear to quadratic
BERHU_FLOOR = 1e-5  # keeps the threshold positive when every prediction is exact
SILOG_VARIANCE_FOCUS = 0.5  # Eigen et al. 2014: 0 is the plain squared log error, 1 is fully scale-invariant


def valid_depth(depth: Tensor) -> Tensor:
    """Return where a depth map holds a measurement (finite, above zero), as bool of the same shape."""
    return torch.isfinite(depth) & (depth > 0)


def _masked_error(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    # Fill before subtracting: a NaN target would survive a later `where` in the gradient.
    filled = torch.where(valid, target, torch.zeros_like(target)).to(prediction.dtype)
    return torch.where(valid, prediction - filled, torch.zeros_like(prediction))


def l1_loss(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute error of standardised values over the valid pixels.

    Args:
        prediction, target: (B, H, W), the same unit; `target` may be NaN where `valid` is False.
        valid: (B, H, W) bool.

    Returns:
        (sum of absolute errors, number of valid pixels), both scalars.
    """
    return _masked_error(prediction, target, valid).abs().sum(), valid.sum()


def classification_loss(
    logits: Tensor, labels: Tensor, ignore_index: int, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of whole samples against class ids or soft targets (mixup, label smoothing).

    Args:
        logits: (N, L).
        labels: (N,) class ids with `ignore_index` where unknown, or (N, L) target probabilities.
        ignore_index: label of samples that take no part.
        class_weights: (L,) factors of the terms of each class; None: all 1. The number of samples stays the
            denominator, so that a batch's loss scales with the weights of its classes.

    Returns:
        (sum over samples, number of samples that take part), both scalars.
    """
    if labels.is_floating_point():
        log_probabilities = logits.log_softmax(dim=-1)
        targets = labels if class_weights is None else labels * class_weights.to(labels.dtype)
        return -(targets * log_probabilities).sum(), logits.new_full((), float(len(labels)))
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    total = F.cross_entropy(logits, labels, weight=weights, ignore_index=ignore_index, reduction="sum")
    return total, (labels != ignore_index).sum()


def berhu_threshold(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return a fifth of the largest absolute error over the valid pixels of the whole batch, at least 1e-5.

    A constant for the gradient (stop-gradient), as in MultiMAE's fine-tuning.
    """
    with torch.no_grad():
        return (BERHU_FRACTION * _masked_error(prediction, target, valid).abs().amax()).clamp_min(BERHU_FLOOR)


def berhu_loss(
    prediction: Tensor, target: Tensor, valid: Tensor, threshold: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Reverse Huber loss: with error d and threshold c, |d| where |d| < c, else (d^2 + c^2) / (2 c).

    Args:
        prediction, target: (B, H, W) standardised values; `target` may be NaN where `valid` is False.
        valid: (B, H, W) bool.
        threshold: c; None takes :func:`berhu_threshold` of this batch. A trainer that cuts a batch over ranks
            or accumulation steps passes the threshold of the whole batch.

    Returns:
        (sum over valid pixels, number of valid pixels), both scalars.
    """
    if threshold is None:
        threshold = berhu_threshold(prediction, target, valid)
    cut = torch.as_tensor(threshold, dtype=prediction.dtype, device=prediction.device).detach()
    error = _masked_error(prediction, target, valid).abs()
    return torch.where(error < cut, error, (error.square() + cut.square()) / (2 * cut)).sum(), valid.sum()


def clamped_log(depth: Tensor, minimum: float, maximum: float) -> Tensor:
    """Return log(clamp(depth)) whose gradient outside the range is 1 per metre instead of 0.

    A pixel that starts outside the range would otherwise never return to it.
    """
    clamped = depth.clamp(minimum, maximum)
    outside = (depth < minimum) | (depth > maximum)
    pull = torch.where(outside, depth - depth.detach(), torch.zeros_like(depth))
    return torch.where(outside, clamped.detach(), clamped).log() + pull


def silog_loss(
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    minimum: float,
    maximum: float,
    variance_focus: float = SILOG_VARIANCE_FOCUS,
) -> tuple[Tensor, Tensor]:
    """Scale-invariant log loss per image (Eigen et al. 2014): mean(g^2) - focus * mean(g)^2, g = log p - log
    t.

    Args:
        prediction, target: (B, H, W) in metres; both are clamped to [minimum, maximum] before the logarithm.
        valid: (B, H, W) bool.
        minimum, maximum: metres, 0 < minimum < maximum.
        variance_focus: share of the squared mean that is forgiven.

    Returns:
        (sum over images, number of images with at least one valid pixel), both scalars.
    """
    filled = torch.where(valid, target, torch.full_like(target, maximum)).to(prediction.dtype)
    logs = clamped_log(prediction, minimum, maximum)
    error = torch.where(valid, logs - filled.clamp(minimum, maximum).log(), torch.zeros_like(logs)).flatten(1)
    pixels = valid.flatten(1).sum(dim=1)
    number = pixels.clamp_min(1)
    per_image = error.square().sum(dim=1) / number - variance_focus * (error.sum(dim=1) / number).square()
    return per_image.sum(), (pixels > 0).sum()


def cross_entropy_loss(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the labelled pixels.

    Args:
        logits: (B, L, H, W), unnormalised.
        labels: (B, H, W) int64 in [0, L) or `ignore_index`.

    Returns:
        (sum over labelled pixels, number of labelled pixels), both scalars.
    """
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return total, (labels != ignore_index).sum()
