# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Hidden states and attention weights on request: one tensor per layer, whatever the number of encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .configuration_m33d import M33DConfig
from .encoder_m33d import M33DEncoder
from .layers_m33d import M33DLayer

REQUESTS = ("output_hidden_states", "output_attentions")


def states_are_wanted(config: M33DConfig, kwargs: Mapping[str, Any]) -> bool:
    """Whether a forward call, or else the configuration, asks for hidden states or attention weights."""
    return any(kwargs.get(name, getattr(config, name, False)) for name in REQUESTS)


class M33DHiddenStates(nn.Module):
    """Hook point where transformers captures hidden states: the states before a block, and after it."""

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return the states after the block."""
        return after


class M33DAttentions(nn.Module):
    """Hook point where transformers captures attention weights."""

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the weights."""
        return weights


class M33DStateTaps(nn.Module):
    """Runs encoder blocks so that their states can be captured; has no weights.

    Additional passes (of a contrastive term, of diagnostics) do not use it, so that all captured states belong to one
    pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden_states = M33DHiddenStates()
        self.attentions = M33DAttentions()

    def run(
        self, encoders: Sequence[M33DEncoder], sequences: Sequence[torch.Tensor], seen_BN: torch.Tensor | None = None
    ) -> Iterator[list[torch.Tensor]]:
        """The sequences after every block; all encoders run in lockstep, block by block.

        Each sequence attends only to itself, as in a separate pass.

        Args:
            encoders: one per sequence; the same one may occur several times.
            sequences: (B, N_i, D) each.
            seen_BN: which tokens of a single sequence are attended to; None all.

        Yields:
            (B, N_i, D) each. Captured are (B, N, D) before the first and after every block, N the sum of the N_i, and
            (B, heads, N, N) attention weights, 0 between sequences; with register tokens N counts them too, as in
            transformers' DINOv2 with registers.
        """
        mask = encoders[0].attention_mask(sequences[0], seen_BN)
        sequences = [encoder.registered(sequence) for encoder, sequence in zip(encoders, sequences)]
        lengths = [sequence.shape[1] for sequence in sequences]
        states = _joined(sequences)
        for layers in zip(*(encoder.layers for encoder in encoders), strict=True):
            parts = _parts(states, lengths)
            if len(parts) == 1:
                weights: list[torch.Tensor] = []
                after = [layers[0](parts[0], weights=weights, mask=mask)]
                if weights:
                    self.attentions(weights[0])
            elif layers[0].attention.config._attn_implementation == "eager":
                after = self._side_by_side(layers, parts)
            else:
                after = [layer(part) for layer, part in zip(layers, parts)]
            # From here on the captured states are used, so that gradients reach them.
            states = self.hidden_states(states, _joined(after))
            yield [encoder.unregistered(part) for encoder, part in zip(encoders, _parts(states, lengths))]

    def _side_by_side(self, layers: Sequence[M33DLayer], parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One block of several stacks, with one masked attention over all sequences: so its weights are one tensor,
        which gradients reach.
        """
        found = [layer.attention.heads_of(layer.layernorm_before(part)) for layer, part in zip(layers, parts)]
        query, key, value = (torch.cat(kind, dim=2) for kind in zip(*found, strict=True))
        lengths = [part.shape[1] for part in parts]
        blocks = [torch.ones(length, length, dtype=torch.bool, device=query.device) for length in lengths]
        apart = ~torch.block_diag(*blocks).bool()
        mask = torch.zeros_like(apart, dtype=query.dtype).masked_fill(apart, float("-inf"))
        attended, weights = layers[0].attention.attend(query, key, value, mask)
        if weights is not None:
            self.attentions(weights)
        outputs = attended.flatten(2).split(lengths, dim=1)
        return [
            layer.finish(part, layer.attention.proj(output)) for layer, part, output in zip(layers, parts, outputs)
        ]


def _joined(sequences: Sequence[torch.Tensor]) -> torch.Tensor:
    return sequences[0] if len(sequences) == 1 else torch.cat(list(sequences), dim=1)


def _parts(states: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    return [states] if len(lengths) == 1 else list(states.split(list(lengths), dim=1))
