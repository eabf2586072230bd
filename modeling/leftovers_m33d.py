# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Names of what a pre-training checkpoint holds beyond an encoder: left out in silence, and nothing else is.

Whole names, so that a mistyped or renamed weight is still reported as unexpected.
"""

from __future__ import annotations

_PAIR = r"\.(?:weight|bias)"
_BLOCK = rf"(?:layernorm_before|layernorm_after|attention\.qkv|attention\.proj|mlp\.fc1|mlp\.fc2){_PAIR}"
_OTHER = r"(?!(?:rgb|shared)\.)\w+"

PRETRAINING_PARTS = (
    rf"^decoder\.(?:embed|layernorm|heads\.\w+|noise_heads\.\w+){_PAIR}$",
    r"^decoder\.(?:mask_token|modality_embeddings\.\w+)$",
    rf"^decoder\.(?:targets\.\w+\.)?layers\.\d+\.{_BLOCK}$",
    rf"^decoder\.targets\.\w+\.(?:embed|head|query_norm|context_norm|out_norm){_PAIR}$",
    rf"^decoder\.targets\.\w+\.(?:attention\.qkv|attention\.proj|mlp\.fc1|mlp\.fc2){_PAIR}$",
    r"^decoder\.targets\.\w+\.(?:mask_token|task_embeddings\.\w+)$",
    rf"^contrastive_head\.(?:log_temperature|projections\.\w+{_PAIR})$",
    rf"^matching_head\.\w+{_PAIR}$",
)
"""Decoder and pre-training heads."""

OTHER_MODALITIES = (
    rf"^(?:m33d\.)?embeddings\.{_OTHER}\.(?:projection{_PAIR}|cls_token)$",
    rf"^(?:m33d\.)?encoders\.{_OTHER}\.(?:layers\.\d+\.{_BLOCK}|layernorm{_PAIR}|register_tokens)$",
)
"""Embeddings and encoders of all modalities except RGB; in a folder of encoders only, names have no prefix `m33d.`."""

FINAL_NORM = rf"^(?:m33d\.)?encoders\.\w+\.layernorm{_PAIR}$"
"""The norm at the end of an encoder, which heads on raw blocks do not read."""

TASK_HEADS = (
    rf"^segmentation_head\.(?:projection|classifier|blocks\.\d+\.(?:depthwise|norm|fc1|fc2)){_PAIR}$",
    rf"^depth_head\.(?:stems\.\d+\.\d+|reduce|refine|predict){_PAIR}$",
    r"^depth_head\.laterals\.\d+\.weight$",
    rf"^depth_head\.fusions\.\d+\.(?:(?:skip_)?unit\.conv[12]|projection){_PAIR}$",
    r"^depth_prior\.metres$",
    rf"^(?:fc_norm|classifier|temporal_classifier){_PAIR}$",
    r"^gru\.(?:weight|bias)_[ih]h_l\d+(?:_reverse)?$",
)
"""Heads of the fine-tuned models."""
