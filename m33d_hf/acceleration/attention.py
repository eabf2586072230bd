"""Softmax attention in bfloat16, block by block, on CPUs with bfloat16 instructions but without matrix units (AMX).

There torch's fused kernel takes up to three times as long as plain products (benchmarks/README.md). The scores of a
block fit into the cache; the backward pass computes them again, so that none are kept. Scores and probabilities are
rounded to bfloat16, as in attention written out under autocast (the fused kernel rounds the probabilities only);
gradients of keys and values are summed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from m33d_hf.acceleration.eager import is_eager_on_cpu
from m33d_hf.acceleration.maps import multiplies_bfloat16

# Among transformers' attention functions.
NAME = "m33d_cpu"
# Scores of a block: 2 MiB of bfloat16, about what a core's second-level cache holds.
SCORES_AT_ONCE = 1 << 20
# Fewer rows than this make thin products.
ROWS_AT_ONCE = 512

Block = tuple[slice, slice]  # of the heads of all samples, of their queries


@lru_cache(maxsize=1)
def prefers_blocks() -> bool:
    """Whether this CPU multiplies bfloat16 quickly, but has no AMX, for which torch's fused kernel is made."""
    return multiplies_bfloat16() and not torch.cpu._is_amx_tile_supported()


def attends_in_blocks(query_BHNd: torch.Tensor, dropout: float) -> bool:
    """Whether `blockwise_attention` is the faster way for these queries."""
    return (
        is_eager_on_cpu(query_BHNd, torch.bfloat16) and query_BHNd.numel() > 0 and dropout == 0.0 and prefers_blocks()
    )


def blocks(heads: int, rows: int, columns: int) -> Iterator[Block]:
    """Cut (heads of all samples, rows) into parts whose scores fit: heads while whole ones do, then rows as well."""
    few_heads = min(heads, max(SCORES_AT_ONCE // (min(rows, ROWS_AT_ONCE) * columns), 1))
    few_rows = max(SCORES_AT_ONCE // (few_heads * columns), 1)
    for head in _parts(heads, few_heads):
        for row in _parts(rows, few_rows):
            yield head, row


def _parts(length: int, most: int) -> Iterator[slice]:
    """Slices of equal length, as few as there can be with none longer than `most`; the last may be shorter."""
    size = -(-length // -(-length // most))
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _scratch(query_GNd: torch.Tensor, key_GMd: torch.Tensor) -> torch.Tensor:
    """Memory for the scores of any block, used again and again: new memory would not be in the cache."""
    (heads, rows, _), columns = query_GNd.shape, key_GMd.shape[1]
    return query_GNd.new_empty(min(heads * rows * columns, max(SCORES_AT_ONCE, columns)))


def _product(left: torch.Tensor, right: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    shape = (left.shape[0], left.shape[1], right.shape[2])
    return torch.bmm(left, right, out=scratch[: math.prod(shape)].view(shape))


def _probabilities(query: torch.Tensor, key: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    scores = _product(query, key.transpose(1, 2), scratch)
    return torch.softmax(scores, dim=-1, out=scores)


class _BlockwiseAttention(torch.autograd.Function):
    """From contiguous (G, N, d) queries, (G, M, d) keys and values of G heads of samples to (G, N, d)."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        output, scratch = torch.empty_like(query), _scratch(query, key)
        for head, row in blocks(query.shape[0], query.shape[1], key.shape[1]):
            output[head, row] = torch.bmm(_probabilities(query[head, row], key[head], scratch), value[head])
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = ctx.saved_tensors
        into_query = torch.empty_like(query)
        into_key = torch.zeros_like(key, dtype=torch.float32)
        into_value = torch.zeros_like(value, dtype=torch.float32)
        scratch, another = _scratch(query, key), _scratch(query, key)
        for head, row in blocks(query.shape[0], query.shape[1], key.shape[1]):
            queries, from_above = query[head, row], gradient[head, row]
            chosen = _probabilities(queries, key[head], scratch)
            into_value[head] += torch.bmm(chosen.transpose(1, 2), from_above)
            into_chosen = _product(from_above, value[head].transpose(1, 2), another)
            into_scores = torch._softmax_backward_data(into_chosen, chosen, -1, chosen.dtype, grad_input=into_chosen)
            into_query[head, row] = torch.bmm(into_scores, key[head])
            into_key[head] += torch.bmm(into_scores.transpose(1, 2), queries)
        return into_query, into_key.to(key.dtype), into_value.to(value.dtype)


def blockwise_attention(
    query_BHNd: torch.Tensor, key_BHMd: torch.Tensor, value_BHMd: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attend from N queries to M keys and values without a mask: (B, heads, N, d) in, (B, N, heads, d) out."""
    samples, heads, rows, width = query_BHNd.shape
    # Products of strided heads would copy them again for every block.
    grouped = (each.reshape(samples * heads, -1, width) for each in (query_BHNd * scaling, key_BHMd, value_BHMd))
    output: torch.Tensor = _BlockwiseAttention.apply(*(each.contiguous() for each in grouped))
    return output.view(samples, heads, rows, width).transpose(1, 2)


def cpu_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: in blocks where that is faster, else "sdpa"."""
    if attention_mask is None and is_causal is False and scaling is not None and attends_in_blocks(query, dropout):
        return blockwise_attention(query, key, value, scaling), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


AttentionInterface.register(NAME, cpu_attention)
