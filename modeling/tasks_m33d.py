# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning models on images: semantic segmentation, from RGB, depth or both, and depth estimation from RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import DepthEstimatorOutput, SemanticSegmenterOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_m33d import refuse_unknown_arguments
from .batch_checks_m33d import check_class_ids
from .configuration_m33d import M33DConfig
from .depth_prior_m33d import M33DDepthPrior
from .errors_m33d import ConfigError, DataError
from .heads_m33d import (
    DPT_LEVELS,
    ConvNeXtSegmentationHead,
    DPTDepthHead,
    evenly_spaced_layers,
    scaled_stem_channels,
)
from .states_m33d import states_are_wanted
from .task_base_m33d import RGB_ALONE, M33DTaskModel, needed_pixels, single_frame
from .task_losses_m33d import (
    berhu_loss,
    berhu_threshold,
    cross_entropy_loss,
    l1_loss,
    silog_loss,
    valid_depth,
)

Threshold = Tensor | float | Callable[[Tensor], Tensor] | None


@dataclass
class M33DSemanticSegmenterOutput(SemanticSegmenterOutput):
    """Segmentation output.

    Args:
        loss: scalar, mean cross-entropy over the labelled pixels.
        logits: (B, L, H, W) at the size of the image.
        loss_sums, loss_counts: {"cross_entropy": scalar}, numerator and denominator of the loss.
    """

    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


@dataclass
class M33DDepthEstimatorOutput(DepthEstimatorOutput):
    """Depth output.

    Args:
        loss: scalar.
        predicted_depth: (B, H, W) metres; in eval mode clamped to [min_depth, max_depth] and, with
            `depth_prior_weight`, drawn towards the mean depth per position.
        standardized_depth: (B, H, W), (metres - depth_mean) / depth_std, what the head predicts; never
            clamped.
        loss_sums, loss_counts: {config.depth_loss: scalar}, numerator and denominator of the loss.
    """

    standardized_depth: Tensor | None = None
    loss_sums: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None


