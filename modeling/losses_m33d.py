# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The losses of the paper, Eq. 1 to 7, as pure functions that return (sum, count).

Sums and counts stay apart so that a trainer can add counts over ranks and accumulation steps before it divides:
one big batch and many small ones then give the same loss and gradient.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils.generic import maybe_autocast

Term = tuple[torch.Tensor, torch.Tensor]


def normalize_patches(
    patches_BKP: torch.Tensor,
    mode: str,
    channels: int,
    eps: float = 1e-6,
    valid_BKP: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalise every patch by its own statistics.

    Args:
        patches_BKP: values with channels fastest.
        mode: "pooled", (x - mean) / sqrt(var + eps) over all values (MAE); "per_channel",
            (x - mean) / (std + eps) over the pixels of each channel (VideoMAE); "none". Variances are unbiased.
        channels: C.
        eps: keeps a perfectly flat patch finite.
        valid_BKP: 0/1; statistics leave out invalid values, which become 0.
    """
    if mode == "none":
        return patches_BKP
    values, valid, dim = patches_BKP, valid_BKP, -1
    if mode == "per_channel":
        values = patches_BKP.unflatten(-1, (-1, channels))
        valid = valid_BKP.unflatten(-1, (-1, channels)) if valid_BKP is not None else None
        dim = -2
    if valid is None:
        mean = values.mean(dim=dim, keepdim=True)
        centred = values - mean
        variance = _variance(centred, dim)
    else:
        weight = valid.to(values.dtype)
        count = weight.sum(dim=dim, keepdim=True)
        mean = (values * weight).sum(dim=dim, keepdim=True) / count.clamp_min(1)
        centred = (values - mean) * weight
        variance = (centred**2).sum(dim=dim, keepdim=True) / (count - 1).clamp_min(1)
    if mode == "pooled":
        return (centred / (variance + eps).sqrt()).reshape(patches_BKP.shape)
    # The square root of an exact zero has an infinite slope: a flat or invalid patch takes a way around it.
    spread = variance > 0
    scale = torch.where(spread, variance, torch.ones_like(variance)).sqrt() * spread + eps
    return (centred / scale).reshape(patches_BKP.shape)


def _variance(centred: torch.Tensor, dim: int) -> torch.Tensor:
    """Unbiased variance of values whose mean was taken off, three times as fast on CPU as `Tensor.var` in float32.

    Exactly 0 for equal values: their mean is off by its rounding, which is then all that is left of them.
    """
    count = centred.shape[dim]
    squares = centred.square().sum(dim=dim, keepdim=True)
    spread = squares - centred.sum(dim=dim, keepdim=True).square() / count
    # One value that differs by its last bit makes 1e-3 of the squares, the rounding of the two sums at most 1e-6.
    return torch.where(spread > 1e-5 * squares, spread, 0.0) / (count - 1)


def reconstruction_loss(
    prediction_BKP: torch.Tensor,
    target_BKP: torch.Tensor,
    kind: str,
    valid_BKP: torch.Tensor | None = None,
    reduction: str = "batch",
) -> Term:
    """Reconstruction of the masked patches, Eq. 1 (RGB) and Eq. 2 (depth).

    Args:
        kind: "mse" or "l1" average over valid values; "l2" is the printed norm, averaged over the tokens that hold
            a valid value.
        valid_BKP: 0/1 per value; invalid values (holes) do not count.
        reduction: "batch" pools everything (MAE); "sample" averages per sample first (MultiMAE).

    Returns:
        Sum and count; samples without a valid value contribute to neither.
    """
    error = prediction_BKP.float() - target_BKP.float()
    if valid_BKP is not None:
        # where, not a product: a NaN under an invalid pixel must not survive as 0 * NaN.
        error = torch.where(valid_BKP.bool(), error, torch.zeros_like(error))
    # A power's backward pass takes twice as long as a product's.
    error = error.abs() if kind == "l1" else error * error
    if kind == "l2":
        # The square root of an exact zero has an infinite slope, hence the clamp.
        error = error.sum(dim=-1).clamp_min(1e-12).sqrt()
        if valid_BKP is not None:
            error = error * valid_BKP.bool().any(dim=-1)
    per_sample = error.flatten(1).sum(dim=1)
    count = reconstruction_count(prediction_BKP.shape, kind, valid_BKP, reduction, prediction_BKP.device)
    if reduction == "batch":
        return per_sample.sum(), count
    weights = _values_per_sample(prediction_BKP.shape, kind, valid_BKP, prediction_BKP.device)
    return (per_sample / weights.clamp_min(1)).sum(), count


def _values_per_sample(
    shape_BKP: torch.Size, kind: str, valid_BKP: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    batch, tokens, values = shape_BKP
    if valid_BKP is None:
        return torch.full((batch,), float(tokens if kind == "l2" else tokens * values), device=device)
    counted = valid_BKP.bool().any(dim=-1) if kind == "l2" else valid_BKP
    return counted.flatten(1).float().sum(dim=1)


def reconstruction_count(
    shape_BKP: torch.Size, kind: str, valid_BKP: torch.Tensor | None, reduction: str, device: torch.device
) -> torch.Tensor:
    """The denominator of `reconstruction_loss`, known before any forward pass."""
    values = _values_per_sample(shape_BKP, kind, valid_BKP, device)
    return values.sum() if reduction == "batch" else (values > 0).float().sum()


def positive_pairs(
    keep_rgb_BV: torch.Tensor, keep_other_BU: torch.Tensor, valid_other_BU: torch.Tensor | None
) -> torch.Tensor:
    """(B, V, U) bool: both tokens sit at one position and the other modality is valid there."""
    pairs = keep_rgb_BV[:, :, None] == keep_other_BU[:, None, :]
    return pairs if valid_other_BU is None else pairs & valid_other_BU[:, None, :]


def similarity(
    rgb: torch.Tensor, other: torch.Tensor, normalize: bool, temperature: float | torch.Tensor
) -> torch.Tensor:
    """s_ij / tau of Eq. 3 in float32, under autocast too; cosine similarity with `normalize`."""
    rgb, other = rgb.float(), other.float()
    if normalize:
        rgb, other = functional.normalize(rgb, dim=-1), functional.normalize(other, dim=-1)
    # Half precision would round logits of 1 / tau to steps of .03 to .06.
    with maybe_autocast(rgb.device.type, enabled=False):
        return rgb @ other.transpose(-2, -1) / temperature


def contrastive_loss(
    rgb_BVD: torch.Tensor,
    other_BUD: torch.Tensor,
    keep_rgb_BV: torch.Tensor,
    keep_other_BU: torch.Tensor,
    valid_other_BU: torch.Tensor | None = None,
    temperature: float | torch.Tensor = 0.07,
    normalize: bool = True,
    symmetric: bool = False,
) -> Term:
    """Patch-level InfoNCE inside each sample, Eq. 3.

    All visible RGB tokens against all visible tokens of the other modality. A row counts when its position is
    visible (and valid) in both; every other visible valid token of the sample is a negative.

    Returns:
        Sum over the counted rows and their number; no row gives exactly 0 with zero gradients.
    """
    logits = similarity(rgb_BVD, other_BUD, normalize, temperature)
    pairs = positive_pairs(keep_rgb_BV, keep_other_BU, valid_other_BU)
    count = pairs.any(dim=2).sum().float()
    total = _info_nce(logits, pairs, None if valid_other_BU is None else valid_other_BU[:, None, :])
    if symmetric:
        total = 0.5 * (total + _info_nce(logits.transpose(1, 2), pairs.transpose(1, 2), None))
    return total, count


def _info_nce(logits: torch.Tensor, pairs: torch.Tensor, column_valid: torch.Tensor | None) -> torch.Tensor:
    if column_valid is not None:
        logits = logits.masked_fill(~column_valid, torch.finfo(logits.dtype).min)
    has_pair = pairs.any(dim=-1)
    positive = torch.where(pairs, logits, torch.zeros_like(logits)).sum(dim=-1)
    rows = torch.logsumexp(logits, dim=-1) - positive
    return torch.where(has_pair, rows, torch.zeros_like(rows)).sum()


class _GatherBatch(torch.autograd.Function):
    """All-gather along the batch whose backward returns every rank's gradient to the owner of the rows."""

    @staticmethod
    def forward(ctx, local: torch.Tensor) -> torch.Tensor:
        world = torch.distributed.get_world_size()
        parts = [torch.empty_like(local) for _ in range(world)]
        torch.distributed.all_gather(parts, local.contiguous())
        ctx.rows = local.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        start = torch.distributed.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def _gather_batch(local: torch.Tensor, over_ranks: bool) -> tuple[torch.Tensor, int]:
    """All ranks' rows (this rank's without `over_ranks`), and where this rank's begin."""
    if not (over_ranks and torch.distributed.is_available() and torch.distributed.is_initialized()):
        return local, 0
    if torch.distributed.get_world_size() == 1:
        return local, 0
    return _GatherBatch.apply(local), torch.distributed.get_rank() * local.shape[0]


def batch_contrastive_loss(
    rgb_BVD: torch.Tensor,
    other_BUD: torch.Tensor,
    keep_rgb_BV: torch.Tensor,
    keep_other_BU: torch.Tensor,
    valid_other_BU: torch.Tensor | None = None,
    temperature: float | torch.Tensor = 0.07,
    normalize: bool = True,
    chunk_values: int = 1 << 25,
    over_ranks: bool = True,
) -> Term:
    """InfoNCE whose negatives are the visible tokens of the whole batch on all ranks (equal batch on every rank).

    Local rows meet gathered columns in chunks of at most `chunk_values` logits, recomputed in the backward pass.
    Without `over_ranks` nothing is gathered: in evaluation ranks have different batches, and a collective would hang.

    Returns:
        Sum over the local counted rows and their number.
    """
    batch = rgb_BVD.shape[0]
    if normalize:
        rgb_BVD = functional.normalize(rgb_BVD.float(), dim=-1)
        other_BUD = functional.normalize(other_BUD.float(), dim=-1)
    valid = torch.ones_like(keep_other_BU, dtype=torch.bool) if valid_other_BU is None else valid_other_BU
    columns, start = _gather_batch(other_BUD.float(), over_ranks)
    valid_columns = _gather_batch(valid.float(), over_ranks)[0].bool().flatten()
    pairs = positive_pairs(keep_rgb_BV, keep_other_BU, valid_other_BU)
    flat_columns = columns.flatten(0, 1)
    samples = max(1, chunk_values // (keep_rgb_BV.shape[1] * flat_columns.shape[0]))

    def chunk_loss(rows_CVD: torch.Tensor, pairs_CVU: torch.Tensor, first: int) -> torch.Tensor:
        with maybe_autocast(rows_CVD.device.type, enabled=False):
            logits = rows_CVD.float() @ flat_columns.T / temperature
        own = logits.unflatten(-1, (-1, keep_other_BU.shape[1]))
        samples_here = torch.arange(rows_CVD.shape[0], device=logits.device)
        own = own[samples_here, :, first + samples_here]
        positive = torch.where(pairs_CVU, own, torch.zeros_like(own)).sum(dim=-1)
        logits = logits.masked_fill(~valid_columns, torch.finfo(logits.dtype).min)
        rows = torch.logsumexp(logits, dim=-1) - positive
        return torch.where(pairs_CVU.any(dim=-1), rows, torch.zeros_like(rows)).sum()

    total = rgb_BVD.new_zeros((), dtype=torch.float32)
    for first in range(0, batch, samples):
        part = slice(first, first + samples)
        # Nothing in it is random, and keeping the state of a GPU's generator would be a copy to the host.
        total = total + checkpoint(
            chunk_loss, rgb_BVD[part], pairs[part], start + first, use_reentrant=False, preserve_rng_state=False
        )
    return total, pairs.any(dim=2).sum().float()


@torch.no_grad()
def retrieval_hits(
    rgb_BVD: torch.Tensor,
    other_BUD: torch.Tensor,
    keep_rgb_BV: torch.Tensor,
    keep_other_BU: torch.Tensor,
    valid_other_BU: torch.Tensor | None = None,
    normalize: bool = True,
) -> Term:
    """How many counted rows find the token of their own position, and how many rows there are."""
    logits = similarity(rgb_BVD, other_BUD, normalize, 1.0)
    pairs = positive_pairs(keep_rgb_BV, keep_other_BU, valid_other_BU)
    if valid_other_BU is not None:
        logits = logits.masked_fill(~valid_other_BU[:, None, :], torch.finfo(logits.dtype).min)
    hit = torch.gather(pairs, 2, logits.argmax(dim=-1, keepdim=True))[..., 0]
    return hit.sum().float(), pairs.any(dim=2).sum().float()


def fuse_pair(rgb_BD: torch.Tensor, other_BD: torch.Tensor, fusion: str) -> torch.Tensor:
    """Combine pooled features for the matching head: "concat" (B, 2D), "sum" or "product" (B, D)."""
    if fusion == "concat":
        return torch.cat([rgb_BD, other_BD], dim=-1)
    return rgb_BD + other_BD if fusion == "sum" else rgb_BD * other_BD


def matching_pairs(batch_size: int, negatives: int) -> int:
    """Number of pairs M in Eq. 4: each sample's own and its negatives; 0 when there is no other sample."""
    return batch_size * (1 + min(negatives, batch_size - 1)) if batch_size > 1 else 0


def mismatched_partners(
    batch_size: int, negatives: int, mode: str, device: torch.device, drawn: bool = True
) -> list[torch.Tensor]:
    """Index tensors (B,) without a fixed point: "roll" by 1, 2, ...; "shuffle" along a random cycle.

    Unless `drawn`, the cycle is the same one for every batch of that size: an evaluation on several processes must
    not depend on which of them has drawn how often.
    """
    order = torch.arange(batch_size, device=device)
    if mode == "shuffle" and drawn:
        order = torch.randperm(batch_size, device=device)
    elif mode == "shuffle":
        order = torch.randperm(batch_size, generator=torch.Generator().manual_seed(batch_size)).to(device)
    return [torch.empty_like(order).scatter(0, order, order.roll(-k)) for k in range(1, 1 + negatives)]


def matching_loss(logits_M2: torch.Tensor, labels_M: torch.Tensor) -> Term:
    """Two-class cross entropy over matched (1) and mismatched (0) pairs, Eq. 4 with the negatives it needs."""
    total = functional.cross_entropy(logits_M2.float(), labels_M, reduction="sum")
    return total, torch.full((), float(labels_M.shape[0]), device=logits_M2.device)


def global_embedding(states_BVD: torch.Tensor) -> torch.Tensor:
    """(B, D) float32 maximum over the tokens of each feature: what the authors' follow-up distils."""
    return states_BVD.float().amax(dim=1)


def distillation_loss(student_BD: torch.Tensor, teacher_BD: torch.Tensor) -> Term:
    """Smooth L1 (quadratic below a difference of 1) between global embeddings; counts their values.

    Not in the paper: the authors' follow-up (docs/method.md#follow-up).
    """
    total = functional.smooth_l1_loss(student_BD.float(), teacher_BD.detach().float(), reduction="sum")
    return total, torch.full((), float(student_BD.numel()), device=student_BD.device)


def weighted_total(
    sums: dict[str, torch.Tensor], counts: dict[str, torch.Tensor], weights: dict[str, float]
) -> torch.Tensor:
    """Eq. 5 to 7: the sum of weight * sum / count, a term without any count being exactly 0."""
    total = sum(weights[name] * sums[name] / counts[name].clamp_min(1) for name in sums)
    if not isinstance(total, torch.Tensor):
        raise ValueError("no loss term is active")
    return total
