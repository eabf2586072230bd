"""What M33DModel and M33DForPreTraining return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class M33DModelOutput(ModelOutput):
    """Encoded tokens.

    Args:
        last_hidden_state: (B, N, D), the modalities one after the other in the configuration's order, each with its
            class token first where the model has one.
        modality_states: name -> (B, V, D) without class token.
        hidden_states: input of every block and the last output; with several modalities the tuples run modality by
            modality.
        attentions: (B, heads, N, N) of every block, likewise.
    """

    last_hidden_state: torch.Tensor | None = None
    modality_states: dict[str, torch.Tensor] | None = None
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
