"""MultiMAE's pre-training and fine-tuning layout: encoder, input and output adapters; and its encoder as timm has it.

Its position table is MAE's with the two axes exchanged, that is, with the halves of the channels swapped. Our models
have MAE's table, so the halves of every residual stream are swapped on the way: rows of what writes to a stream,
columns of what reads it, norms and learned tokens. The converted model computes the same function, and its features are
theirs with the halves of the channels exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.weights.formats import mae, multimae_heads
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Neutral, Released, block_rows, parameter_rows, row
from m33d_hf.weights.formats.positions import find_grid
from m33d_hf.weights.known.names import FORMAT_NAMES

NOTE = (
    "features equal MultiMAE's with the two halves of their channels exchanged (MultiMAE's positions are MAE's"
    " with the axes exchanged); predictions are MultiMAE's"
)

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
    "out_proj": "head",
}
# Parts of its heads for fine-tuning: linear, Segmenter, and what `multimae_heads` does not take of ConvNeXt and DPT.
_TASK_HEAD = (
    r"output_adapters\.\w+\.(?:norm|head|blocks|final_layer|proj_dec|scratch|act_postprocess|act_\d_postprocess"
    r"|cls_emb|patch_proj|classes_proj|decoder_norm|mask_norm)(?:\..+)?"
)
# The decoder of the released pre-training, for checkpoints without one.
RELEASED_DECODER = {
    "decoder_hidden_size": 256,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 8,
    "decoder_intermediate_size": 1024,
}

# Options of its trainer, on in the released models and in ours; the first cannot be read from the weights.
DECODER_SWITCHES = ("decoder_use_task_queries", "decoder_use_xattn")

# What reads a residual stream (its columns are channels of the stream) and what writes to one (its rows are).
_READS = re.compile(
    r".*(?:attn\.qkv|mlp\.fc1|proj_context|decoder\.q|decoder\.kv|out_proj)\.weight|head\.weight|"
    r".*(?:global_tokens|mask_token|task_embeddings\.\w+)|cls_token"
)
_WRITES = re.compile(
    r"(?:input_adapters\.\w+|patch_embed)\.proj\.(?:weight|bias)|(?:fc_)?norm\.(?:weight|bias)|"
    r".*(?:attn\.proj|decoder\.proj|mlp\.fc2|proj_context|norm1|norm2|query_norm|context_norm|out_norm)\.(?:weight|bias)"
)
_HEAD = re.compile(rf"{_TARGET}\.out_proj\.(?:weight|bias)")


def _swap_halves(tensor: Tensor, dim: int) -> Tensor:
    first, second = tensor.chunk(2, dim=dim)
    return torch.cat([second, first], dim=dim)


def _prepare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring MultiMAE's tensors to our channel order, without renaming any."""
    result = {}
    for key, tensor in tensors.items():
        try:
            result[key] = _in_our_order(key, tensor)
        except (RuntimeError, IndexError, ValueError) as error:  # torch's words on dimensions that are not there
            shape = tuple(tensor.shape)
            raise ConversionError(f"MultiMAE: {key!r} has shape {shape}, which this weight cannot have.") from error
    return result


def _in_our_order(key: str, tensor: Tensor) -> Tensor:
    if key.endswith(".pos_emb"):
        # (1, D, h, w) to (1, h, w, D)
        tensor = _swap_halves(tensor.movedim(1, -1), dim=-1)
    if _READS.fullmatch(key):
        tensor = _swap_halves(tensor, dim=-1)
    if _WRITES.fullmatch(key):
        tensor = _swap_halves(tensor, dim=0)
    reads = multimae_heads.reading_dimension(key)
    if reads is not None:
        tensor = _swap_halves(tensor, dim=reads)
    head = _HEAD.fullmatch(key)
    if head:
        # Values of a patch: theirs have the channel slowest, ours fastest.
        tensor = tensor.unflatten(0, (_CHANNELS[head["t"]], -1)).transpose(0, 1).flatten(0, 1)
    return tensor


def _prepare_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for the timm layout, whose table may have a row of zeros for the class token: ours always has."""
    result = _prepare(tensors)
    table = _swap_halves(tensors["pos_embed"], dim=-1)
    has_row = isqrt(table.shape[1]) ** 2 != table.shape[1]
    result["pos_embed"] = table if has_row else torch.nn.functional.pad(table, (0, 0, 1, 0))
    return result


def is_timm_layout(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a ViT's `pos_embed` is the fixed table with exchanged axes: MultiMAE's encoder, released for timm."""
    table = tensors.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[-1] % 4 or table.shape[1] < 2:
        return False
    rows = table[0, int(isqrt(table.shape[1]) ** 2 != table.shape[1]) :]
    if find_grid(rows, "sincos_2d", []) is not None:
        return False
    return find_grid(_swap_halves(rows, dim=-1), "sincos_2d", []) is not None


