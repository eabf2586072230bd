"""Hidden states and attention weights on request: one tensor per layer, whatever the number of encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .configuration_m33d import M33DConfig
from .encoder_m33d import M33DEncoder

REQUESTS = ("output_hidden_states", "output_attentions")


def states_are_wanted(config: M33DConfig, kwargs: Mapping[str, Any]) -> bool:
    """Whether a forward call, or else the configuration, asks for hidden states or attention weights."""
    return any(kwargs.get(name, getattr(config, name, False)) for name in REQUESTS)


class M33DHiddenStates(nn.Module):
    """Where transformers reads hidden states off: the states before a block, and after it."""

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Give back the states after the block."""
        return after


class M33DAttentions(nn.Module):
    """Where transformers reads attention weights off."""

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """Give them back."""
        return weights


class M33DStateTaps(nn.Module):
    """Runs encoder blocks so that their states can be read off; without weights of its own.

    Passes that nobody asked about (of a contrastive term, of diagnostics) do not come here, so that what is read off
    belongs to one pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden_states = M33DHiddenStates()
        self.attentions = M33DAttentions()

    def run(
        self, encoders: Sequence[M33DEncoder], sequences: Sequence[torch.Tensor]
    ) -> Iterator[list[torch.Tensor]]:
        """The sequences after every block; the encoders run block by block, all in step.

        Each sequence sees itself alone, as in a pass of its own: only the tensors that are read off join them.

        Args:
            encoders: one per sequence; the same one may come several times.
            sequences: (B, N_i, D) each.

        Yields:
            (B, N_i, D) each. Read off are (B, N, D) before the first and after every block, N the sum of the N_i, and
            (B, heads, N, N) attention weights, 0 between sequences; with register tokens N counts them too, as in
            transformers' DINOv2 with registers.
        """
        sequences = [encoder.registered(sequence) for encoder, sequence in zip(encoders, sequences)]
        lengths = [sequence.shape[1] for sequence in sequences]
        states = _joined(sequences)
        for layers in zip(*(encoder.layers for encoder in encoders), strict=True):
            parts = _parts(states, lengths)
            found: list[list[torch.Tensor]] = [[] for _ in parts]
            after = [layer(part, weights=weights) for layer, part, weights in zip(layers, parts, found)]
            if all(found):
                self.attentions(_block_diagonal([weights[0] for weights in found]))
            # From here on the states that were read off are the ones that are used: gradients reach them.
            states = self.hidden_states(states, _joined(after))
            yield [encoder.unregistered(part) for encoder, part in zip(encoders, _parts(states, lengths))]


def _joined(sequences: Sequence[torch.Tensor]) -> torch.Tensor:
    return sequences[0] if len(sequences) == 1 else torch.cat(list(sequences), dim=1)


def _parts(states: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    return [states] if len(lengths) == 1 else list(states.split(list(lengths), dim=1))


def _block_diagonal(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """(B, heads, N_i, N_i) each to (B, heads, N, N), 0 outside the blocks."""
    if len(weights) == 1:
        return weights[0]
    total = sum(block.shape[-1] for block in weights)
    rows, start = [], 0
    for block in weights:
        rows.append(nn.functional.pad(block, (start, total - start - block.shape[-1])))
        start += block.shape[-1]
    return _joined([row.flatten(0, 1) for row in rows]).unflatten(0, weights[0].shape[:2])
