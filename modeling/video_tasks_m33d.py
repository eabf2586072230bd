# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning models on RGB clips: classification of one clip, and phases of a whole video by a recurrent net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_m33d import refuse_unknown_arguments
from .batch_checks_m33d import check_class_ids
from .configuration_m33d import M33DConfig
from .encoder_m33d import as_clip
from .errors_m33d import ConfigError, DataError
from .recurrence_m33d import recur
from .states_m33d import states_are_wanted
from .task_base_m33d import M33DTaskModel, needed_pixels
from .task_losses_m33d import classification_loss

IGNORED_LABEL = 255  # clips without an annotation


@dataclass
class M33DVideoClassifierOutput(ImageClassifierOutput):
    """Classification output.

    Args:
        loss: scalar, mean cross-entropy over the labelled clips.
        logits: (B, L).
        features: (B, D), normed mean of the tokens: what the classifier reads and the temporal model keeps.
        loss_sums, loss_counts: {"cross_entropy": scalar}, numerator and denominator of the loss.
    """

    features: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


@dataclass
class M33DVideoActionDetectionOutput(ImageClassifierOutput):
    """Detection output.

    Args:
        loss: scalar, mean cross-entropy of the temporal model over the labelled clips.
        logits: (B, S, L) of the temporal model, one row per clip of the video.
        clip_logits: (B, S, L) of the clip classifier, which sees one clip at a time.
        features: (B, S, D) of the clips.
        hidden_states, attentions: (B * S, N, D) and (B * S, heads, N, N) of the clips, those of a video one after the
            other, on request; empty where features were given instead of pixels.
        loss_sums, loss_counts: {"cross_entropy": scalar}, numerator and denominator of the loss.
    """

    clip_logits: Tensor | None = None
    features: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


class M33DClipModel(M33DTaskModel):
    """Encoder, mean pooling with its own norm, and a linear clip classifier, as VideoMAE."""

    class_weights: Tensor | None

    def __init__(self, config: M33DConfig) -> None:
        # The pre-training's final norm is left out: pooled features have a norm of their own, which starts fresh.
        super().__init__(config, final_norm=False)
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

    def encode_clips(self, pixel_values: Tensor, recorded: bool = False) -> Tensor:
        """Normed mean of the tokens of each clip.

        Args:
            pixel_values: (B, T, 3, H, W) or (B, 3, H, W) normalised RGB; any T and sides that fit tubelet and patch.
            recorded: see `M33DModel.encode`.

        Returns:
            (B, D).
        """
        # Not through the encoder's forward: hidden states belong to the output of the model that was called.
        pixels = as_clip(pixel_values, self.config.spec("rgb"), self.config)
        tokens = self.m33d.encode({"rgb": pixels}, recorded=recorded)["rgb"]
        return self.fc_norm(self.m33d.without_cls(tokens).mean(dim=1))

    def _loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """(loss, sums, counts) of rows (N, L) against class ids (N,) or soft targets (N, L).

        Raises:
            DataError: labels of another shape than the rows, or integers that are not int64.
            LabelError: ids outside the classes.
        """
        if labels.shape != logits.shape[: labels.ndim] or labels.is_floating_point() != (labels.ndim == 2):
            raise DataError(
                f"labels have shape {tuple(labels.shape)} and type {labels.dtype}, but logits {tuple(logits.shape)}: "
                "pass "
                "one class id per clip, or float target probabilities of the shape of the logits."
            )
        if not labels.is_floating_point():
            check_class_ids(labels, logits.shape[1], IGNORED_LABEL)
        weights = self.class_weights if self.training else None
        total, count = classification_loss(logits.float(), labels, IGNORED_LABEL, weights)
        count = count.float()
        return total / count.clamp_min(1), {"cross_entropy": total}, {"cross_entropy": count}


class _ClassifierHead(nn.Linear):
    """A linear head; a class of its own so that initialisation can tell it from other layers."""


class M33DForVideoClassification(M33DClipModel):
    """One label per clip: action recognition, and the first stage of surgical action detection."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *(M33DTaskModel._keys_to_ignore_on_load_unexpected or []),
        r"^(gru|temporal_classifier)\.",
    ]

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> M33DVideoClassifierOutput:
        """Classify clips.

        Args:
            pixel_values: (B, T, 3, H, W) normalised RGB, T a multiple of the tubelet, sides multiples of the patch;
                (B, 3, H, W) is a clip of one repeated frame.
            labels: (B,) int64 class ids, 255 where unknown, or (B, L) float target probabilities.

        Raises:
            ConfigError: an argument nobody knows.
            DataError: inputs or labels of the wrong shape.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values", "labels"])
        features = self.encode_clips(needed_pixels(pixel_values), states_are_wanted(self.config, kwargs))
        logits = self.classifier(self.dropout(features))
        if labels is None:
            return M33DVideoClassifierOutput(logits=logits, features=features)
        loss, sums, counts = self._loss(logits, labels)
        return M33DVideoClassifierOutput(
            loss=loss, logits=logits, features=features, loss_sums=sums, loss_counts=counts
        )


