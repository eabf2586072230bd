"""The RGB encoder's weights under other projects' names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from m33d_hf.modeling.layers_m33d import M33DLayer
from m33d_hf.weights.export.source import Source
from m33d_hf.weights.formats.layout import LEGACY_TRANSFORMERS_BLOCK, TIMM_BLOCK

_ROWS = {"q": 0, "k": 1, "v": 2}


def block_weights(layer: M33DLayer, names: Mapping[str, str]) -> dict[str, Tensor]:
    """One block under the names of a table of `m33d_hf.weights.formats.layout` (theirs -> ours)."""
    ours = layer.state_dict()
    theirs: dict[str, Tensor] = {}
    for foreign, own in names.items():
        module, _, part = own.partition(":")
        for kind in ("weight", "bias"):
            tensor = ours.get(f"{module}.{kind}")
            if tensor is not None:
                theirs[f"{foreign}.{kind}"] = tensor.chunk(3)[_ROWS[part]] if part else tensor
    return theirs


def transformers_encoder(source: Source, layers: str) -> dict[str, Tensor]:
    """Patch projection, blocks and final norm as transformers writes ViT and VideoMAE to disk, prefixed `layers`."""
    weights = {
        f"embeddings.patch_embeddings.projection.{kind}": tensor
        for kind, tensor in source.embedding.projection.state_dict().items()
    }
    for number, layer in enumerate(source.encoder.layers):
        block = block_weights(layer, LEGACY_TRANSFORMERS_BLOCK)  # type: ignore[arg-type]
        weights |= {f"{layers}.{number}.{name}": tensor for name, tensor in block.items()}
    return weights | _norm(source, "layernorm")


def timm_encoder(source: Source) -> dict[str, Tensor]:
    """Patch projection, blocks and final norm under the names of timm's VisionTransformer."""
    weights = {f"patch_embed.proj.{kind}": each for kind, each in source.embedding.projection.state_dict().items()}
    for number, layer in enumerate(source.encoder.layers):
        block = block_weights(layer, TIMM_BLOCK)  # type: ignore[arg-type]
        weights |= {f"blocks.{number}.{name}": tensor for name, tensor in block.items()}
    return weights | _norm(source, "norm")


def _norm(source: Source, name: str) -> dict[str, Tensor]:
    norm = source.encoder.layernorm
    return {} if norm is None else {f"{name}.{kind}": tensor for kind, tensor in norm.state_dict().items()}


def prefix_token(source: Source) -> Tensor | None:
    """(1, 1, D): the class token, or the global token instead: attention does not depend on the order of tokens."""
    token = source.embedding.cls_token
    return token if token is not None else source.encoders.global_token


def positions(source: Source, prefix: int) -> Tensor:
    """(1, prefix + N, D) at the configured size, with `prefix` rows of zeros in front."""
    with torch.no_grad():
        table = source.encoders.positions(source.config.grid)
    return torch.cat([table.new_zeros(prefix, table.shape[1]), table])[None]


def side_or_sides(sides: tuple[int, int]) -> int | list[int]:
    """One number for a square, as most configurations have it."""
    return sides[0] if sides[0] == sides[1] else list(sides)
