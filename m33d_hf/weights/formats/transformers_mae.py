"""ViTMAE as transformers stores it: the names of version 4 (also written to disk by version 5) and those that
version 5 uses in memory. With or without the ``vit.`` prefix."""

from __future__ import annotations

from m33d_hf.weights.formats import mae
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layout import LEGACY_TRANSFORMERS_BLOCK, FormatTable, block_rows, parameter_rows, row

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

TABLE = FormatTable(
    name="ViTMAE (transformers)",
    position_kind="sincos_2d",
    cls_position_row=True,
    released=mae.RELEASED,
    rows=(
        row(r"(?:vit\.)?embeddings\.cls_token", "cls_token"),
        row(r"(?:vit\.)?embeddings\.position_embeddings", "table:encoder"),
        row(r"decoder\.mask_token", "decoder.mask_token"),
        row(r"decoder\.decoder_pos_embed", "table:decoder"),
        *parameter_rows(
            [
                (r"(?:vit\.)?embeddings\.patch_embeddings\.projection", "patch"),
                (r"(?:vit\.)?layernorm", "encoder.layernorm"),
                (r"decoder\.decoder_embed", "decoder.embed"),
                (r"decoder\.decoder_norm", "decoder.layernorm"),
                (r"decoder\.decoder_pred", "decoder.head"),
            ]
        ),
        *block_rows(r"(?:vit\.)?encoder\.layer\.(?P<n>\d+)", "encoder", LEGACY_TRANSFORMERS_BLOCK),
        *block_rows(r"(?:vit\.)?layers\.(?P<n>\d+)", "encoder", IN_MEMORY_BLOCK),
        *block_rows(_LEGACY_DECODER, "decoder", LEGACY_TRANSFORMERS_BLOCK),
        *block_rows(r"decoder\.decoder_layers\.(?P<n>\d+)", "decoder", IN_MEMORY_BLOCK),
        row(r"(classifier|(?:vit\.)?pooler\.dense)\.(weight|bias)", reason=FINE_TUNE_REASON),
    ),
)
