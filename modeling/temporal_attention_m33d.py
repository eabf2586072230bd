# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""A transformer over the clips of a video whose attention reaches a fixed number of clips.

Positions are relative (a learned bias per head and distance), so that a video may be longer than any in training, and
time and memory grow with the number of clips, not with its square. In place of clips before the first and after the
last one stands a learned key and value: relative positions alone could not tell where in its video a clip lies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .configuration_m33d import M33DConfig
from .layers_m33d import M33DMLP
from .sequences_m33d import inside, last_steps

Past = tuple[Tensor, Tensor]
"""Keys and values (B, heads, W - 1, d) of the last clips."""


class M33DWindowAttention(nn.Module):
    """Attention of each clip to itself, to the W - 1 clips before it and, unless causal, to the W - 1 after it."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        width = config.temporal_hidden_size
        self.heads, self.window = config.temporal_num_attention_heads, config.temporal_attention_window
        self.causal = config.temporal_causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(config.temporal_dropout)
        distances = self.window if self.causal else 2 * self.window - 1
        self.relative_positions = nn.Parameter(torch.zeros(self.heads, distances))
        self.outside_token = nn.Parameter(torch.zeros(2, width))  # key and value of what is beyond the video

    def forward(self, states: Tensor, lengths: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """Attend, in blocks of queries, so that no score is computed that is far outside of the windows.

        Args:
            states: (B, S, F).
            lengths: (B,) clips of each sequence; padding is beyond it.
            past: of earlier calls; None starts a video.

        Returns:
            (B, S, F), and what a later call takes as `past`, empty unless causal.
        """
        batch, _, width = states.shape
        query, key, value = (
            part.unflatten(-1, (self.heads, width // self.heads)).transpose(1, 2)
            for part in self.qkv(states).chunk(3, dim=-1)
        )
        steps, reach = query.shape[2], self.window - 1
        there = inside(lengths, steps)[:, None, :, None]
        # As many as a window reaches beyond the end, and fill the last block.
        more = reach + -steps % min(steps, self.window)
        joined = []
        for number, rows in enumerate((key, value)):
            outside = self.outside_token[number].unflatten(0, (self.heads, -1))[:, None].expand(batch, -1, 1, -1)
            before = outside.expand(-1, -1, reach, -1) if past is None else past[number]
            rows = torch.where(there, rows, outside)
            joined.append(torch.cat([before, rows, outside.expand(-1, -1, more, -1)], dim=2))
        found = self._attended(query, *joined)
        kept = (self._last(joined[0], lengths), self._last(joined[1], lengths))
        return self.proj(found.transpose(1, 2).flatten(2)), kept

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, heads, S, d) of queries of S clips; keys and values have W - 1 in front, and at least as many behind."""
        steps, reach = query.shape[2], self.window - 1
        after = 0 if self.causal else reach
        block = min(steps, self.window)
        blocks = -(-steps // block)
        more = blocks * block - steps
        span = reach + block + after
        query = nn.functional.pad(query, (0, 0, 0, more)).unflatten(2, (blocks, block))
        # (B, heads, blocks, d, span): the keys that the queries of a block can reach.
        key, value = (part[:, :, : reach + blocks * block + after].unfold(2, span, block) for part in (key, value))
        scores = query @ key * query.shape[-1] ** -0.5
        place = torch.arange(span, device=query.device) - reach
        distance = place - torch.arange(block, device=query.device)[:, None]
        near = (distance >= -reach) & (distance <= after)
        scores = scores + self.relative_positions[:, (distance + reach).clamp(0, reach + after)][:, None]
        weights = scores.masked_fill(~near, float("-inf")).softmax(-1)
        return (self.dropout(weights) @ value.transpose(-1, -2)).flatten(2, 3)[:, :, :steps]

    def _last(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """The last W - 1 clips of (B, heads, W - 1 + S + more, d); none unless causal."""
        if not self.causal:
            return rows[:, :, :0]
        flat = rows.transpose(2, 3).flatten(1, 2)
        return last_steps(flat, lengths, self.window - 1).unflatten(1, (self.heads, -1)).transpose(2, 3)


class M33DTemporalLayer(nn.Module):
    """Pre-norm block of attention and MLP."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        width = config.temporal_hidden_size
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = M33DWindowAttention(config)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = M33DMLP(config, width, 4 * width)
        self.dropout = nn.Dropout(config.temporal_dropout)

    def forward(self, states: Tensor, lengths: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """(B, S, F) to (B, S, F), and what a later call takes as `past`."""
        attended, kept = self.attention(self.layernorm_before(states), lengths, past)
        states = states + self.dropout(attended)
        return states + self.dropout(self.mlp(self.layernorm_after(states))), kept


class M33DTemporalTransformer(nn.Module):
    """Projection of the features, blocks, and a norm; see the module."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        width = config.temporal_hidden_size
        self.input = nn.Linear(config.temporal_input_size, width)
        self.layers = nn.ModuleList(M33DTemporalLayer(config) for _ in range(config.temporal_num_layers))
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, features: Tensor, lengths: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States of every clip.

        Args:
            features: (B, S, D).
            lengths: (B,) clips of each sequence.
            state: two tensors per layer, see `Past`; None starts a video.

        Returns:
            (B, S, F), 0 after the end of each sequence, and the state that a causal model continues from.
        """
        states, kept = self.input(features), []
        for number, layer in enumerate(self.layers):
            past = None if state is None else (state[2 * number], state[2 * number + 1])
            states, last = layer(states, lengths, past)
            kept += last
        return self.layernorm(states) * inside(lengths, states.shape[1])[..., None], tuple(kept)
