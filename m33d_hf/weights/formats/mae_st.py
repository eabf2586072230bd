"""The spatio-temporal MAE (facebookresearch/mae_st, Kinetics) in its original layout: pre-training and fine-tuning.

Its positions were learned, apart for places and for moments; the position of a token is the sum of both, as in our
models. Query, key and value are three layers. Its decoder predicts one frame of each tubelet and has a class token of
its own, so it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, Row, block_rows, parameter_rows, row
from m33d_hf.weights.known.names import FORMAT_NAMES

_BLOCK = {**TIMM_BLOCK, **{f"attn.{piece}": f"attention.qkv:{piece}" for piece in ("q", "k", "v")}}
_DECODER_REASON = (
    "the decoder predicts one frame of each tubelet and reads a class token of its own; ours predicts whole tubelets"
)


def _refuse_joint_table(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A table over (t, h, w) is not a sum of two tables; the released models have two."""
    if "pos_embed" in tensors:
        raise ConversionError(
            "MAE-ST: 'pos_embed' is one table over space and time (trained without sep_pos_embed). Our models add"
            " a spatial and a temporal table; convert a checkpoint with pos_embed_spatial and"
            " pos_embed_temporal, as all released ones are."
        )
    return dict(tensors)


def _rows(norm: str) -> tuple[Row, ...]:
    return (
        row(r"cls_token", "cls_token"),
        row(r"pos_embed_(?P<part>spatial|temporal|class)", r"table:encoder.\g<part>"),
        *parameter_rows([(r"patch_embed\.proj", "patch"), (r"norm", norm), (r"head(?:\.projection)?", "classifier")]),
        row(r"mask_token|decoder_.+", reason=_DECODER_REASON),
        *block_rows(r"blocks\.(?P<n>\d+)", "encoder", _BLOCK),
    )


TABLE = FormatTable(
    name=FORMAT_NAMES["mae_st"],
    position_kind="learned",
    prepare=_refuse_joint_table,
    released=Released(heads={(768, 12, 16): 12, (1024, 24, 16): 16, (1280, 32, 14): 16, (1280, 32, 16): 16}),
    rows=_rows("encoder.layernorm"),
)
# The fine-tuned model normalises the mean of the tokens; the name of the norm is the same.
FINE_TUNED_TABLE = replace(TABLE, name=FORMAT_NAMES["mae_st_finetuned"], rows=_rows("fc_norm"))
