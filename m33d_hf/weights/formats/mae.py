"""MAE in the layout of its original repository (facebookresearch/mae): encoder, with decoder, or fine-tuned."""

from __future__ import annotations

from m33d_hf.weights.formats.classes import FINE_TUNE_REASON
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, block_rows, parameter_rows, row
from m33d_hf.weights.known.names import FORMAT_NAMES

RELEASED = Released(heads={(768, 12, 16): 12, (1024, 24, 16): 16, (1280, 32, 14): 16}, decoder_heads={512: 16})

TABLE = FormatTable(
    name=FORMAT_NAMES["mae"],
    position_kind="sincos_2d",
    cls_position_row=True,
    released=RELEASED,
    rows=(
        row(r"cls_token", "cls_token"),
        row(r"mask_token", "decoder.mask_token"),
        row(r"pos_embed", "table:encoder"),
        row(r"decoder_pos_embed", "table:decoder"),
        *parameter_rows(
            [
                (r"patch_embed\.proj", "patch"),
                (r"norm", "encoder.layernorm"),
                (r"decoder_embed", "decoder.embed"),
                (r"decoder_norm", "decoder.layernorm"),
                (r"decoder_pred", "decoder.head"),
                (r"fc_norm", "fc_norm"),
                (r"head", "classifier"),
            ]
        ),
        row(r"head\.(?:0\.(?:running_(?:mean|var)|num_batches_tracked)|1\.(?:weight|bias))", reason=FINE_TUNE_REASON),
        *block_rows(r"blocks\.(?P<n>\d+)", "encoder", TIMM_BLOCK),
        *block_rows(r"decoder_blocks\.(?P<n>\d+)", "decoder", TIMM_BLOCK),
    ),
)
