# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What M33DModel and M33DForPreTraining return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class M33DModelOutput(ModelOutput):
    """Encoded tokens. All fields are tensors by rows, or tuples of them, so that pipelines can take batches apart;
    `M33DModel.extract_features` gives the tokens by modality.

    Args:
        last_hidden_state: (B, N, D), the modalities one after the other in the configuration's order, each with its
            class token first where the model has one; a global token comes last. With a token budget the visible
            tokens in the order of their joint index. Normed where the encoders end in a norm.
        pooler_output: (B, D), mean of RGB's patch tokens in `last_hidden_state`, without class or global token: what
            the fine-tuning heads of MAE (its default) and VideoMAE read. Without RGB of the first modality given;
            with a token budget of all visible tokens.
        hidden_states: layers + 1 tensors (B, N, D): before the first block and after every one, tokens in the order of
            `last_hidden_state`, before the final norm; the same for separate, shared and joint encoders.
        attentions: (B, heads, N, N) of every block, likewise; 0 between modalities that are encoded separately. Empty
            unless the attention implementation is "eager".
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class M33DForPreTrainingOutput(ModelOutput):
    """Pre-training terms: "rgb", "depth" (any reconstructed modality), "contrastive", "matching"; with the additions of
    the follow-up "depth_noise" (any denoised modality) and "distillation".

    Args:
        loss: scalar, the weighted sum of Eq. 5, 6 or 7.
        losses: term -> unweighted mean.
        weighted_losses: term -> its part of `loss`.
        loss_sums, loss_counts: term -> numerator and denominator, so that ranks and accumulation steps can be pooled.
        keep: name -> (B, V) visible positions that were used ("joint" with a token budget).
        masked: name -> (B, K) predicted positions; with a token budget all of them, of which losses count the masked.
        diagnostics: on request, scalars without gradient (retrieval and matching accuracy, loss with hidden depth).
        features: on request, name -> (B, V, D) encoded visible tokens.
        reconstructions: on request, name -> (B, K, P) predictions in the space of the target, and the predicted noise
            of visible patches as name + "_noise" -> (B, V, P).
        hidden_states, attentions: on request, of the encoder pass that reconstruction reads (of the one that is
            contrasted, where there is no other), as in `M33DModelOutput`; the decoder's are not among them.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    weighted_losses: dict[str, torch.Tensor] | None = None
    loss_sums: dict[str, torch.Tensor] | None = None
    loss_counts: dict[str, torch.Tensor] | None = None
    keep: dict[str, torch.Tensor] | None = None
    masked: dict[str, torch.Tensor] | None = None
    diagnostics: dict[str, torch.Tensor] | None = None
    features: dict[str, torch.Tensor] | None = None
    reconstructions: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
