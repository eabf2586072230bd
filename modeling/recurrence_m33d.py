# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""A GRU over sequences of different lengths: packed where possible, with masks where a graph is traced."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .sequences_m33d import without_unreadable

Recurred = tuple[Tensor, Tensor]


def recur(gru: nn.GRU, features: Tensor, mask: Tensor | None, state: Tensor | None) -> Recurred:
    """The states of the last layer at every step, and the final state of every layer.

    Packing requires the lengths on the host, which neither torch.export nor a full graph of torch.compile knows. There
    the same states are computed over the padded sequences, which only takes more time.

    Args:
        gru: `batch_first`; with one direction or two.
        features: (B, S, D).
        mask: (B, S) bool; False inside a sequence reads zeros, False at its end is padding. None: all True.
        state: (layers * directions, B, width) to continue from; None starts at zero.

    Returns:
        (B, S, directions * width), 0 after the end of each sequence, and (layers * directions, B, width).
    """
    if mask is None:
        return gru(features, state)
    features, lengths = without_unreadable(features, mask)
    if torch.compiler.is_compiling():
        return recur_by_masks(gru, features, lengths, state)
    packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, last = gru(packed, state)
    return pad_packed_sequence(states, batch_first=True, total_length=mask.shape[1])[0], last


def recur_by_masks(gru: nn.GRU, features: Tensor, lengths: Tensor, state: Tensor | None) -> Recurred:
    """As `recur`, from lengths (B,) on any device: shapes and operations do not depend on them.

    The forward direction has not seen the padding at the last step. For the backward direction, each sequence is
    reversed within its length, so that the padding comes last there too.
    """
    steps = torch.arange(features.shape[1], device=features.device)
    inside = steps < lengths[:, None]
    turned = torch.where(inside, lengths[:, None] - 1 - steps, steps)
    directions = 2 if gru.bidirectional else 1
    finals = []
    for layer in range(gru.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            start = _start(gru, features) if state is None else state[number]
            given = _at(features, turned) if direction else features
            states = _one_direction(gru, given, start, layer, direction)
            finals.append(_at(states, lengths[:, None] - 1)[:, 0])
            outputs.append((_at(states, turned) if direction else states) * inside[..., None])
        features = torch.cat(outputs, dim=-1)
        if layer + 1 < gru.num_layers:
            features = nn.functional.dropout(features, gru.dropout, gru.training)
    return features, torch.stack(finals)


def _start(gru: nn.GRU, features: Tensor) -> Tensor:
    return features.new_zeros(features.shape[0], gru.hidden_size)


def _at(states: Tensor, index_BK: Tensor) -> Tensor:
    """(B, K, D) steps of (B, S, D)."""
    return torch.gather(states, 1, index_BK[..., None].expand(-1, -1, states.shape[-1]))


def _one_direction(gru: nn.GRU, features: Tensor, start: Tensor, layer: int, direction: int) -> Tensor:
    names = [f"{kind}_l{layer}{'_reverse' if direction else ''}" for kind in ("weight_ih", "weight_hh")]
    names += [name.replace("weight", "bias") for name in names] if gru.bias else []
    weights = [getattr(gru, name) for name in names]
    # Of one layer and one direction: has_biases, layers, dropout, training, bidirectional, batch_first.
    return torch.gru(features, start[None], weights, gru.bias, 1, 0.0, gru.training, False, True)[0]
