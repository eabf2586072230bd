"""Detects the format of a checkpoint by its keys and the rank of the patch kernel, never by the file name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats import (
    dinov2,
    mae,
    mae_st,
    multimae,
    timm_vit,
    transformers_mae,
    transformers_videomae,
    videomae,
)
from m33d_hf.weights.formats.elsewhere import refuse_other_architectures, refuse_vivit
from m33d_hf.weights.formats.layout import FormatTable
from m33d_hf.weights.formats.positions import find_grid

FORMATS: dict[str, FormatTable] = {
    "mae": mae.TABLE,
    "mae_st": mae_st.TABLE,
    "mae_st_finetuned": mae_st.FINE_TUNED_TABLE,
    "videomae": videomae.TABLE,
    "multimae": multimae.TABLE,
    "multimae_timm": multimae.TIMM_TABLE,
    "timm_vit": timm_vit.TABLE,
    "transformers_mae": transformers_mae.TABLE,
    "transformers_vit": transformers_mae.VIT_TABLE,
    "transformers_videomae": transformers_videomae.TABLE,
    **dinov2.TABLES,
}

# (pattern of the patch kernel's key, number of its dimensions, format)
_PATCH_KERNELS = (
    (re.compile(r"patch_embed\.proj\.weight"), 4, "mae"),
    (re.compile(r"(?:encoder\.)?patch_embed\.proj\.weight"), 5, "videomae"),
    (re.compile(r"input_adapters\.rgb\.proj\.weight"), 4, "multimae"),
    (
        re.compile(r"(?:(?:vit|dinov2(?:_with_registers)?)\.)?embeddings\.patch_embeddings\.projection\.weight"),
        4,
        "transformers_mae",
    ),
    (
        re.compile(r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.weight"),
        5,
        "transformers_videomae",
    ),
)
_RECOGNISED_ELSEWHERE = (
    (
        re.compile(r"(m33d\.)?(embeddings\.rgb\.|encoders\.)"),
        "this is already an M33D checkpoint: load it with from_pretrained; no conversion is needed",
    ),
    (re.compile(r"input_adapters\."), "this is a MultiMAE checkpoint without an RGB adapter, which our models require"),
)


# Plain image transformers: other formats with the same names are told apart by other weights.
_PLAIN = ("mae", "transformers_mae")


def detect_format(tensors: Mapping[str, Tensor], origin: str = "checkpoint") -> str:
    """Return a key of `FORMATS`.

    Raises:
        ConversionError: another architecture, with what would be needed; else some keys and the known formats.
    """
    refuse_vivit(tensors, origin)
    name = _by_patch_kernel(tensors)
    if name in _PLAIN and (found := dinov2.variant(tensors)) is not None:
        return found
    if name is None or name in _PLAIN:
        refuse_other_architectures(tensors, origin)
    if name is not None:
        return _variant(name, tensors)
    for pattern, message in _RECOGNISED_ELSEWHERE:
        if any(pattern.match(key) for key in tensors):
            raise ConversionError(f"{origin}: {message}.")
    sample = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in list(tensors.items())[:5])
    known = "; ".join(table.name for table in FORMATS.values())
    raise ConversionError(
        f"{origin}: {plural(len(tensors), 'tensor')} in an unknown layout (first keys: {sample})."
        f" Known formats: {known}; each is recognised by its patch embedding kernel (4-D image, 5-D clip)."
    )


def _by_patch_kernel(tensors: Mapping[str, Tensor]) -> str | None:
    for pattern, dimensions, name in _PATCH_KERNELS:
        if any(tensor.ndim == dimensions and pattern.fullmatch(key) for key, tensor in tensors.items()):
            return name
    return None


def _variant(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Formats of the same names: by the position table, or by weights that only one of them has."""
    if name == "videomae" and _is_mae_st(tensors):
        return "mae_st_finetuned" if any(key.startswith("head.") for key in tensors) else "mae_st"
    if name == "mae" and multimae.is_timm_layout(tensors):
        return "multimae_timm"
    if name == "mae" and _positions_are_learned(tensors, "pos_embed", "cls_token"):
        return "timm_vit"
    if name == "transformers_mae":
        inner = "vit.embeddings." if any(key.startswith("vit.embeddings.") for key in tensors) else "embeddings."
        learned = _positions_are_learned(tensors, f"{inner}position_embeddings", f"{inner}cls_token")
        return "transformers_vit" if learned else name
    return name


def _is_mae_st(tensors: Mapping[str, Tensor]) -> bool:
    return any(key in tensors for key in ("pos_embed_spatial", "pos_embed_temporal", "blocks.0.attn.q.weight"))


def _positions_are_learned(tensors: Mapping[str, Tensor], key: str, class_token: str) -> bool:
    """Whether a ViT's table is another than MAE's fixed one; files with MAE's decoder are left to MAE's rules."""
    table = tensors.get(key)
    if table is None or table.ndim != 3 or any(name.startswith("decoder_") or ".decoder_" in name for name in tensors):
        return False
    rows = table[0, int(class_token in tensors and table.shape[1] > 1) :]
    if not bool(rows.any()):
        return False  # an untouched table of transformers, which MAE's rules name
    if rows.shape[1] % 4:
        return True
    pairs = [(side, len(rows) // side) for side in range(2, len(rows) // 2 + 1) if len(rows) % side == 0]
    return find_grid(rows, "sincos_2d", pairs) is None
