# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""One pre-norm transformer block for encoder and decoder, attention through the transformers interface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_m33d import M33DConfig
from .errors_m33d import ConfigError


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out; (B, heads, N, d) in, (B, N, heads, d) and the weights out."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def rows_at(rows_RD: torch.Tensor, index_BN: torch.Tensor) -> torch.Tensor:
    """(B, N, D) rows of a table; the backward pass adds up in one go, unlike that of indexing on CPU."""
    return nn.functional.embedding(index_BN, rows_RD)


class M33DAttention(nn.Module):
    """Multi-head attention with a fused query-key-value projection (rows [q; k; v], head-major)."""

    linear = staticmethod(nn.functional.linear)  # multiplies by part of a weight; may be exchanged for a faster one

    def __init__(self, config: M33DConfig, width: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.num_heads = heads
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.dropout = float(config.attention_probs_dropout_prob)
        self.is_causal = False
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        if config.decoder_kind == "per_target":
            # MultiMAE draws q, k and v as three matrices, MAE and VideoMAE as one.
            self.qkv.m33d_init = "apart"  # type: ignore[assignment]
        self.proj = nn.Linear(width, width)

    def _heads(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        batch, length, _ = tokens_BND.shape
        return tokens_BND.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)

    def _project(self, tokens_BND: torch.Tensor, first: int, last: int) -> torch.Tensor:
        # Rows first to last (in units of the width) of the fused projection, without computing the others.
        rows = slice(first * self.width, last * self.width)
        bias = self.qkv.bias[rows] if self.qkv.bias is not None else None
        return self.linear(tokens_BND, self.qkv.weight[rows], bias)

    def forward(
        self,
        context_BND: torch.Tensor,
        queries_BKD: torch.Tensor | None = None,
        index_BN: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `queries_BKD` (from the context itself when None) to `context_BND`.

        With `index_BN` the context is (R, D) distinct tokens, and the index says which of them stand where. `mask`,
        (B, 1, K, N), is added to the scores.

        Raises:
            ConfigError: a mask for flash attention.
        """
        if queries_BKD is None:
            projected = self.qkv(context_BND)
            if index_BN is not None:
                projected = rows_at(projected, index_BN)
            query, key, value = projected.chunk(3, dim=-1)
        else:
            query = self._project(queries_BKD, 0, 1)
            key, value = self._project(context_BND, 1, 3).chunk(2, dim=-1)
        if mask is not None and "flash" in str(self.config._attn_implementation):
            raise ConfigError(
                f"attn_implementation {self.config._attn_implementation!r} takes no mask, which tokens without depth "
                "need; use sdpa, eager or flex_attention."
            )
        if mask is not None:  # under autocast the queries are of half precision, which has no number as low
            mask = mask.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
        output, weights = self.attend(self._heads(query), self._heads(key), self._heads(value), mask)
        return self.proj(output.flatten(2)), weights

    def heads_of(self, tokens_BND: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values of self-attention, (B, heads, N, d) each."""
        return [self._heads(part) for part in self.qkv(tokens_BND).chunk(3, dim=-1)]

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, heads, N, d) to (B, N, heads, d), and the weights where the attention implementation gives them.

        `mask` is added to the scores.
        """
        dropout = self.dropout if self.training else 0.0
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        return attend(self, query, key, value, mask, is_causal=False, scaling=self.scaling, dropout=dropout)


class M33DMLP(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: M33DConfig, width: int, inner: int) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.fc2(self.activation(self.fc1(tokens_BND)))


class M33DDropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample and rescales the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch_BND: torch.Tensor) -> torch.Tensor:
        """Zero whole samples with probability `rate` while training."""
        if self.rate == 0.0 or not self.training:
            return branch_BND
        kept = torch.rand(branch_BND.shape[0], 1, 1, device=branch_BND.device) >= self.rate
        return branch_BND * kept.to(branch_BND.dtype) / (1.0 - self.rate)

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate:.3f}"


class M33DLayer(GradientCheckpointingLayer):
    """Pre-norm block. Returns the tokens; attention weights go into a list that a caller gives."""

    def __init__(self, config: M33DConfig, width: int, heads: int, inner: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = M33DAttention(config, width, heads)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = M33DMLP(config, width, inner)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = M33DDropPath(drop_path)

    def forward(
        self,
        tokens_BND: torch.Tensor,
        context_BND: torch.Tensor | None = None,
        num_queries: int | None = None,
        index_BN: torch.Tensor | None = None,
        weights: list[torch.Tensor] | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Apply the block.

        Args:
            tokens_BND: the residual stream.
            context_BND: attend to these tokens instead of to `tokens_BND` (cross attention).
            num_queries: update and return only the last K tokens, which still attend to all of them.
            index_BN: `tokens_BND` are (R, D) distinct tokens, of which samples share some; the sequence is these rows.
                Norm and projection are computed once for each.
            weights: gets the (B, heads, N, N) attention weights of self-attention, where the attention implementation
                gives them ("eager").
            mask: (B, 1, N, N), added to the scores of self-attention.

        Returns:
            (B, N, D), or (B, K, D) with `num_queries`.
        """
        if context_BND is not None:
            attended, _ = self.attention(self.layernorm_before(context_BND), self.layernorm_before(tokens_BND))
        elif num_queries is not None:
            normed = self.layernorm_before(tokens_BND)
            tokens_BND = tokens_BND[:, -num_queries:]
            attended, _ = self.attention(normed, normed[:, -num_queries:])
        else:
            attended, found = self.attention(self.layernorm_before(tokens_BND), index_BN=index_BN, mask=mask)
            if weights is not None and found is not None:
                weights.append(found)
            if index_BN is not None:
                tokens_BND = rows_at(tokens_BND, index_BN)
        return self.finish(tokens_BND, attended)

    def finish(self, tokens_BND: torch.Tensor, attended_BND: torch.Tensor) -> torch.Tensor:
        """Add what attention found, then the MLP's part."""
        tokens_BND = tokens_BND + self.drop_path(self.dropout(attended_BND))
        return tokens_BND + self.drop_path(self.dropout(self.mlp(self.layernorm_after(tokens_BND))))
