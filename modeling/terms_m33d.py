# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The loss terms of pre-training, one class each: a name, a weight, a denominator known beforehand, and a total.

A new term is a class here and its place in `KINDS`; its weight is a field of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from .batch_m33d import PreTrainingBatch
from .configuration_m33d import M33DConfig, ModalitySpec
from .decoder_m33d import M33DDecoder
from .errors_m33d import ConfigError
from .heads_m33d import M33DContrastiveHead
from .losses_m33d import (
    batch_contrastive_loss,
    contrastive_loss,
    distillation_loss,
    fuse_pair,
    global_embedding,
    matching_loss,
    matching_pairs,
    mismatched_partners,
    normalize_patches,
    reconstruction_count,
    reconstruction_loss,
)
from .modalities_m33d import noise_term
from .modeling_m33d import GLOBAL, M33DModel
from .multimae_decoder_m33d import M33DTargetDecoders

Tensors = dict[str, torch.Tensor]
# A numerator and its denominator.
Sums = tuple[torch.Tensor, torch.Tensor]


class PreTrainingParts(Protocol):
    """What terms use of M33DForPreTraining."""

    config: M33DConfig
    training: bool
    m33d: M33DModel
    decoder: M33DDecoder | M33DTargetDecoders | None
    contrastive_head: M33DContrastiveHead | None
    matching_head: nn.ModuleDict | None


@dataclass
class PreTrainingPass:
    """A batch and what the model made of it.

    Attributes:
        model: the parts that saw it.
        batch: pixels, masks and positions.
        states: name -> (B, V, D) encoded visible tokens, class token included; empty when no term asks for them.
        pair_states: likewise, as the contrastive term compares them.
        predictions: name -> (B, K, P) of the decoder; masked: name -> (B, K) their positions. Empty without one.
        teacher_features: name -> (B, D) embeddings of the distilled teacher.
    """

    model: PreTrainingParts
    batch: PreTrainingBatch
    states: Tensors
    pair_states: Tensors
    predictions: Tensors
    masked: Tensors
    teacher_features: Tensors | None = None


class LossTerm:
    """One term of the pre-training loss.

    Attributes:
        name: its key in every dictionary of losses.
        weight: its factor in the total (Eq. 5 to 7).
        needs_states: whether it reads `PreTrainingPass.states`; without any that does, that pass is not made.
    """

    name: str
    weight: float
    needs_states: bool = True

    @classmethod
    def of(cls, config: M33DConfig) -> Sequence[LossTerm]:
        """The terms of this kind that a configuration asks for."""
        raise TypeError(f"{cls.__name__} does not implement `of`")

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        """The denominator, a scalar that needs no forward pass."""
        raise TypeError(f"{type(self).__name__} does not implement `count`")

    def total(self, seen: PreTrainingPass) -> Sums:
        """Numerator and denominator, scalars."""
        raise TypeError(f"{type(self).__name__} does not implement `total`")


class ReconstructionTerm(LossTerm):
    """Masked patches of a modality, predicted (Eq. 1 and 2)."""

    def __init__(self, config: M33DConfig, spec: ModalitySpec) -> None:
        self.name, self.weight = spec.name, float(spec.weight)
        self.config, self.spec = config, spec

    @classmethod
    def of(cls, config: M33DConfig) -> list[ReconstructionTerm]:
        return [cls(config, spec) for spec in config.target_specs]

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        spec, index = self.spec, batch.masked_index(self.spec)
        shape = torch.Size((batch.batch_size, index.shape[1], self.config.patch_dim(spec)))
        counted = batch.counted_values(spec, batch.valid_patches(spec, index))
        return reconstruction_count(shape, spec.loss, counted, self.config.loss_reduction, batch.device)

    def total(self, seen: PreTrainingPass) -> Sums:
        return reconstruction(seen.batch, self.spec, seen.predictions[self.name], seen.masked[self.name])