class M33DDenseModel(M33DTaskModel):
    """What dense task models share: they read raw blocks of the encoder of RGB, or of all `inputs`."""

    def __init__(self, config: M33DConfig, inputs: Sequence[str] = RGB_ALONE) -> None:
        super().__init__(config, config.head_norm, inputs)

    def _encode(
        self, pixel_values: Tensor, layers: list[int], recorded: bool = False
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """Return the block outputs (B, N, D) that the head reads, and the (h, w) grid; `recorded`: see
        `M33DModel.encode`.

        Raises:
            DataError: a clip instead of images.
        """
        pixel_values = single_frame(pixel_values, type(self).__name__)
        states, (_, height, width) = self.m33d.forward_intermediates(pixel_values, layers, recorded)
        if self.config.head_norm:
            encoder = self.m33d.encoders[self.config.encoder_name(self.config.spec("rgb"))]
            states = [encoder.normed(state) for state in states]  # type: ignore[operator]
        return states, (height, width)

    def _encode_last(
        self,
        pixel_values: Tensor | None,
        depth_values: Tensor | None,
        depth_mask: Tensor | None,
        recorded: bool,
    ) -> tuple[Tensor, tuple[int, int], torch.Size]:
        """Tokens (B, N, D) of the last block, fused where there are two inputs, the (h, w) grid, and (H, W).

        Raises:
            ConfigError, DataError: see `given_inputs`; clips instead of images.
        """
        reader = type(self).__name__
        if self.task_inputs == RGB_ALONE and depth_values is None and depth_mask is None:
            pixel_values = needed_pixels(pixel_values)
            states, grid = self._encode(pixel_values, [self.config.num_hidden_layers - 1], recorded)
            return states[0], grid, pixel_values.shape[-2:]
        given = {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}
        pictures = [None if each is None else single_frame(each, reader, name) for name, each in given.items()]
        inputs, seen_BN = self.given_inputs(*pictures)
        first = next(iter(inputs.values()))
        _, height, width = self.m33d.grid_of(first)
        return self.encode_inputs(inputs, seen_BN, recorded), (height, width), first.shape[-2:]


def _check_labels(labels: Tensor, batch: int, size: torch.Size) -> Tensor:
    """Return labels as (B, H, W).

    Raises:
        DataError: labels of another batch or size than the images.
    """
    if labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 3 or labels.shape[0] != batch or labels.shape[-2:] != size:
        raise DataError(
            f"labels have shape {tuple(labels.shape)}, expected ({batch}, {size[0]}, {size[1]}) as for the images."
        )
    return labels


class M33DForSemanticSegmentation(M33DDenseModel):
    """Encoders of `task_inputs` with the ConvNeXt segmentation head on the last block's raw output."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config, config.task_input_names)
        self.segmentation_head = ConvNeXtSegmentationHead(
            config.hidden_size,
            config.num_labels,  # type: ignore[arg-type]
            config.segmentation_head_width,
            config.segmentation_head_depth,
            config.segmentation_head_upscale,
        )
        self.post_init()

    @property
    def loss_weights(self) -> dict[str, float]:
        """One term."""
        return {"cross_entropy": 1.0}

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Number of labelled pixels, without a forward pass."""
        return {"cross_entropy": (labels != self.config.semantic_loss_ignore_index).sum().float()}

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        depth_values: Tensor | None = None,
        depth_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> M33DSemanticSegmenterOutput:
        """Segment images.

        Args:
            pixel_values: (B, 3, H, W) normalised RGB, sides multiples of the patch; (B, 1, 3, H, W) is the
                same.
            labels: (B, H, W) int64 class ids, `semantic_loss_ignore_index` where unlabelled.
            depth_values: (B, 1, H, W) standardised depth for a model whose `task_inputs` have it; None: there is none.
            depth_mask: bool of that shape, the pixels with depth; None: all that are finite.

        Raises:
            ConfigError: an argument nobody knows, no input, or one that the model does not have.
            DataError: clips, inputs that do not belong together, or labels of another batch, size or type; LabelError
                for ids outside the classes.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values", "labels", "depth_values", "depth_mask"])
        recorded = states_are_wanted(self.config, kwargs)
        tokens, grid, size = self._encode_last(pixel_values, depth_values, depth_mask, recorded)
        logits = self.segmentation_head(tokens, grid, size)
        if labels is None:
            return M33DSemanticSegmenterOutput(logits=logits)
        labels = _check_labels(labels, logits.shape[0], size)
        check_class_ids(labels, logits.shape[1], self.config.semantic_loss_ignore_index)
        total, count = cross_entropy_loss(logits.float(), labels, self.config.semantic_loss_ignore_index)
        count = count.float()
        return M33DSemanticSegmenterOutput(
            loss=total / count.clamp_min(1),
            logits=logits,
            loss_sums={"cross_entropy": total},
            loss_counts={"cross_entropy": count},
        )


class M33DForDepthEstimation(M33DDenseModel):
    """RGB encoder with the DPT head on four blocks' raw outputs; predicts standardised depth, reports
    metres.
    """

    def __init__(self, config: M33DConfig) -> None:
        if config.task_input_names != RGB_ALONE:
            raise ConfigError(
                f"task_inputs is {list(config.task_input_names)}, but depth is what depth estimation predicts: it sees "
                "RGB alone. Leave task_inputs out, or set it to [rgb]."
            )
        super().__init__(config)
        layers = config.depth_head_layers or evenly_spaced_layers(config.num_hidden_layers)
        if len(layers) != DPT_LEVELS or not all(0 <= layer < config.num_hidden_layers for layer in layers):
            raise ConfigError(
                f"depth_head_layers is {layers}; it must have {DPT_LEVELS} block indices from 0 to "
                f"{config.num_hidden_layers - 1}."
            )
        self.layers = list(layers)
        stems = config.depth_head_stem_channels or scaled_stem_channels(config.hidden_size)
        self.depth_head = DPTDepthHead(config.hidden_size, config.depth_head_width, stems)
        self.depth_prior: M33DDepthPrior | None = None
        if config.depth_prior_weight:
            size, start = config.image_height_width, max(config.depth_mean, config.min_depth)
            self.depth_prior = M33DDepthPrior(config.depth_prior_weight, size, start)
        self.post_init()

    @property
    def loss_weights(self) -> dict[str, float]:
        """One term, named after `config.depth_loss`."""
        return {self.config.depth_loss: 1.0}

    def loss_counts(self, labels: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Number of valid pixels (of images with one, for "silog"), without a forward pass."""
        valid = valid_depth(labels)
        if self.config.depth_loss == "silog":
            valid = valid.flatten(1).any(dim=1)
        return {self.config.depth_loss: valid.sum().float()}

    def standardize(self, depth: Tensor) -> Tensor:
        """Metres to the values that the head predicts; NaN stays NaN."""
        return (depth.float() - self.config.depth_mean) / self.config.depth_std

    def berhu_threshold(self, standardized_depth: Tensor, labels: Tensor) -> Tensor:
        """berHu's threshold over a batch: a trainer takes the maximum over parts and passes it to
        `forward`.
        """
        labels = _check_labels(labels, len(standardized_depth), standardized_depth.shape[-2:])
        return berhu_threshold(standardized_depth.float(), self.standardize(labels), valid_depth(labels))

    def _loss(self, values: Tensor, labels: Tensor, threshold: Threshold) -> tuple[Tensor, Tensor]:
        valid, config = valid_depth(labels), self.config
        if config.depth_loss == "silog":
            metres = values * config.depth_std + config.depth_mean
            return silog_loss(metres, labels.float(), valid, config.min_depth, config.max_depth)
        target = self.standardize(labels)
        if config.depth_loss == "l1":
            return l1_loss(values, target, valid)
        if callable(threshold):
            threshold = threshold(berhu_threshold(values, target, valid))
        return berhu_loss(values, target, valid, threshold)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        berhu_threshold: Threshold = None,
        depth_prior_view: Tensor | None = None,
        **kwargs: Any,
    ) -> M33DDepthEstimatorOutput:
        """Estimate depth.

        Args:
            pixel_values: (B, 3, H, W) normalised RGB, sides multiples of the patch; (B, 1, 3, H, W) is the
                same.
            labels: (B, H, W) metres; not finite or not above 0 is invalid and takes no part in the loss.
            berhu_threshold: threshold of the berHu loss in standardised units; None takes this batch's own; a function
                gets that one and returns the one to use (a maximum over ranks).
            depth_prior_view: (B, 4), for a model with `depth_prior_weight` that sees parts of pictures, or mirrored
                ones: top, left, bottom and right in shares of the whole picture, see `M33DDepthPrior.depth_at`. None:
                whole pictures as the processor prepares them. Without a prior it changes nothing.

        Raises:
            ConfigError: an argument nobody knows.
            DataError: clips, labels of another batch or size, or a view that is none.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values", "labels", "berhu_threshold", "depth_prior_view"])
        pixel_values = needed_pixels(pixel_values)
        size, config = pixel_values.shape[-2:], self.config
        states, grid = self._encode(pixel_values, self.layers, states_are_wanted(config, kwargs))
        values = self.depth_head(states, grid, size)
        metres = values.float() * config.depth_std + config.depth_mean
        if not self.training:  # while training a clamp would hide pixels from whoever builds a loss on the metres
            metres = metres.clamp(config.min_depth, config.max_depth)
            if self.depth_prior is not None:
                metres = self.depth_prior(metres, depth_prior_view)
        # Not the head's type: under autocast bfloat16 would round eight metres to steps of three centimetres.
        predicted = metres.to(pixel_values.dtype)
        if labels is None:
            return M33DDepthEstimatorOutput(predicted_depth=predicted, standardized_depth=values)
        labels = _check_labels(labels, pixel_values.shape[0], size)
        total, count = self._loss(values.float(), labels, berhu_threshold)
        count = count.float()
        return M33DDepthEstimatorOutput(
            loss=total / count.clamp_min(1),
            predicted_depth=predicted,
            standardized_depth=values,
            loss_sums={config.depth_loss: total},
            loss_counts={config.depth_loss: count},
        )
