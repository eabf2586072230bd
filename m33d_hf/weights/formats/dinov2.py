"""DINOv2, with and without register tokens: in transformers' names (of version 4, which version 5 writes to disk too,
and those that version 5 has in memory) and in those of its repository (facebookresearch/dinov2).

Its positions were learned; its layer scales go into the layers that they scale. For sizes other than the 518 pixels of
its position table the repository adds 0.1 to both sides before it computes the interpolation factor (not with
registers); transformers and this package pass the sides themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.layer_scale import FOLDED_REASON, LayerScales
from m33d_hf.weights.formats.layout import TIMM_BLOCK, FormatTable, Released, Row, block_rows, parameter_rows, row
from m33d_hf.weights.known.names import FORMAT_NAMES

_RELEASED = Released(heads={(384, 12, 14): 6, (768, 12, 14): 12, (1024, 24, 14): 16})
_MASK_REASON = "stands for masked patches in DINOv2's own training; our encoders see only visible patches"
_HEADS_REASON = "head of DINOv2's own training; our models have none"
_GATED = re.compile(r".*\.mlp\.(?:w12|w3|weights_in|weights_out|gate_proj|up_proj|down_proj)\.(?:weight|bias)")

_TRANSFORMERS_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attention.attention.query": "attention.qkv:q",
    "attention.attention.key": "attention.qkv:k",
    "attention.attention.value": "attention.qkv:v",
    "attention.output.dense": "attention.proj",
    "attention.q_proj": "attention.qkv:q",
    "attention.k_proj": "attention.qkv:k",
    "attention.v_proj": "attention.qkv:v",
    "attention.o_proj": "attention.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OUTER = r"(?:dinov2(?:_with_registers)?\.)?"
_TRANSFORMERS_SCALES = LayerScales(
    rf"{_OUTER}encoder\.layer\.\d+",
    {"layer_scale1.lambda1": ("attention.output.dense", "attention.o_proj"), "layer_scale2.lambda1": ("mlp.fc2",)},
)
# Its training saves blocks in chunks, with continuous numbers: blocks.0.0, blocks.0.1, blocks.1.2.
_ORIGINAL_BLOCK = r"blocks\.(?:\d+\.)?"
_ORIGINAL_SCALES = LayerScales(rf"{_ORIGINAL_BLOCK}\d+", {"ls1.gamma": ("attn.proj",), "ls2.gamma": ("mlp.fc2",)})


def _prepare(scales: LayerScales, name: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    def prepare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gated = next(filter(_GATED.fullmatch, tensors), None)
        if gated is not None:
            raise ConversionError(
                f"{name}: {gated!r} is of a gated MLP (SwiGLU), which DINOv2's giant model has. The MLP of our blocks"
                " has no gate; use the small, base or large model."
            )
        return scales.fold(tensors, name)

    return prepare


def _rows(names: Mapping[str, str], block: str, blocks: Mapping[str, str], scales: LayerScales) -> tuple[Row, ...]:
    tokens = {"cls_token": "cls_token", "position": "table:encoder", "register_tokens": "encoder.register_tokens"}
    modules = [(names["patch"], "patch"), (names["norm"], "encoder.layernorm"), (names["head"], "classifier")]
    return (
        *(row(names[name], target) for name, target in tokens.items()),
        row(names["mask_token"], reason=_MASK_REASON),
        row(scales.pattern, reason=FOLDED_REASON),
        *parameter_rows(modules),
        *block_rows(block, "encoder", blocks),
    )


_EMBEDDINGS = rf"{_OUTER}embeddings\."
TRANSFORMERS_TABLE = FormatTable(
    name=FORMAT_NAMES["transformers_dinov2"],
    position_kind="learned",
    cls_position_row=True,
    released=_RELEASED,
    prepare=_prepare(_TRANSFORMERS_SCALES, "DINOv2 (transformers)"),
    rows=_rows(
        {
            **{name: rf"{_EMBEDDINGS}{name}" for name in ("cls_token", "register_tokens", "mask_token")},
            "position": rf"{_EMBEDDINGS}position_embeddings",
            "patch": rf"{_EMBEDDINGS}patch_embeddings\.projection",
            "norm": rf"{_OUTER}layernorm",
            "head": "classifier",
        },
        rf"{_OUTER}encoder\.layer\.(?P<n>\d+)",
        _TRANSFORMERS_BLOCK,
        _TRANSFORMERS_SCALES,
    ),
)
ORIGINAL_TABLE = FormatTable(
    name=FORMAT_NAMES["dinov2"],
    position_kind="learned",
    cls_position_row=True,
    released=_RELEASED,
    prepare=_prepare(_ORIGINAL_SCALES, "DINOv2 (original)"),
    rows=(
        *_rows(
            {
                **{name: name for name in ("cls_token", "register_tokens", "mask_token")},
                "position": "pos_embed",
                "patch": r"patch_embed\.proj",
                "norm": "norm",
                "head": r"(?:linear_)?head",
            },
            rf"{_ORIGINAL_BLOCK}(?P<n>\d+)",
            TIMM_BLOCK,
            _ORIGINAL_SCALES,
        ),
        row(r"(?:dino|ibot)_head\..+", reason=_HEADS_REASON),
    ),
)
TABLES = {
    "transformers_dinov2": TRANSFORMERS_TABLE,
    "dinov2": ORIGINAL_TABLE,
    # Trained later: its code uses antialiasing when it downsamples the position table.
    "transformers_dinov2_registers": replace(
        TRANSFORMERS_TABLE, name=FORMAT_NAMES["transformers_dinov2_registers"], position_resize="antialias"
    ),
    "dinov2_registers": replace(ORIGINAL_TABLE, name=FORMAT_NAMES["dinov2_registers"], position_resize="antialias"),
}


def variant(tensors: Mapping[str, Tensor]) -> str | None:
    """The key of `TABLES` whose weights these are; None if they are not DINOv2.

    transformers' by the names of their layer scales; the repository's by a mask token (1, D) beside layer scales, which
    timm's files of the same models lack.
    """
    transformers = any(re.fullmatch(_TRANSFORMERS_SCALES.pattern, key) for key in tensors)
    mask = tensors.get("mask_token")
    original = any(re.fullmatch(_ORIGINAL_SCALES.pattern, key) for key in tensors) and mask is not None
    if not transformers and not (original and mask is not None and mask.ndim == 2):
        return None
    registers = any(re.fullmatch(rf"(?:{_EMBEDDINGS})?register_tokens", key) for key in tensors)
    return ("transformers_dinov2" if transformers else "dinov2") + ("_registers" if registers else "")
