"""VideoMAE as transformers stores it, with or without the ``videomae.`` prefix.

On disk the biases are q_bias / v_bias, in the memory of version 5 query.bias / value.bias; loading one as
the other silently gave zero biases, so both are mapped here and neither may go missing.
"""

from __future__ import annotations

from m33d_hf.weights.formats.layout import LEGACY_TRANSFORMERS_BLOCK, FormatTable, Row, block_rows, parameter_rows, row
from m33d_hf.weights.formats.videomae import RELEASED
from m33d_hf.weights.known.names import FORMAT_NAMES


def _attention_bias_rows(foreign_layer: str, part: str) -> tuple[Row, ...]:
    target = rf"{part}.layers.\g<n>.attention.qkv.bias"
    return tuple(
        row(rf"{foreign_layer}\.attention\.attention\.{piece}_bias", f"{target}:{piece}") for piece in ("q", "v")
    )


_ENCODER_LAYER = r"(?:videomae\.)?encoder\.layer\.(?P<n>\d+)"
_DECODER_LAYER = r"decoder\.decoder_layers\.(?P<n>\d+)"

TABLE = FormatTable(
    name=FORMAT_NAMES["transformers_videomae"],
    position_kind="sincos_1d",
    released=RELEASED,
    zero_key_bias=True,
    zero_fill={"decoder.embed.bias": "decoder.embed.weight"},
    rows=(
        row(r"mask_token", "decoder.mask_token"),
        row(r"encoder_to_decoder\.weight", "decoder.embed.weight"),
        *parameter_rows(
            [
                (r"(?:videomae\.)?embeddings\.patch_embeddings\.projection", "patch"),
                (r"(?:videomae\.)?layernorm", "encoder.layernorm"),
                (r"decoder\.norm", "decoder.layernorm"),
                (r"decoder\.head", "decoder.head"),
                (r"fc_norm", "fc_norm"),
                (r"classifier", "classifier"),
            ]
        ),
        *_attention_bias_rows(_ENCODER_LAYER, "encoder"),
        *_attention_bias_rows(_DECODER_LAYER, "decoder"),
        *block_rows(_ENCODER_LAYER, "encoder", LEGACY_TRANSFORMERS_BLOCK),
        *block_rows(_DECODER_LAYER, "decoder", LEGACY_TRANSFORMERS_BLOCK),
    ),
)
