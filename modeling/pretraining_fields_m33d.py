# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The fields of a configuration that pre-training alone reads: the decoder, the losses, and masks by motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .fields_m33d import Range


@dataclass(repr=False, kw_only=True)
class PretrainingFields:
    """The fields of `M33DConfig` that pre-training alone reads.

    Args:
        decoder_kind: "shared" is the paper's one decoder; "per_target" gives every target a decoder of its own that
            reads the visible tokens by cross-attention, then has `decoder_num_hidden_layers` blocks of self-attention
            over its own positions (MultiMAE); it goes with a token budget.
        decoder_hidden_size, decoder_num_hidden_layers, decoder_num_attention_heads, decoder_intermediate_size: of the
            decoder as of the encoders.
        decoder_fusion: "joint" decodes the tokens of all modalities in one sequence, "fused" their sum, "separate"
            each by itself.
        decoder_attention: "full" among all tokens, or "cross" from masked to visible ones.
        decoder_modality_embedding: whether a learned embedding tells the decoder the modality of a token.
        loss_reduction: reconstruction averaged over all masked patches of the "batch" (MAE), or per "sample" first.
        share_mask: hide the same positions in all modalities; None: for clips whose modalities are masked alike.
        contrastive_weight: gamma of Eq. 5, weight of the contrastive term; 0 removes it.
        contrastive_temperature, contrastive_learnable_temperature: tau of Eq. 3, and whether it is trained.
        contrastive_projection_dim: width of a projection head before the comparison; 0 is none.
        contrastive_symmetric: also compare from depth to RGB.
        contrastive_normalize: compare by cosine; False takes the plain product.
        contrastive_negatives: negatives of Eq. 3: other tokens of the same "sample", or of the whole "batch".
        contrastive_min_valid: tokens with at most this share of valid pixels are neither positives nor negatives.
        contrastive_tokens: "visible" contrasts the tokens that the masked pass kept; "full_forward" encodes all
            tokens of both modalities in an extra pass.
        contrastive_position_free: contrast features of a pass without position embeddings; with reconstruction in
            the same step this costs one more encoder pass over the same visible tokens.
        matching_weight: eta of Eq. 5, weight of the matching term; 0 removes it.
        matching_fusion, matching_pool: how the two features of Eq. 4 are combined, and made of tokens.
        matching_negatives: mismatched pairs of Eq. 4: depth of the next sample ("roll") or of a random other one
            ("shuffle").
        num_matching_negatives: mismatched pairs per sample.
        distillation_weight: weight of a smooth L1 loss between the max-pooled features of what the encoders see and
            those of the frozen model that the training started from (the follow-up's stage-1 model). The teacher is no
            part of this model: its features are a forward argument.
        distillation_tokens: "all" shows the teacher whole clean inputs, as stage 1 did (ours: the summary says no
            more than "global"); "visible" shows it the student's tokens, without the student's noise.
        motion_score: "pixel_diff" (mean absolute difference of neighbouring frames).
        motion_select: "sample" draws tokens with probability proportional to score ** motion_gamma; "topk" takes
            the largest.
        motion_target: "visible" shows moving tokens to the encoder, "masked" hides them.
        motion_gamma: exponent of the score; 0 draws tokens evenly.
        motion_floor: added to every score as a share of the mean score, so that still tokens can be drawn too.
    """

    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    decoder_fusion: Literal["joint", "fused", "separate"] = "joint"
    decoder_attention: Literal["full", "cross"] = "full"
    decoder_modality_embedding: bool = True
    decoder_kind: Literal["shared", "per_target"] = "shared"
    loss_reduction: Literal["batch", "sample"] = "batch"

    share_mask: bool | None = None
    contrastive_weight: float | int = 0.0
    contrastive_temperature: float = 0.07
    contrastive_learnable_temperature: bool = False
    contrastive_projection_dim: int = 0
    contrastive_symmetric: bool = False
    contrastive_normalize: bool = True
    contrastive_negatives: Literal["sample", "batch"] = "sample"
    contrastive_tokens: Literal["visible", "full_forward"] = "visible"
    contrastive_position_free: bool = False
    contrastive_min_valid: float = 0.5
    matching_weight: float | int = 0.0
    matching_fusion: Literal["concat", "sum", "product"] = "concat"
    matching_pool: Literal["mean", "cls"] = "mean"
    matching_negatives: Literal["roll", "shuffle"] = "roll"
    num_matching_negatives: int = 1
    distillation_weight: float | int = 0.0
    distillation_tokens: Literal["all", "visible"] = "all"
    motion_score: Literal["pixel_diff"] = "pixel_diff"
    motion_select: Literal["sample", "topk"] = "sample"
    motion_target: Literal["visible", "masked"] = "visible"
    motion_gamma: float | int = 1.0
    motion_floor: float = 1e-3


_WIDTH = Range(low=1, high=65_536)
_BLOCKS = Range(low=1, high=1024)
_WEIGHT = Range(low=0, high=1e6)

PRETRAINING_RANGES: Mapping[str, Range] = {
    "decoder_hidden_size": _WIDTH,
    "decoder_num_hidden_layers": _BLOCKS,
    "decoder_num_attention_heads": _BLOCKS,
    "decoder_intermediate_size": Range(low=1, high=1_048_576),
    "contrastive_weight": _WEIGHT,
    "contrastive_temperature": Range(above=0, high=1e6),
    "contrastive_projection_dim": Range(low=0, high=65_536),
    "contrastive_min_valid": Range(low=0, high=1),
    "matching_weight": _WEIGHT,
    "num_matching_negatives": Range(low=1, high=65_536),
    "distillation_weight": _WEIGHT,
    "motion_gamma": Range(low=0, high=1000),
    "motion_floor": Range(low=0, high=1e6),
}
"""Ranges of the fields that hold numbers."""

__all__ = ["PRETRAINING_RANGES", "PretrainingFields"]
