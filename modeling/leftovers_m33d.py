# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Names of what a pre-training checkpoint holds beyond an encoder: left out in silence, and nothing else is.

Whole names, so that a mistyped or renamed weight is still reported as unexpected.
"""

from __future__ import annotations

from .task_heads_m33d import HEADS, PAIR

_BLOCK = rf"(?:layernorm_before|layernorm_after|attention\.qkv|attention\.proj|mlp\.fc1|mlp\.fc2){PAIR}"
_OTHER = r"(?!(?:rgb|shared)\.)\w+"

PRETRAINING_PARTS = (
    rf"^decoder\.(?:embed|layernorm|heads\.\w+|noise_heads\.\w+){PAIR}$",
    r"^decoder\.(?:mask_token|modality_embeddings\.\w+)$",
    rf"^decoder\.(?:targets\.\w+\.)?layers\.\d+\.{_BLOCK}$",
    rf"^decoder\.targets\.\w+\.(?:embed|head|query_norm|context_norm|out_norm){PAIR}$",
    rf"^decoder\.targets\.\w+\.(?:attention\.qkv|attention\.proj|mlp\.fc1|mlp\.fc2){PAIR}$",
    r"^decoder\.targets\.\w+\.(?:mask_token|task_embeddings\.\w+)$",
    rf"^contrastive_head\.(?:log_temperature|projections\.\w+{PAIR})$",
    rf"^matching_head\.\w+{PAIR}$",
)
"""Decoder and pre-training heads."""

OTHER_MODALITIES = (
    rf"^(?:m33d\.)?embeddings\.{_OTHER}\.(?:projection{PAIR}|cls_token)$",
    rf"^(?:m33d\.)?encoders\.{_OTHER}\.(?:layers\.\d+\.{_BLOCK}|layernorm{PAIR}|register_tokens)$",
)
"""Embeddings and encoders of all modalities except RGB; in a folder of encoders only, names have no prefix `m33d.`."""

RGB = (
    rf"^(?:m33d\.)?embeddings\.rgb\.(?:projection{PAIR}|cls_token)$",
    rf"^(?:m33d\.)?encoders\.rgb\.(?:layers\.\d+\.{_BLOCK}|layernorm{PAIR}|register_tokens)$",
)
"""Embedding and encoder of RGB, which a task model of depth alone does not have."""

FUSION = (
    rf"^task_fusion\.(?:scale|(?:mixing|query_norm|context_norm|attention\.qkv|attention\.proj){PAIR})$"
)
"""What fuses the tokens of RGB and depth in a task model of both."""

FINAL_NORM = rf"^(?:m33d\.)?encoders\.\w+\.layernorm{PAIR}$"
"""The norm at the end of an encoder, which heads on raw blocks do not read."""

TASK_HEADS = tuple(pattern for head in HEADS for pattern in head.weights)
"""Heads of the fine-tuned models."""
