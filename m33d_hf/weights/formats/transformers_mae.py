"""ViTMAE and ViT as transformers stores them: the names of version 4 (also written to disk by version 5) and those that
version 5 uses in memory. With or without the ``vit.`` prefix."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from m33d_hf.weights.formats import mae, timm_vit
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layout import (
    LEGACY_TRANSFORMERS_BLOCK,
    FormatTable,
    Released,
    Row,
    block_rows,
    parameter_rows,
    row,
)
from m33d_hf.weights.known.names import FORMAT_NAMES

IN_MEMORY_BLOCK = {
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "attention.q_proj": "attention.qkv:q",
    "attention.k_proj": "attention.qkv:k",
    "attention.v_proj": "attention.qkv:v",
    "attention.o_proj": "attention.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# 4.x wrote decoder.decoder_layers.N; 5.x writes decoder.decoder_encoder.layer.N (its encoder rename hits
# both).
_LEGACY_DECODER = r"decoder\.(?:decoder_layers|decoder_encoder\.layer)\.(?P<n>\d+)"
_MASKED_IMAGE_REASON = "the encoder's own masked pre-training: its mask token and the layer that predicts pixels"
_ENCODER: tuple[Row, ...] = (
    row(r"(?:vit\.)?embeddings\.cls_token", "cls_token"),
    row(r"(?:vit\.)?embeddings\.position_embeddings", "table:encoder"),
    *parameter_rows(
        [
            (r"(?:vit\.)?embeddings\.patch_embeddings\.projection", "patch"),
            (r"(?:vit\.)?layernorm", "encoder.layernorm"),
        ]
    ),
    *block_rows(r"(?:vit\.)?encoder\.layer\.(?P<n>\d+)", "encoder", LEGACY_TRANSFORMERS_BLOCK),
    *block_rows(r"(?:vit\.)?layers\.(?P<n>\d+)", "encoder", IN_MEMORY_BLOCK),
)

TABLE = FormatTable(
    name=FORMAT_NAMES["transformers_mae"],
    position_kind="sincos_2d",
    cls_position_row=True,
    released=mae.RELEASED,
    rows=(
        *_ENCODER,
        row(r"decoder\.mask_token", "decoder.mask_token"),
        row(r"decoder\.decoder_pos_embed", "table:decoder"),
        *parameter_rows(
            [
                (r"decoder\.decoder_embed", "decoder.embed"),
                (r"decoder\.decoder_norm", "decoder.layernorm"),
                (r"decoder\.decoder_pred", "decoder.head"),
            ]
        ),
        *block_rows(_LEGACY_DECODER, "decoder", LEGACY_TRANSFORMERS_BLOCK),
        *block_rows(r"decoder\.decoder_layers\.(?P<n>\d+)", "decoder", IN_MEMORY_BLOCK),
        row(r"(classifier|(?:vit\.)?pooler\.dense)\.(weight|bias)", reason=FINE_TUNE_REASON),
    ),
)


def _prepare_vit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inner = "vit.embeddings." if "vit.embeddings.position_embeddings" in tensors else "embeddings."
    return timm_vit.with_class_row(tensors, f"{inner}position_embeddings", f"{inner}cls_token")


# The same encoder with learned positions: ViTModel and its heads, DINO (v1) and ViTMSN on the Hub, ViTMAE fine-tuned.
VIT_TABLE = FormatTable(
    name=FORMAT_NAMES["transformers_vit"],
    position_kind="learned",
    prepare=_prepare_vit,
    cls_position_row=True,
    released=Released(heads=timm_vit.HEADS, layer_norm_eps=1e-12),
    rows=(
        *_ENCODER,
        *parameter_rows([(r"classifier", "classifier")]),
        row(r"(?:vit\.)?pooler\.dense\.(weight|bias)", reason="pooler of the class token; our models have none"),
        row(r"(?:vit\.)?embeddings\.mask_token|decoder\.0\.(weight|bias)", reason=_MASKED_IMAGE_REASON),
    ),
)