class DenoisingTerm(LossTerm):
    """The noise that was added to a modality's visible patches, predicted (the authors' follow-up)."""

    def __init__(self, config: M33DConfig, spec: ModalitySpec) -> None:
        self.name, self.weight = noise_term(spec.name), float(spec.denoising_weight)
        self.config, self.spec = config, spec

    @classmethod
    def of(cls, config: M33DConfig) -> list[DenoisingTerm]:
        return [cls(config, spec) for spec in config.denoised_specs]

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        if self.spec.name not in batch.noise:  # evaluation: nothing was added
            return torch.zeros((), device=batch.device)
        shape = torch.Size((*batch.keep[self.spec.name].shape, self.config.patch_dim(self.spec)))
        values = batch.noisy_values(self.spec)
        return reconstruction_count(shape, "mse", values, self.config.loss_reduction, batch.device)

    def total(self, seen: PreTrainingPass) -> Sums:
        batch, spec = seen.batch, self.spec
        if spec.name not in batch.noise:
            return torch.zeros((), device=batch.device), self.count(batch)
        prediction, noise = seen.predictions[self.name], batch.noise_patches(spec)
        return reconstruction_loss(prediction, noise, "mse", batch.noisy_values(spec), self.config.loss_reduction)


class ContrastiveTerm(LossTerm):
    """Patch-level InfoNCE between RGB and every other input (Eq. 3)."""

    name = "contrastive"
    needs_states = False  # it reads pair_states

    def __init__(self, config: M33DConfig) -> None:
        self.weight, self.config = float(config.contrastive_weight), config

    @classmethod
    def of(cls, config: M33DConfig) -> list[ContrastiveTerm]:
        return [cls(config)] if config.contrastive_weight > 0 else []

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        rows = [batch.pairs_with_rgb(spec).any(dim=2).sum().float() for spec in self.config.paired_specs]
        return torch.stack(rows).sum()

    def total(self, seen: PreTrainingPass) -> Sums:
        head = seen.model.contrastive_head
        assert head is not None  # built where this term is active
        without_cls, states = seen.model.m33d.without_cls, seen.pair_states
        rgb, temperature = head.project("rgb", without_cls(states["rgb"])), head.current_temperature()
        totals = []
        for spec in self.config.paired_specs:
            other = head.project(spec.name, without_cls(states[spec.name]))
            keep_rgb, keep_other = seen.batch.contrast_positions(spec)
            totals.append(
                self._loss(seen.model.training)(
                    rgb, other, keep_rgb, keep_other, seen.batch.valid_tokens(spec), temperature
                )
            )
        return _added(totals)

    def _loss(self, training: bool) -> Callable[..., Sums]:
        config = self.config
        if config.contrastive_negatives == "batch":
            return partial(batch_contrastive_loss, normalize=config.contrastive_normalize, over_ranks=training)
        return partial(
            contrastive_loss, normalize=config.contrastive_normalize, symmetric=config.contrastive_symmetric
        )


class MatchingTerm(LossTerm):
    """Whether RGB and another modality belong together (Eq. 4)."""

    name = "matching"

    def __init__(self, config: M33DConfig) -> None:
        self.weight, self.config = float(config.matching_weight), config

    @classmethod
    def of(cls, config: M33DConfig) -> list[MatchingTerm]:
        return [cls(config)] if config.matching_weight > 0 else []

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        pairs = matching_pairs(batch.batch_size, self.config.num_matching_negatives) * len(self.config.paired_specs)
        return torch.full((), float(pairs), device=batch.device)

    def total(self, seen: PreTrainingPass) -> Sums:
        states = seen.states or seen.pair_states
        totals = [matching_loss(*matching_logits(seen.model, states, spec)) for spec in self.config.paired_specs]
        if seen.batch.batch_size < 2:
            # One sample has no mismatched partner; the head stays in the graph with a zero gradient.
            totals = [(total * 0.0, count * 0.0) for total, count in totals]
        return _added(totals)


