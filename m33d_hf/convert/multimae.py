"""MultiMAE's released pre-training layout (REFERENCE.md §3.6): encoder, input and output adapters.

Its position table is MAE's with the two axes exchanged, that is, with the halves of the channels swapped. Our models
have MAE's table, so the halves of every residual stream are swapped on the way: rows of what writes to a stream,
columns of what reads it, norms and learned tokens. The converted model computes the same function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality

from .layout import TIMM_BLOCK, FormatTable, Neutral, block_rows, parameter_rows, row

_TARGET = r"output_adapters\.(?P<t>rgb|depth|norm_rgb)"
_OURS = r"decoder.targets.\g<t>"
_CHANNELS = {"rgb": 3, "norm_rgb": 3, "depth": 1}
_CROSS = {
    "proj_context": "embed",
    "query_norm": "query_norm",
    "context_norm": "context_norm",
    "out_norm": "out_norm",
    "decoder.q": "attention.qkv:q",
    "decoder.kv": "attention.qkv:kv",
    "decoder.proj": "attention.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}

# What reads a residual stream (its columns are channels of the stream) and what writes to one (its rows are).
_READS = re.compile(
    r".*(?:attn\.qkv|mlp\.fc1|proj_context|decoder\.q|decoder\.kv|out_proj\.\w+)\.weight|"
    r".*(?:global_tokens|mask_token|task_embeddings\.\w+)"
)
_WRITES = re.compile(
    r"input_adapters\.\w+\.proj\.(?:weight|bias)|"
    r".*(?:attn\.proj|decoder\.proj|mlp\.fc2|proj_context|norm1|norm2|query_norm|context_norm|out_norm)\.(?:weight|bias)"
)
_HEAD = re.compile(r"output_adapters\.(?P<t>rgb|depth|norm_rgb)\.out_proj\.\w+\.(?:weight|bias)")


def _swap_halves(tensor: Tensor, dim: int) -> Tensor:
    first, second = tensor.chunk(2, dim=dim)
    return torch.cat([second, first], dim=dim)


def _prepare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring MultiMAE's tensors to our channel order, without renaming any."""
    result = {}
    for key, tensor in tensors.items():
        if key.endswith(".pos_emb"):
            # (1, D, h, w) to (1, N, D)
            tensor = _swap_halves(tensor.flatten(2).mT, dim=2)
        if _READS.fullmatch(key):
            tensor = _swap_halves(tensor, dim=-1)
        if _WRITES.fullmatch(key):
            tensor = _swap_halves(tensor, dim=0)
        head = _HEAD.fullmatch(key)
        if head:
            # Values of a patch: theirs have the channel slowest, ours fastest.
            tensor = tensor.unflatten(0, (_CHANNELS[head["t"]], -1)).transpose(0, 1).flatten(0, 1)
        result[key] = tensor
    return result


TABLE = FormatTable(
    name="MultiMAE (original)",
    position_kind="sincos_2d",
    prepare=_prepare,
    rows=(
        row(r".*semseg.*", reason="the pseudo-labelled semantic segmentation, which our models do not take"),
        row(r"global_tokens", "cls_token"),
        row(r"input_adapters\.rgb\.pos_emb", "table:encoder"),
        row(r"input_adapters\.(?P<m>\w+)\.pos_emb", r"table:encoder.\g<m>"),
        row(rf"{_TARGET}\.pos_emb", r"table:decoder.\g<t>"),
        row(rf"{_TARGET}\.mask_token", rf"{_OURS}.mask_token"),
        row(rf"{_TARGET}\.task_embeddings\.(?P<m>\w+)", rf"{_OURS}.task_embeddings.\g<m>"),
        row(rf"{_TARGET}\.out_proj\.\w+\.(?P<leaf>weight|bias)", rf"{_OURS}.head.\g<leaf>"),
        *parameter_rows([(r"input_adapters\.rgb\.proj", "patch"), (r"input_adapters\.depth\.proj", "patch_depth")]),
        *block_rows(r"encoder\.(?P<n>\d+)", "encoder", TIMM_BLOCK),
        *block_rows(rf"{_TARGET}\.decoder_transformer\.(?P<n>\d+)", _OURS, TIMM_BLOCK),
        *(
            row(
                rf"{_TARGET}\.{re.escape(theirs)}\.(?P<leaf>weight|bias)",
                rf"{_OURS}.{ours.partition(':')[0]}.\g<leaf>" + (f":{ours.partition(':')[2]}" if ":" in ours else ""),
            )
            for theirs, ours in _CROSS.items()
        ),
    ),
)


def modality_arguments(neutral: Neutral) -> dict[str, Any]:
    """`M33DConfig` arguments of method multimae that are not sizes, for what the checkpoint holds."""
    modalities = [rgb_modality(target_norm="none", weight=_has_target(neutral, "rgb"))]
    if "patch_depth.weight" in neutral.weights:
        modalities.append(depth_modality(weight=_has_target(neutral, "depth")))
    if _has_target(neutral, "norm_rgb"):
        second = {"name": "norm_rgb", "role": "target", "target_of": "rgb", "mask_ratio": 1.0, "target_norm": "pooled"}
        modalities.append(rgb_modality(**second, weight=1.0))
    return {
        "modalities": modalities,
        "encoder_sharing": "shared",
        "joint_encoding": True,
        "encoder_norm": False,
        "global_token": True,
        "token_budget": 0.25,
        "decoder_kind": "per_target",
        "loss_reduction": "sample",
    }


def _has_target(neutral: Neutral, name: str) -> float:
    return float(any(key.startswith(f"decoder.targets.{name}.") for key in neutral.weights))


def decoder_sizes(neutral: Neutral) -> dict[str, int] | None:
    """The `decoder_...` fields that fit the checkpoint's decoders, None where it has none. Heads: 8 of 256 channels."""
    names = [key for key in neutral.weights if key.startswith("decoder.targets.")]
    if not names:
        return None
    first = ".".join(names[0].split(".")[:3])
    width = neutral.weights[f"{first}.embed.weight"].tensor.shape[0]
    layers = {key.split(".")[4] for key in names if key.startswith(f"{first}.layers.")}
    return {
        "decoder_hidden_size": width,
        "decoder_num_hidden_layers": len(layers),
        "decoder_num_attention_heads": max(1, width // 32),
        "decoder_intermediate_size": neutral.weights[f"{first}.mlp.fc1.weight"].tensor.shape[0],
    }


def target_obstacle(neutral: Neutral, foreign_config: Mapping[str, Any], config: M33DConfig) -> str | None:
    """Why the checkpoint's decoders do not fit the model's, None when they do."""
    wanted = decoder_sizes(neutral) or {}
    heads = foreign_config.get("decoder_num_attention_heads")
    if isinstance(heads, int):
        wanted["decoder_num_attention_heads"] = heads
    wrong = [f"{n} {v} (model: {getattr(config, n)})" for n, v in wanted.items() if getattr(config, n) != v]
    return f"decoders of another shape: {', '.join(wrong)}" if wrong else None