_RELEASED = Released(heads=mae.RELEASED.heads, decoder_heads={256: 8})

TABLE = FormatTable(
    name=FORMAT_NAMES["multimae"],
    position_kind="sincos_2d",
    released=_RELEASED,
    prepare=_prepare,
    note=NOTE,
    rows=(
        *multimae_heads.ROWS,
        row(_TASK_HEAD, reason="head of a fine-tuned model that ours do not have"),
        row(r".*semseg.*", reason="the pseudo-labelled semantic segmentation, which our models do not use"),
        row(r"global_tokens", "cls_token"),
        row(r"input_adapters\.rgb\.pos_emb", "table:encoder"),
        row(r"input_adapters\.(?P<m>\w+)\.pos_emb", r"table:encoder.\g<m>"),
        row(rf"{_TARGET}\.pos_emb", r"table:decoder.\g<t>"),
        row(rf"{_TARGET}\.mask_token", rf"{_OURS}.mask_token"),
        row(rf"{_TARGET}\.task_embeddings\.(?P<m>\w+)", rf"{_OURS}.task_embeddings.\g<m>"),
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

TIMM_TABLE = FormatTable(
    name=FORMAT_NAMES["multimae_timm"],
    position_kind="sincos_2d",
    released=_RELEASED,
    cls_position_row=True,
    prepare=_prepare_timm,
    note=NOTE,
    rows=(
        row(r"cls_token|global_tokens", "cls_token"),
        row(r"pos_embed", "table:encoder"),
        *parameter_rows(
            [
                (r"patch_embed\.proj", "patch"),
                (r"norm", "encoder.layernorm"),
                (r"fc_norm", "fc_norm"),
                (r"head", "classifier"),
            ]
        ),
        *block_rows(r"blocks\.(?P<n>\d+)", "encoder", TIMM_BLOCK),
    ),
)


def modality_arguments(neutral: Neutral) -> dict[str, Any]:
    """`M33DConfig` arguments of method multimae that are not sizes, for what the checkpoint holds.

    Without decoders (an encoder alone, or a fine-tuned model) every modality is both input and target of new ones.
    """
    targets = {name for name in _CHANNELS if _has_target(neutral, name)} or {"rgb", "depth"}
    modalities = [rgb_modality(target_norm="none", weight=float("rgb" in targets))]
    if "patch_depth.weight" in neutral.weights:
        modalities.append(depth_modality(weight=float("depth" in targets)))
    if "norm_rgb" in targets:
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


def _has_target(neutral: Neutral, name: str) -> bool:
    return any(key.startswith(f"decoder.targets.{name}.") for key in neutral.weights)


def decoder_sizes(neutral: Neutral) -> dict[str, int]:
    """The `decoder_...` fields, without heads, that fit the checkpoint's decoders; empty where it has none."""
    for name in _CHANNELS:
        own = f"decoder.targets.{name}"
        embed, inner = (neutral.weights.get(f"{own}.{leaf}.weight") for leaf in ("embed", "mlp.fc1"))
        if embed is not None and inner is not None:
            return {
                "decoder_hidden_size": embed.tensor.shape[0],
                "decoder_num_hidden_layers": neutral.depth(own),
                "decoder_intermediate_size": inner.tensor.shape[0],
            }
    return {}


def target_obstacle(
    neutral: Neutral, heads: int | None, arguments: Mapping[str, Any], config: M33DConfig
) -> str | None:
    """Why the checkpoint's decoders do not fit the model's, None when they do.

    Args:
        neutral: the checkpoint.
        heads: of its decoders; None where nothing tells them.
        arguments: those that the original run saved.
        config: the model.
    """
    for name in DECODER_SWITCHES:
        if arguments.get(name) is False:
            return f"a different kind of decoders: the saved arguments have {name} False, ours True"
    wanted = decoder_sizes(neutral)
    if heads is not None:
        wanted["decoder_num_attention_heads"] = heads
    wrong = [f"{n} {v} (model: {getattr(config, n)})" for n, v in wanted.items() if getattr(config, n) != v]
    return f"decoders of a different shape: {', '.join(wrong)}" if wrong else None
