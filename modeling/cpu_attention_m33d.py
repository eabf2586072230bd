"""Softmax attention in bfloat16, block by block, on CPUs with bfloat16 instructions but without matrix units (AMX).

There torch's fused kernel takes up to three times as long as plain products (benchmarks/README.md). The scores of a
block fit into the cache; the backward pass computes them again, so that none are kept. Scores and probabilities are
rounded to bfloat16, as in attention written out under autocast (the fused kernel rounds the probabilities only);
gradients of keys and values are summed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

# Scores of a block: 2 MiB of bfloat16, about what a core's second-level cache holds.
SCORES_AT_ONCE = 1 << 20
# Fewer rows than this make thin products.
ROWS_AT_ONCE = 256

Block = tuple[slice, slice, slice]  # samples, heads, rows of the queries


@lru_cache(maxsize=1)
def prefers_blocks() -> bool:
    """Whether this CPU multiplies bfloat16 quickly, but has no AMX, for which torch's fused kernel is made."""
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def attends_in_blocks(query_BHNd: torch.Tensor, dropout: float) -> bool:
    """Whether `blockwise_attention` is the faster way for these queries."""
    return (
        not torch.compiler.is_compiling()  # first: nothing after it is to be traced
        and query_BHNd.device.type == "cpu"
        and query_BHNd.dtype == torch.bfloat16
        and dropout == 0.0
        and prefers_blocks()
    )


def blocks(samples: int, heads: int, rows: int, columns: int) -> Iterator[Block]:
    """Cut (samples, heads, rows) into parts whose scores fit: samples while whole ones do, then heads, then rows."""
    per_sample = heads * rows * columns
    if per_sample <= SCORES_AT_ONCE:
        for some in _parts(samples, SCORES_AT_ONCE // per_sample):
            yield some, slice(heads), slice(rows)
        return
    few_heads = min(heads, max(SCORES_AT_ONCE // (ROWS_AT_ONCE * columns), 1))
    few_rows = max(SCORES_AT_ONCE // (few_heads * columns), 1)
    for sample in _parts(samples, 1):
        for head in _parts(heads, few_heads):
            for row in _parts(rows, few_rows):
                yield sample, head, row


def _blocks_of(query: torch.Tensor, key: torch.Tensor) -> Iterator[Block]:
    samples, heads, rows, _ = query.shape
    return blocks(samples, heads, rows, key.shape[2])


def _parts(length: int, most: int) -> Iterator[slice]:
    """Slices of nearly equal length, none longer than `most`."""
    count = -(-length // most)
    edges = [length * number // count for number in range(count + 1)]
    return (slice(start, stop) for start, stop in pairwise(edges))


def _probabilities(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return torch.softmax(query @ key.transpose(-1, -2), dim=-1)


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        # Products of strided heads would copy them again for every block.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        ctx.save_for_backward(query, key, value)
        output = torch.empty_like(query)
        for sample, head, row in _blocks_of(query, key):
            chosen = _probabilities(query[sample, head, row], key[sample, head])
            output[sample, head, row] = chosen @ value[sample, head]
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = ctx.saved_tensors
        gradient = gradient.contiguous()
        into_query = torch.empty_like(query)
        into_key = torch.zeros_like(key, dtype=torch.float32)
        into_value = torch.zeros_like(value, dtype=torch.float32)
        for sample, head, row in _blocks_of(query, key):
            queries, keys, from_above = query[sample, head, row], key[sample, head], gradient[sample, head, row]
            chosen = _probabilities(queries, keys)
            into_value[sample, head] += chosen.transpose(-1, -2) @ from_above
            into_chosen = from_above @ value[sample, head].transpose(-1, -2)
            into_scores = torch.ops.aten._softmax_backward_data(into_chosen, chosen, -1, chosen.dtype)
            into_query[sample, head, row] = into_scores @ keys
            into_key[sample, head] += into_scores.transpose(-1, -2) @ queries
        return into_query, into_key.to(key.dtype), into_value.to(value.dtype)


def blockwise_attention(
    query_BHNd: torch.Tensor, key_BHMd: torch.Tensor, value_BHMd: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attend from N queries to M keys and values without a mask: (B, heads, N, d) in, (B, N, heads, d) out."""
    return _BlockwiseAttention.apply(query_BHNd * scaling, key_BHMd, value_BHMd).transpose(1, 2)
