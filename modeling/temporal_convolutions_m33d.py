# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""A temporal convolutional network over the clips of a video: MS-TCN (arXiv 1903.01945), and causal as TeCNO's (arXiv
2003.10751).

A stage is a 1 x 1 convolution and layers of dilated convolutions, whose dilation doubles from layer to layer. The first
stage reads features; each refinement stage reads the probabilities of the stage before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .configuration_m33d import M33DConfig
from .sequences_m33d import inside, last_steps

KERNEL = 3


def _convolution(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Conv1d:
    convolution = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
    convolution.m33d_init = "default"  # type: ignore[assignment]  # torch's own, as in the code of MS-TCN
    return convolution


class M33DDilatedLayer(nn.Module):
    """Dilated convolution, ReLU, 1 x 1 convolution, dropout, and the input added (MS-TCN, Eq. 1 and 2)."""

    def __init__(self, width: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.dilated = _convolution(width, width, KERNEL, dilation)
        self.pointwise = _convolution(width, width)
        self.dropout = nn.Dropout(dropout)
        reach = (KERNEL - 1) * dilation
        self.causal = causal
        self.after = 0 if causal else reach // 2
        self.before = reach - self.after

    def forward(self, states: Tensor, lengths: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the layer.

        Args:
            states: (B, F, S), 0 after the end of each sequence.
            lengths: (B,) clips of each sequence.
            past: (B, F, `before`) states of earlier calls; None for zeros, as at the start of a video.

        Returns:
            (B, F, S), 0 after the end of each sequence, and what a later call takes as `past`, empty unless causal.
        """
        if past is None:
            past = states.new_zeros(*states.shape[:2], self.before)
        joined = torch.cat([past, states], dim=2)
        found = self.dilated(nn.functional.pad(joined, (0, self.after)))
        added = states + self.dropout(self.pointwise(torch.relu(found)))
        return added * inside(lengths, states.shape[2])[:, None], self._kept(joined, lengths)

    def _kept(self, joined: Tensor, lengths: Tensor) -> Tensor:
        return last_steps(joined, lengths, self.before) if self.causal else joined[..., :0]


class M33DConvolutionStage(nn.Module):
    """A stage without its classifier; see the module."""

    def __init__(self, config: M33DConfig, inputs: int) -> None:
        super().__init__()
        width, dropout = config.temporal_hidden_size, float(config.temporal_dropout)
        self.input = _convolution(inputs, width)
        self.layers = nn.ModuleList(
            M33DDilatedLayer(width, 2**number, dropout, config.temporal_causal)
            for number in range(config.temporal_tcn_layers)
        )

    def forward(
        self, values: Tensor, lengths: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Apply all layers.

        Args:
            values: (B, S, C) features, or probabilities of the classes.
            lengths: (B,) clips of each sequence.
            state: one tensor per layer; None starts a video.

        Returns:
            (B, S, F), 0 after the end of each sequence, and the state that a causal model continues from.
        """
        # Padding of a batch must look like the zeros beyond the end of a video, which no bias reaches.
        states = self.input(values.transpose(1, 2)) * inside(lengths, values.shape[1])[:, None]
        kept = []
        for number, layer in enumerate(self.layers):
            states, last = layer(states, lengths, None if state is None else state[number])
            kept.append(last)
        return states.transpose(1, 2), tuple(kept)


class M33DRefinementStage(M33DConvolutionStage):
    """A stage that reads the probabilities of the stage before, with its classifier."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config, int(config.num_labels or 0))
        self.classifier = nn.Linear(config.temporal_hidden_size, int(config.num_labels or 0))

    def refine(
        self, logits: Tensor, lengths: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, S, L) logits of the stage before to those of this one; `state` as in `forward`."""
        states, kept = self(logits.softmax(-1), lengths, state)
        return self.classifier(states), kept


def smoothing_loss(logits: Tensor, lengths: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Truncated mean squared error between the log-probabilities of neighbouring clips (MS-TCN, Eq. 6 to 8).

    The earlier clip of a pair is a constant: it has no gradient.

    Args:
        logits: (B, S, L).
        lengths: (B,) clips of each sequence; padding has no part.
        limit: tau, of the absolute difference.

    Returns:
        Sum over the pairs, each the mean over the classes, and the number of pairs.
    """
    logs = logits.float().log_softmax(-1)
    change = (logs[:, 1:] - logs[:, :-1].detach()).abs().clamp_max(limit).square().mean(-1)
    known = inside(lengths, logits.shape[1])[:, 1:]
    return (change * known).sum(), known.sum().float()