class M33DForVideoActionDetection(M33DClipModel):
    """One label per clip of a long video: a Bi-GRU over the features of all its clips (paper Sec. 4.2.2, App. B.1).

    Encoder, norm and clip classifier come from the first stage and stay as they are; recurrent net and its classifier
    are trained on features extracted once. With `temporal_causal` the net runs forwards only, so that the label of a
    clip depends on nothing that comes later.
    """

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        width, layers = config.temporal_hidden_size, config.temporal_num_layers
        self.gru = nn.GRU(
            config.hidden_size,
            width,
            layers,
            batch_first=True,
            dropout=config.temporal_dropout if layers > 1 else 0.0,  # torch drops between layers only
            bidirectional=not config.temporal_causal,
        )
        self.temporal_dropout = nn.Dropout(config.temporal_dropout)
        directions = 1 if config.temporal_causal else 2
        self.temporal_classifier = nn.Linear(width * directions, config.num_labels or 0)
        self._frozen = False
        self.post_init()

    def freeze_encoder(self) -> M33DForVideoActionDetection:
        """Leave only the recurrent net and its classifier trainable; the rest stays in eval mode. Returns itself."""
        self._frozen = True
        for part in (self.m33d, self.fc_norm, self.classifier):
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> M33DForVideoActionDetection:
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        if self._frozen:
            for part in (self.m33d, self.fc_norm, self.classifier):
                part.eval()
        return self

    def temporal(
        self, features: Tensor, attention_mask: Tensor | None = None, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of every clip from the features of all of them.

        Args:
            features: (B, S, D), clips in the order of time.
            attention_mask: (B, S) bool, False for padding at the end and for clips that could not be read; what lies
                there changes nothing but, for unreadable clips inside a video, a step over zeros.
            state: (layers, B, width) of a causal model at the end of what came before; None starts a video.

        Returns:
            (B, S, L) logits, and the final state, which a causal model takes to go on.

        Raises:
            ConfigError: a state for a model that reads both directions.
            DataError: features that are not (B, S, D), a mask of another shape, no video, or one without clips.
        """
        if state is not None and not self.config.temporal_causal:
            raise ConfigError(
                "a bidirectional GRU reads the whole video at once; to pass a state, use a model with temporal_causal "
                "True."
            )
        width = self.config.hidden_size
        if features.ndim != 3 or features.shape[-1] != width or features.shape[0] == 0 or features.shape[1] == 0:
            raise DataError(
                f"features have shape {tuple(features.shape)}, expected (B, S, {width}) with at least one video "
                "and one clip."
            )
        if attention_mask is not None and attention_mask.shape != features.shape[:2]:
            raise DataError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, but features have {tuple(features.shape)}: "
                "pass one value per clip, (B, S)."
            )
        with maybe_autocast(features.device.type, enabled=False):  # short sums over long sequences stay float32
            states, last = recur(self.gru, features.to(self.temporal_classifier.weight.dtype), attention_mask, state)
            return self.temporal_classifier(self.temporal_dropout(states)), last

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> M33DVideoActionDetectionOutput:
        """Detect the phases of videos, given as clips or as features of clips.

        Args:
            pixel_values: (B, S, T, 3, H, W) normalised RGB, the S clips of each video in the order of time. They are
                encoded one after another; `m33d_hf.inference` streams videos that do not fit into memory.
            features: (B, S, D) of `encode_clips` instead of pixels.
            attention_mask: (B, S) bool, see `temporal`.
            labels: (B, S) int64 class ids, 255 where nothing is annotated or where there is padding.

        Raises:
            ConfigError: an argument nobody knows, or not exactly one of pixels and features.
            DataError: inputs or labels of the wrong shape.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values", "features", "attention_mask", "labels"])
        if (pixel_values is None) == (features is None):
            raise ConfigError("forward requires either pixel_values (B, S, T, 3, H, W) or features (B, S, D).")
        if features is None:
            features = self._encode_videos(needed_pixels(pixel_values), states_are_wanted(self.config, kwargs))
        logits, _ = self.temporal(features, attention_mask)
        clip_logits = self.classifier(features.to(self.classifier.weight.dtype))
        if labels is None:
            return M33DVideoActionDetectionOutput(logits=logits, clip_logits=clip_logits, features=features)
        if labels.shape != logits.shape[:2]:
            raise DataError(f"labels have shape {tuple(labels.shape)}, expected (B, S) = {tuple(logits.shape[:2])}.")
        loss, sums, counts = self._loss(logits.flatten(0, 1), labels.flatten())
        return M33DVideoActionDetectionOutput(
            loss=loss, logits=logits, clip_logits=clip_logits, features=features, loss_sums=sums, loss_counts=counts
        )

    def _encode_videos(self, pixel_values: Tensor, recorded: bool) -> Tensor:
        if pixel_values.ndim != 6 or pixel_values.shape[0] == 0 or pixel_values.shape[1] == 0:
            raise DataError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected (B, S, T, 3, H, W) with at least one "
                "video and one clip."
            )
        batch, clips = pixel_values.shape[:2]
        if recorded:
            return self.encode_clips(pixel_values.flatten(0, 1), True).unflatten(0, (batch, clips))
        return torch.stack([self.encode_clips(clips) for clips in pixel_values.unbind(dim=1)], dim=1)

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Number of labelled clips, without a forward pass."""
        return {"cross_entropy": (labels != IGNORED_LABEL).sum().float()}
