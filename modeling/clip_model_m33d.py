# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What models of clips share: encoder, pooling, clip classifier, and the loss of its classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .batch_checks_m33d import check_class_ids, refuse_ambiguous_ids
from .configuration_m33d import M33DConfig
from .encoder_m33d import as_clip
from .errors_m33d import ConfigError, DataError
from .task_base_m33d import RGB_ALONE, M33DTaskModel, needed_pixels
from .task_losses_m33d import classification_loss
from .temporal_attention_m33d import M33DWindowAttention

IGNORED_LABEL = 255  # clips without an annotation


class M33DClipModel(M33DTaskModel):
    """Encoder, mean pooling with its own norm, and a linear clip classifier, as VideoMAE."""

    class_weights: Tensor | None

    def __init__(self, config: M33DConfig) -> None:
        # The pre-training's final norm is left out: pooled features have a norm of their own, which starts fresh.
        super().__init__(config, final_norm=False, inputs=config.task_input_names)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.classifier = _ClassifierHead(config.hidden_size, config.num_labels or 0)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.register_buffer("class_weights", None, persistent=False)  # of a training, not of the model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the base; a fresh head starts near zero (VideoMAE), so that training starts from even probabilities."""
        if isinstance(module, _ClassifierHead):
            std = self.config.initializer_range * self.config.classifier_init_scale
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            bound = module.hidden_size**-0.5
            for weight in module.parameters():
                init.uniform_(weight, -bound, bound)
        elif isinstance(module, M33DWindowAttention):
            init.trunc_normal_(module.relative_positions, std=0.02)
            init.trunc_normal_(module.outside_token, std=0.02)
        else:
            super()._init_weights(module)

    @property
    def loss_weights(self) -> dict[str, float]:
        """One term."""
        return {"cross_entropy": 1.0}

    def weigh_classes(self, weights: Tensor | None) -> None:
        """Count the loss of each class by a factor while training; evaluations, and what is saved, know nothing of it.

        Args:
            weights: (L,) at least 0; None: all alike.

        Raises:
            ConfigError: another number of weights than classes, or a negative or infinite one.
        """
        number = self.classifier.out_features
        if weights is not None and (weights.shape != (number,) or not (weights.isfinite() & (weights >= 0)).all()):
            raise ConfigError(f"class weights {weights.tolist()}: expected {number} finite numbers of at least 0.")
        self.class_weights = None if weights is None else weights.float().to(self.classifier.weight.device)

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Number of labelled clips, without a forward pass."""
        count = labels.new_tensor(len(labels)) if labels.is_floating_point() else (labels != IGNORED_LABEL).sum()
        return {"cross_entropy": count.float()}

    def encode_clips(
        self,
        pixel_values: Tensor | None = None,
        depth_values: Tensor | None = None,
        depth_mask: Tensor | None = None,
        *,
        recorded: bool = False,
    ) -> Tensor:
        """Normed mean of the tokens of each clip, fused where there are two inputs.

        Args:
            pixel_values: (B, T, 3, H, W) or (B, 3, H, W) normalised RGB; any T and sides that fit tubelet and patch.
            depth_values: (B, T, 1, H, W) or (B, 1, H, W) standardised depth for a model whose `task_inputs` have it.
            depth_mask: bool of that shape, the pixels with depth; None: all that are finite.
            recorded: see `M33DModel.encode`.

        Returns:
            (B, D).

        Raises:
            ConfigError, DataError: see `given_inputs`.
        """
        # Not through the encoder's forward: hidden states belong to the output of the model that was called.
        if self.task_inputs != RGB_ALONE or depth_values is not None or depth_mask is not None:
            inputs, seen_BN = self.given_inputs(pixel_values, depth_values, depth_mask)
            return self.fc_norm(self.encode_inputs(inputs, seen_BN, recorded).mean(dim=1))
        pixel_values = needed_pixels(pixel_values)
        pixels = as_clip(pixel_values, self.config.spec("rgb"), self.config)
        tokens = self.m33d.encode({"rgb": pixels}, recorded=recorded)["rgb"]
        return self.fc_norm(self.m33d.without_cls(tokens).mean(dim=1))

    def _loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """(loss, sums, counts) of rows (N, L) against class ids (N,) or soft targets (N, L).

        Raises:
            DataError: labels of another shape than the rows, or integers that are not int64.
            LabelError: ids outside the classes, or 255 where that is a class as well.
        """
        if labels.shape != logits.shape[: labels.ndim] or labels.is_floating_point() != (labels.ndim == 2):
            raise DataError(
                f"labels have shape {tuple(labels.shape)} and type {labels.dtype}, but logits {tuple(logits.shape)}: "
                "pass "
                "one class id per clip, or float target probabilities of the shape of the logits."
            )
        if not labels.is_floating_point():
            check_class_ids(labels, logits.shape[1], IGNORED_LABEL)
            refuse_ambiguous_ids(labels, logits.shape[1], IGNORED_LABEL)
        weights = self.class_weights if self.training else None
        total, count = classification_loss(logits.float(), labels, IGNORED_LABEL, weights)
        count = count.float()
        return total / count.clamp_min(1), {"cross_entropy": total}, {"cross_entropy": count}


class _ClassifierHead(nn.Linear):
    """A linear head; a class of its own so that initialisation can tell it from other layers."""
