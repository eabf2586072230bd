"""A plain ViT under timm's names whose positions were learned.

That is what timm's supervised models save (augreg, DeiT without distillation), DINO (v1) with its projection head, and
MAE once it was fine-tuned, which trains the positions: all of them have the same blocks and names, and nothing but the
position table tells them from an MAE pre-training (`mae`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, block_rows, parameter_rows, row

HEADS = {
    **{(192, 12, 16): 3, (384, 12, 8): 6, (384, 12, 16): 6, (384, 12, 32): 6},
    **{(768, 12, 8): 12, (768, 12, 16): 12, (768, 12, 32): 12},
    **{(1024, 24, 14): 16, (1024, 24, 16): 16, (1024, 24, 32): 16, (1280, 32, 14): 16},
}
"""(width, layers, patch) of the published models -> heads."""

_SCALE = re.compile(r"(blocks\.\d+)\.ls([12])\.gamma")
_SCALED = {"1": "attn.proj", "2": "mlp.fc2"}


def prepare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A table without a row for the class token gets one of zeros; layer scales go into what they scale."""
    result = dict(tensors)
    table = tensors.get("pos_embed")
    if table is not None and table.ndim == 3 and not has_class_row(table.shape[1], "cls_token" in tensors):
        result["pos_embed"] = torch.nn.functional.pad(table, (0, 0, 1, 0))
    for match in filter(None, map(_SCALE.fullmatch, tensors)):
        gamma = tensors[match[0]]
        for leaf in ("weight", "bias"):
            key = f"{match[1]}.{_SCALED[match[2]]}.{leaf}"
            if key not in result:
                continue  # reported as missing later
            if result[key].shape[:1] != gamma.shape:
                raise ConversionError(
                    f"timm: {match[0]!r} has shape {tuple(gamma.shape)}, {key!r} {tuple(result[key].shape)}; it cannot"
                    " scale what that writes."
                )
            # In float32: the product of two halves has more digits than a half holds.
            scale = gamma.float().reshape(-1, *[1] * (result[key].ndim - 1))
            result[key] = result[key].float() * scale
    return result


def has_class_row(rows: int, class_token: bool) -> bool:
    """Whether a position table of so many rows begins with one for the class token.

    timm's `no_embed_class` leaves it out beside a class token; then the rows themselves make a square.
    """
    return class_token and not (isqrt(rows) ** 2 == rows and isqrt(rows - 1) ** 2 != rows - 1)


TABLE = FormatTable(
    name="ViT (timm's names: timm, DINO, MAE fine-tuned)",
    position_kind="learned",
    position_resize="antialias",
    cls_position_row=True,
    prepare=prepare,
    released=Released(heads=HEADS),
    rows=(
        row(r"cls_token", "cls_token"),
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
        row(r"blocks\.\d+\.ls[12]\.gamma", reason="layer scale, multiplied into the projection that it scales"),
        row(r"head\.(?:mlp|last_layer\d?)\..+", reason="projection head of self-distillation; our models have none"),
        row(r"head\.(?:0\.(?:running_(?:mean|var)|num_batches_tracked)|1\.(?:weight|bias))", reason=FINE_TUNE_REASON),
        row(r"pre_logits\.fc\.(?:weight|bias)", reason=FINE_TUNE_REASON),
        *block_rows(r"blocks\.(?P<n>\d+)", "encoder", TIMM_BLOCK),
    ),
)
