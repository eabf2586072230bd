# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What the losses do not say: is matching solved by position, can the matching head learn, is depth copied, how much of
the features is position."""

from __future__ import annotations

import torch

from .batch_m33d import PreTrainingBatch
from .configuration_m33d import ModalitySpec
from .losses_m33d import retrieval_hits
from .masking_m33d import JOINT, budget_without
from .terms_m33d import PreTrainingPass, Tensors, final_features, matching_logits, reconstruction


@torch.no_grad()
def diagnostics(seen: PreTrainingPass) -> Tensors:
    """Scalars by name: accuracy of retrieval and of matching, losses with a modality hidden and visible, and the share
    of position in the variance of the features."""
    return _pair_diagnostics(seen) | _hidden_latents(seen) | _hidden_budget(seen) | _position_shares(seen)


def position_share(tokens_BVD: torch.Tensor, keep_BV: torch.Tensor, positions: int) -> torch.Tensor:
    """Share of the variance of tokens that their position alone explains: 0 where positions do not matter, 1 where all
    tokens of a position are the same.

    By one-way analysis of variance over positions, all dimensions together, as epsilon squared (Kelley 1935): chance
    is taken off, so that few samples per position do not pass for a share, and a value may lie a little below 0.

    Args:
        tokens_BVD: features of the visible tokens.
        keep_BV: their positions, in [0, positions).

    Returns:
        A scalar; NaN where no position is there twice.
    """
    values, position = tokens_BVD.flatten(0, 1).float(), keep_BV.flatten()
    counts = values.new_zeros(positions).index_add(0, position, torch.ones_like(values[:, 0]))
    sums = values.new_zeros(positions, values.shape[1]).index_add(0, position, values)
    centre = values.mean(dim=0)
    between = (counts[:, None] * (sums / counts.clamp_min(1)[:, None] - centre).square()).sum()
    total = (values - centre).square().sum()
    groups = (counts > 0).sum()
    noise = (total - between) / (len(values) - groups)  # 0 / 0 without repeated positions
    return (between - (groups - 1) * noise) / total


def _position_shares(seen: PreTrainingPass) -> Tensors:
    if seen.batch.batch_size < 2 or JOINT in seen.batch.keep:
        return {}  # no position twice, or tokens of all modalities in one sequence
    features = final_features(seen.model.m33d, seen.states or seen.pair_states)
    return {
        f"position_share_{name}": position_share(tokens, seen.batch.keep[name], seen.batch.num_tokens)
        for name, tokens in features.items()
        if name in seen.batch.keep
    }


def _pair_diagnostics(seen: PreTrainingPass) -> Tensors:
    results: Tensors = {}
    features = final_features(seen.model.m33d, seen.pair_states)
    for spec in seen.model.config.paired_specs:
        if "rgb" in features:
            results |= _retrieval(seen, spec, features)
        if seen.model.matching_head is not None:
            logits, labels = matching_logits(seen.model, seen.states or seen.pair_states, spec)
            results[f"matching_accuracy_{spec.name}"] = (logits.argmax(dim=-1) == labels).float().mean()
    return results


def _retrieval(seen: PreTrainingPass, spec: ModalitySpec, features: Tensors) -> Tensors:
    """Share of tokens that find their own place in the other modality, by chance, and in another sample's."""
    rgb, other = features["rgb"], features[spec.name]
    head, batch = seen.model.contrastive_head, seen.batch
    if head is not None:
        rgb, other = head.project("rgb", rgb), head.project(spec.name, other)
    keep_rgb, keep_other = batch.contrast_positions(spec)
    valid = batch.valid_tokens(spec)
    cosine = seen.model.config.contrastive_normalize
    hits, rows = retrieval_hits(rgb, other, keep_rgb, keep_other, valid, cosine)
    columns = valid.float().sum(dim=1).mean() if valid is not None else torch.tensor(float(keep_other.shape[1]))
    results = {
        f"retrieval_accuracy_{spec.name}": hits / rows.clamp_min(1),
        f"retrieval_chance_{spec.name}": 1.0 / columns.clamp_min(1).to(hits.device),
    }
    if batch.batch_size > 1:
        rolled = None if valid is None else valid.roll(1, dims=0)
        hits, rows = retrieval_hits(rgb, other.roll(1, dims=0), keep_rgb, keep_other.roll(1, dims=0), rolled, cosine)
        results[f"retrieval_accuracy_mismatched_{spec.name}"] = hits / rows.clamp_min(1)
    return results


def _hidden_latents(seen: PreTrainingPass) -> Tensors:
    """Loss of each modality with its own latents hidden from the decoder, and with them."""
    model, batch, states = seen.model, seen.batch, seen.states
    results: Tensors = {}
    for spec in model.config.target_specs:
        if model.decoder is None or spec.name not in states or len(states) < 2 or model.config.joint_encoding:
            continue  # nothing to hide, nothing else to see, or the other latents have seen it already
        for word, hidden in (("hidden", True), ("visible", False)):
            flags = torch.full((batch.batch_size,), hidden, dtype=torch.bool, device=batch.device)
            predictions, masked = model.decoder(states, batch.keep, batch.grid, {spec.name: flags})
            results[f"{spec.name}_loss_{word}"] = _mean(batch, spec, predictions, masked)
    return results


def _hidden_budget(seen: PreTrainingPass) -> Tensors:
    """Loss of each modality at the same masked tokens with its visible ones, and with none of it in the budget."""
    model, batch, inputs = seen.model, seen.batch, seen.model.config.input_specs
    results: Tensors = {}
    if model.decoder is None or JOINT not in batch.keep or len(inputs) < 2:
        return results
    for number, spec in enumerate(inputs):
        if not spec.is_target:
            continue
        unseen = {JOINT: budget_without(batch.keep[JOINT], number, len(inputs), batch.num_tokens)}
        for word, keep in (("hidden", unseen), ("visible", batch.keep)):
            states = model.m33d.encode(batch.inputs, keep) if word == "hidden" else seen.states
            predictions, masked = model.decoder(states, keep, batch.grid)
            results[f"{spec.name}_loss_{word}"] = _mean(batch, spec, predictions, masked)
    return results


def _mean(batch: PreTrainingBatch, spec: ModalitySpec, predictions: Tensors, masked: Tensors) -> torch.Tensor:
    total, count = reconstruction(batch, spec, predictions[spec.name], masked[spec.name])
    return total / count.clamp_min(1)
