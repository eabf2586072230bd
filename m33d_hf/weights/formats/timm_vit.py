"""A plain ViT under timm's names whose positions were learned.

That is what timm's supervised models save (augreg, DeiT without distillation), DINO (v1) with its projection head, and
MAE once it was fine-tuned, which trains the positions: all of them have the same blocks and names, and nothing but the
position table tells them from an MAE pre-training (`mae`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layer_scale import FOLDED_REASON, LayerScales
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, block_rows, parameter_rows, row
from m33d_hf.weights.known.names import FORMAT_NAMES

HEADS = {
    **{(192, 12, 16): 3, (384, 12, 8): 6, (384, 12, 16): 6, (384, 12, 32): 6},
    **{(768, 12, 8): 12, (768, 12, 16): 12, (768, 12, 32): 12},
    **{(1024, 24, 14): 16, (1024, 24, 16): 16, (1024, 24, 32): 16, (1280, 32, 14): 16},
}
"""(width, layers, patch) of the published models -> heads."""

_SCALES = LayerScales(r"blocks\.\d+", {"ls1.gamma": ("attn.proj",), "ls2.gamma": ("mlp.fc2",)})


def prepare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a row of zeros to a table without one for the class token; fold layer scales."""
    result = with_class_row(tensors, "pos_embed", "cls_token")
    return _SCALES.fold(result, "timm")


def with_class_row(tensors: Mapping[str, Tensor], key: str, token: str) -> dict[str, Tensor]:
    """The tensors with a row of zeros for the class token before the table `key` where it has none.

    It has none without a class token, or with timm's `no_embed_class`; then the rows themselves make a square.
    """
    table = tensors.get(key)
    if table is None or table.ndim != 3:
        return dict(tensors)
    rows = table.shape[1]
    square = isqrt(rows) ** 2 == rows and isqrt(rows - 1) ** 2 != rows - 1
    if token in tensors and not square:
        return dict(tensors)
    return {**tensors, key: torch.nn.functional.pad(table, (0, 0, 1, 0))}


TABLE = FormatTable(
    name=FORMAT_NAMES["timm_vit"],
    position_kind="learned",
    position_resize="antialias",
    cls_position_row=True,
    prepare=prepare,
    released=Released(heads=HEADS),
    rows=(
        row(r"cls_token", "cls_token"),
        row(r"reg_token", "encoder.register_tokens"),
        row(r"pos_embed", "table:encoder"),
        row(r"mask_token", reason="the token of masked patches in the encoder's own pre-training"),
        *parameter_rows(
            [
                (r"patch_embed\.proj", "patch"),
                (r"norm", "encoder.layernorm"),
                (r"fc_norm", "fc_norm"),
                (r"head", "classifier"),
            ]
        ),
        row(_SCALES.pattern, reason=FOLDED_REASON),
        row(r"head\.(?:mlp|last_layer\d?)\..+", reason="projection head of self-distillation; our models have none"),
        row(r"head\.(?:0\.(?:running_(?:mean|var)|num_batches_tracked)|1\.(?:weight|bias))", reason=FINE_TUNE_REASON),
        row(r"pre_logits\.fc\.(?:weight|bias)", reason=FINE_TUNE_REASON),
        *block_rows(r"blocks\.(?P<n>\d+)", "encoder", TIMM_BLOCK),
    ),
)