class DistillationTerm(LossTerm):
    """The student's embeddings of what it sees drawn to a teacher's (the authors' follow-up)."""

    name = "distillation"

    def __init__(self, config: M33DConfig) -> None:
        self.weight, self.config = float(config.distillation_weight), config

    @classmethod
    def of(cls, config: M33DConfig) -> list[DistillationTerm]:
        return [cls(config)] if config.distillation_weight > 0 else []

    def count(self, batch: PreTrainingBatch) -> torch.Tensor:
        values = batch.batch_size * self.config.hidden_size * len(self.config.input_specs)
        return torch.full((), float(values), device=batch.device)

    def total(self, seen: PreTrainingPass) -> Sums:
        names, teacher = [spec.name for spec in self.config.input_specs], seen.teacher_features
        device = seen.states[names[0]].device
        if teacher is None and not seen.model.training:
            return torch.zeros((), device=device), torch.zeros((), device=device)
        missing = [name for name in names if name not in (teacher or {})]
        if missing:
            raise ConfigError(
                f"forward requires teacher_features of {missing}, because distillation_weight is "
                f"{self.config.distillation_weight}; pass them (embed_globally of the teacher) or set it to 0."
            )
        features = final_features(seen.model.m33d, seen.states)
        totals = [distillation_loss(global_embedding(features[name]), (teacher or {})[name]) for name in names]
        return torch.stack([total for total, _ in totals]).sum(), torch.stack([count for _, count in totals]).sum()


KINDS: tuple[type[LossTerm], ...] = (ReconstructionTerm, DenoisingTerm, ContrastiveTerm, MatchingTerm, DistillationTerm)


def active_terms(config: M33DConfig) -> list[LossTerm]:
    """The terms that a configuration asks for, in the order in which they are computed."""
    return [term for kind in KINDS for term in kind.of(config)]


def _added(totals: Sequence[Sums]) -> Sums:
    return sum(total for total, _ in totals), sum(count for _, count in totals)  # type: ignore[return-value]


def reconstruction(
    batch: PreTrainingBatch, spec: ModalitySpec, prediction: torch.Tensor, index: torch.Tensor
) -> Sums:
    """Loss of predicted patches of a modality: `prediction` (B, K, P) at the positions `index` (B, K)."""
    valid = batch.valid_patches(spec, index)
    target = batch.target_patches(spec, index, valid)
    if spec.normalize_prediction:
        prediction = normalize_patches(prediction.float(), spec.target_norm, spec.channels, spec.target_eps, valid)
    counted = batch.counted_values(spec, valid)
    return reconstruction_loss(prediction, target, spec.loss, counted, batch.config.loss_reduction)


def matching_logits(
    model: PreTrainingParts, states: Tensors, spec: ModalitySpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """(M, 2) logits of the pairs of RGB and a modality, and (M,) 1 where they belong together; matched pairs first."""
    config = model.config
    assert model.matching_head is not None  # built where matching is active
    rgb, other = (_pooled(model, states[name]) for name in ("rgb", spec.name))
    size = rgb.shape[0]
    negatives = min(config.num_matching_negatives, size - 1)
    partners = mismatched_partners(size, negatives, config.matching_negatives, rgb.device, drawn=model.training)
    fused = [fuse_pair(rgb, other[partner], config.matching_fusion) for partner in partners]
    fused.insert(0, fuse_pair(rgb, other, config.matching_fusion))
    labels = torch.zeros(size * len(fused), dtype=torch.long, device=rgb.device)
    labels[:size].fill_(1)
    return model.matching_head[spec.name](torch.cat(fused)), labels


def _pooled(model: PreTrainingParts, states_BND: torch.Tensor) -> torch.Tensor:
    if model.config.matching_pool == "cls":
        return states_BND[:, 0]
    return model.m33d.without_cls(states_BND).mean(dim=1)


def final_features(model: M33DModel, states: Tensors) -> Tensors:
    """name -> (B, V, D) without class tokens and without the token that stands for the whole image."""
    return {name: model.without_cls(tokens) for name, tokens in states.items() if name != GLOBAL}
