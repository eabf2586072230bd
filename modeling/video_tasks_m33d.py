# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning models on clips: classification of one clip, and phases of a whole video by a temporal model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_m33d import refuse_unknown_arguments
from .cameras_m33d import mean_of_cameras
from .clip_model_m33d import IGNORED_LABEL, M33DClipModel
from .configuration_m33d import M33DConfig
from .errors_m33d import ConfigError, DataError
from .sequences_m33d import without_unreadable
from .states_m33d import states_are_wanted
from .task_base_m33d import M33DTaskModel
from .temporal_convolutions_m33d import smoothing_loss
from .temporal_model_m33d import M33DTemporalModel


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
        loss: scalar, mean cross-entropy of the temporal model over the labelled clips; of a temporal convolutional
            network that of all stages added up, and the smoothing loss.
        logits: (B, S, L) of the temporal model, one row per clip of the video.
        clip_logits: (B, S, L) of the clip classifier, which sees one clip at a time; of several cameras by their mean.
        features: (B, S, D) of the clips.
        hidden_states, attentions: (B * S, N, D) and (B * S, heads, N, N) of the clips, those of a video one after the
            other, on request; empty where features were given instead of pixels.
        loss_sums, loss_counts: {"cross_entropy": scalar}, numerator and denominator of the loss; of a temporal
            convolutional network also "earlier_stages" and "smoothing", see `loss_weights`.
    """

    clip_logits: Tensor | None = None
    features: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


class M33DForVideoClassification(M33DClipModel):
    """One label per clip: action recognition, and the first stage of surgical action detection."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *(M33DTaskModel._keys_to_ignore_on_load_unexpected or []),
        r"^(gru|tcn|refinement_stages|temporal_transformer|temporal_classifier)\.",
    ]

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        depth_values: Tensor | None = None,
        depth_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> M33DVideoClassifierOutput:
        """Classify clips.

        Args:
            pixel_values: (B, T, 3, H, W) normalised RGB, T a multiple of the tubelet, sides multiples of the patch;
                (B, 3, H, W) is a clip of one repeated frame.
            labels: (B,) int64 class ids, 255 where unknown, or (B, L) float target probabilities.
            depth_values: (B, T, 1, H, W) standardised depth for a model whose `task_inputs` have it; None: there is
                none.
            depth_mask: bool of that shape, the pixels with depth; None: all that are finite.

        Raises:
            ConfigError: an argument nobody knows, no input, or one that the model does not have.
            DataError: inputs or labels of the wrong shape.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values", "labels", "depth_values", "depth_mask"])
        recorded = states_are_wanted(self.config, kwargs)
        features = self.encode_clips(pixel_values, depth_values, depth_mask, recorded=recorded)
        logits = self.classifier(self.dropout(features))
        if labels is None:
            return M33DVideoClassifierOutput(logits=logits, features=features)
        loss, sums, counts = self._loss(logits, labels)
        return M33DVideoClassifierOutput(
            loss=loss, logits=logits, features=features, loss_sums=sums, loss_counts=counts
        )


class M33DForVideoActionDetection(M33DTemporalModel):
    """One label per clip of a long video: a temporal model over the features of all its clips, in the paper a Bi-GRU
    (Sec. 4.2.2, App. B.1); `temporal_model` chooses another.

    Encoder, norm and clip classifier come from the first stage and stay as they are; temporal model and its classifier
    are trained on features extracted once. With `temporal_causal` the label of a clip depends on nothing that comes
    later, and `step` takes one clip after the other.
    """

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        self._frozen = False
        self.post_init()

    @property
    def loss_weights(self) -> dict[str, float]:
        """Cross-entropy of the (last) stage; of a temporal convolutional network also "earlier_stages", the sum of
        theirs, and "smoothing", that of all stages, where the configuration has any."""
        config = self.config
        weights = {"cross_entropy": 1.0}
        if config.temporal_model == "tcn" and config.temporal_tcn_stages > 1:
            weights["earlier_stages"] = 1.0
        if config.temporal_model == "tcn" and config.temporal_tcn_smoothing > 0:
            weights["smoothing"] = float(config.temporal_tcn_smoothing)
        return weights

    def freeze_encoder(self) -> M33DForVideoActionDetection:
        """Leave only the temporal model and its classifier trainable; the rest stays in eval mode. Returns itself."""
        self._frozen = True
        for part in self._first_stage():
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> M33DForVideoActionDetection:
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        if self._frozen:
            for part in self._first_stage():
                part.eval()
        return self

    def _first_stage(self) -> list[nn.Module]:
        """Its parts, which stay as they are."""
        fusion = [] if self.task_fusion is None else [self.task_fusion]
        return [self.m33d, *fusion, self.fc_norm, self.classifier]

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        depth_values: Tensor | None = None,
        depth_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> M33DVideoActionDetectionOutput:
        """Detect the phases of videos, given as clips or as features of clips.

        Args:
            pixel_values: (B, S, T, 3, H, W) normalised RGB, the S clips of each video in the order of time. They are
                encoded one after another; `m33d_hf.inference` streams videos that do not fit into memory.
            features: (B, S, D) of `encode_clips` instead of pixels; a model with `temporal_cameras` takes only these,
                of all cameras, (B, S, C * (D + 1)) of `joined_cameras`.
            attention_mask: (B, S) bool, see `temporal`.
            labels: (B, S) int64 class ids, 255 where nothing is annotated or where there is padding.
            depth_values: (B, S, T, 1, H, W) standardised depth of the clips, for a model whose `task_inputs` have it.
            depth_mask: bool of that shape, the pixels with depth; None: all that are finite.

        Raises:
            ConfigError: an argument nobody knows, not exactly one of clips and features, or an input that the model
                does not have.
            DataError: inputs or labels of the wrong shape.
        """
        known = ["pixel_values", "features", "attention_mask", "labels", "depth_values", "depth_mask"]
        refuse_unknown_arguments(kwargs, known)
        if (pixel_values is None and depth_values is None) == (features is None):
            raise ConfigError("forward requires either pixel_values (B, S, T, 3, H, W) or features (B, S, D).")
        cameras = self.config.temporal_cameras
        if features is None:
            if cameras is not None:
                raise ConfigError(
                    f"this model reads the cameras {', '.join(cameras)} together: encode the clips of each, and pass "
                    "features made by joined_cameras instead of pixels."
                )
            clips = {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}
            features = self._encode_videos(clips, states_are_wanted(self.config, kwargs))
        stages, _ = self.temporal_stages(features, attention_mask, None)
        logits = stages[-1]
        seen = features if cameras is None else mean_of_cameras(features, len(cameras))
        clip_logits = self.classifier(seen.to(self.classifier.weight.dtype))
        if labels is None:
            return M33DVideoActionDetectionOutput(logits=logits, clip_logits=clip_logits, features=features)
        if labels.shape != logits.shape[:2]:
            raise DataError(f"labels have shape {tuple(labels.shape)}, expected (B, S) = {tuple(logits.shape[:2])}.")
        loss, sums, counts = self._stage_losses(stages, labels, attention_mask)
        return M33DVideoActionDetectionOutput(
            loss=loss, logits=logits, clip_logits=clip_logits, features=features, loss_sums=sums, loss_counts=counts
        )

    def _stage_losses(
        self, stages: list[Tensor], labels: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """(loss, sums, counts) of every term of `loss_weights`."""
        losses = [self._loss(logits.flatten(0, 1), labels.flatten()) for logits in stages]
        loss, sums, counts = losses[-1]
        if "earlier_stages" in self.loss_weights:
            sums["earlier_stages"] = torch.stack([each[1]["cross_entropy"] for each in losses[:-1]]).sum()
            counts["earlier_stages"] = counts["cross_entropy"]
            loss = loss + torch.stack([each[0] for each in losses[:-1]]).sum()
        if "smoothing" in self.loss_weights:
            _, lengths = without_unreadable(stages[-1], attention_mask)
            found = [smoothing_loss(each, lengths, self.config.temporal_tcn_smoothing_limit) for each in stages]
            sums["smoothing"], counts["smoothing"] = torch.stack([total for total, _ in found]).sum(), found[0][1]
            loss = loss + self.loss_weights["smoothing"] * sums["smoothing"] / counts["smoothing"].clamp_min(1)
        return loss, sums, counts

    def _encode_videos(self, clips: dict[str, Tensor | None], recorded: bool) -> Tensor:
        given = {name: each for name, each in clips.items() if each is not None}
        lead = next(iter(given.values())).shape[:2]
        for name, each in given.items():
            if each.ndim != 6 or each.shape[0] == 0 or each.shape[1] == 0 or each.shape[:2] != lead:
                channels = 3 if name == "pixel_values" else 1
                raise DataError(
                    f"{name} has shape {tuple(each.shape)}, expected (B, S, T, {channels}, H, W) with at least one "
                    "video and one clip, as many of each for all inputs."
                )
        if recorded:
            flat = {name: each.flatten(0, 1) for name, each in given.items()}
            return self._encode_named(flat, recorded=True).unflatten(0, tuple(lead))
        rows = [{name: each[:, clip] for name, each in given.items()} for clip in range(lead[1])]
        return torch.stack([self._encode_named(row) for row in rows], dim=1)

    def _encode_named(self, clips: dict[str, Tensor], recorded: bool = False) -> Tensor:
        names = ("pixel_values", "depth_values", "depth_mask")
        return self.encode_clips(*(clips.get(name) for name in names), recorded=recorded)

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Number of labelled clips, and of neighbouring ones where these are smoothed, without a forward pass."""
        counts = dict.fromkeys(self.loss_weights, (labels != IGNORED_LABEL).sum().float())
        if "smoothing" in counts:
            _, lengths = without_unreadable(labels[..., None], batch.get("attention_mask"))
            counts["smoothing"] = (lengths - 1).sum().float()
        return counts
