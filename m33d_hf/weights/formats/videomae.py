"""VideoMAE in the layout of its original repository (MCG-NJU/VideoMAE): pre-training and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, Row, block_rows, parameter_rows, row
from m33d_hf.weights.known.names import FORMAT_NAMES


def _attention_bias_rows(foreign_layer: str, part: str) -> tuple[Row, ...]:
    return tuple(
        row(rf"{foreign_layer}\.attn\.{piece}_bias", rf"{part}.layers.\g<n>.attention.qkv.bias:{piece}")
        for piece in ("q", "v")
    )


def _refuse_positions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Files do not hold the fixed table, so a table in a file was learned."""
    for key in ("encoder.pos_embed", "pos_embed"):
        if key in tensors:
            raise ConversionError(
                f"VideoMAE: {key!r} is a position table, which only models with learned positions"
                " (use_learnable_pos_emb) save: one table over all tokens of a clip. Ours are the fixed one, or the"
                " sum of a learned spatial and a learned temporal table (MAE-ST); convert the checkpoint of a model "
                "with"
                " fixed positions."
            )
    return dict(tensors)


_ENCODER_LAYER = r"(?:encoder\.)?blocks\.(?P<n>\d+)"
_DECODER_LAYER = r"decoder\.blocks\.(?P<n>\d+)"

RELEASED = Released(
    heads={(384, 12, 16): 6, (768, 12, 16): 12, (1024, 24, 16): 16, (1280, 32, 16): 16},
    decoder_heads={192: 3, 384: 6, 512: 8, 640: 8},
)

TABLE = FormatTable(
    name=FORMAT_NAMES["videomae"],
    position_kind="sincos_1d",
    released=RELEASED,
    zero_key_bias=True,
    prepare=_refuse_positions,
    zero_fill={"decoder.embed.bias": "decoder.embed.weight"},
    rows=(
        row(r"mask_token", "decoder.mask_token"),
        row(r"encoder_to_decoder\.weight", "decoder.embed.weight"),
        *parameter_rows(
            [
                (r"(?:encoder\.)?patch_embed\.proj", "patch"),
                (r"(?:encoder\.)?norm", "encoder.layernorm"),
                (r"decoder\.norm", "decoder.layernorm"),
                (r"decoder\.head", "decoder.head"),
                (r"fc_norm", "fc_norm"),
                (r"head", "classifier"),
            ]
        ),
        *_attention_bias_rows(_ENCODER_LAYER, "encoder"),
        *_attention_bias_rows(_DECODER_LAYER, "decoder"),
        *block_rows(_ENCODER_LAYER, "encoder", TIMM_BLOCK),
        *block_rows(_DECODER_LAYER, "decoder", TIMM_BLOCK),
    ),
)
