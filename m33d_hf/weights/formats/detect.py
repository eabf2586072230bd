"""Which format is this? Decided by the keys and the rank of the patch kernel, never by a file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats import mae, multimae, transformers_mae, transformers_videomae, videomae
from m33d_hf.weights.formats.layout import FormatTable

FORMATS: dict[str, FormatTable] = {
    "mae": mae.TABLE,
    "videomae": videomae.TABLE,
    "multimae": multimae.TABLE,
    "multimae_timm": multimae.TIMM_TABLE,
    "transformers_mae": transformers_mae.TABLE,
    "transformers_videomae": transformers_videomae.TABLE,
}

# (pattern of the patch kernel's key, number of its dimensions, format)
_PATCH_KERNELS = (
    (re.compile(r"patch_embed\.proj\.weight"), 4, "mae"),
    (re.compile(r"(?:encoder\.)?patch_embed\.proj\.weight"), 5, "videomae"),
    (re.compile(r"input_adapters\.rgb\.proj\.weight"), 4, "multimae"),
    (re.compile(r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.weight"), 4, "transformers_mae"),
    (
        re.compile(r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.weight"),
        5,
        "transformers_videomae",
    ),
)
_RECOGNISED_ELSEWHERE = (
    (
        re.compile(r"(m33d\.)?(embeddings\.rgb\.|encoders\.)"),
        "this is an M33D checkpoint of our own: load it with from_pretrained, nothing needs converting",
    ),
    (re.compile(r"input_adapters\."), "this is a MultiMAE checkpoint without an RGB adapter, which our models need"),
)


def detect_format(tensors: Mapping[str, Tensor], origin: str = "checkpoint") -> str:
    """Return a key of `FORMATS`; raises `ConversionError` naming some keys and the known formats."""
    for pattern, dimensions, name in _PATCH_KERNELS:
        for key, tensor in tensors.items():
            if tensor.ndim == dimensions and pattern.fullmatch(key):
                return "multimae_timm" if name == "mae" and multimae.is_timm_layout(tensors) else name
    for pattern, message in _RECOGNISED_ELSEWHERE:
        if any(pattern.match(key) for key in tensors):
            raise ConversionError(f"{origin}: {message}.")
    sample = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in list(tensors.items())[:5])
    known = "; ".join(table.name for table in FORMATS.values())
    raise ConversionError(
        f"{origin}: {len(tensors)} tensors in a layout no converter knows (first keys: {sample})."
        f" Known formats: {known}; each is recognised by its patch embedding kernel (4-D image, 5-D clip)."
    )
