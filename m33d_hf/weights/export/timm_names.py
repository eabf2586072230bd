"""Export to a state dict with the names of timm's VisionTransformer."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m33d_hf.errors import MissingDependencyError
from m33d_hf.weights.export.agreement import both_precisions, demand, plain
from m33d_hf.weights.export.encoder_weights import positions, prefix_token, side_or_sides, timm_encoder
from m33d_hf.weights.export.export_report import versions
from m33d_hf.weights.export.obstacles import refuse_obstacles
from m33d_hf.weights.export.source import Source

WEIGHTS = "model.safetensors"
BATCHES = (1, 3)


def write_timm(source: Source, folder: Path, tolerance: float) -> dict[str, Any]:
    """Write the encoder's weights for timm; returns the report, with the arguments of the class that holds them.

    Raises:
        ExportError: an obstacle, or timm's model does not agree.
        MissingDependencyError: timm is not installed.
    """
    refuse_obstacles(source, "timm")
    arguments = _arguments(source)
    registers = source.encoder.register_tokens
    weights = timm_encoder(source)
    token = prefix_token(source)
    if token is not None:
        weights["cls_token"] = token
    if registers is not None:
        weights["reg_token"] = registers
    # timm's plain ViT has a row for the class token; with registers, as timm's DINOv2, none of them has one.
    weights["pos_embed"] = positions(source, int(token is not None and not arguments["no_embed_class"]))
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}, folder / WEIGHTS)
    theirs = build_timm(arguments, source.config.layer_norm_eps)
    theirs.load_state_dict(load_file(folder / WEIGHTS))
    first, count = int(token is not None), int(arguments["reg_tokens"])

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = theirs.forward_features(pixels)  # type: ignore[operator]
        return source.encode(pixels), torch.cat([found[:, :first], found[:, first + count :]], dim=1)

    shape = [source.config.spec("rgb").channels, *source.config.image_height_width]
    differences = both_precisions(source.model, theirs, run, [[batch, *shape] for batch in BATCHES])
    demand(differences["float64"], tolerance, f"timm's VisionTransformer with {folder.parent / WEIGHTS}")
    spec = source.config.spec("rgb")
    return {
        "class": "timm.models.vision_transformer.VisionTransformer",
        "arguments": arguments,
        "layer_norm_eps": source.config.layer_norm_eps,
        "mean": list(spec.channel_mean or ()) or None,
        "std": list(spec.channel_std or ()) or None,
        "differences": plain(differences["float64"]),
        "tolerance": tolerance,
        "float32": {"differences": plain(differences["float32"])},
        "left_out": source.left_out(),
        "versions": versions("torch", "timm"),
    }


def _arguments(source: Source) -> dict[str, Any]:
    config = source.config
    return {
        "img_size": side_or_sides(config.image_height_width),
        "patch_size": side_or_sides(config.patch_height_width),
        "in_chans": config.spec("rgb").channels,
        "num_classes": 0,
        "global_pool": "",
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": mlp_ratio(config.hidden_size, config.intermediate_size),
        "qkv_bias": config.qkv_bias,
        "class_token": prefix_token(source) is not None,
        "no_embed_class": config.num_register_tokens > 0,
        "reg_tokens": config.num_register_tokens,
        "final_norm": source.encoder.layernorm is not None,
    }


def mlp_ratio(hidden: int, inner: int) -> float:
    """The ratio of which timm's `int(hidden * ratio)` gives the inner width back; the quotient may come out below."""
    ratio = inner / hidden
    while int(hidden * ratio) < inner:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def build_timm(arguments: dict[str, Any], layer_norm_eps: float) -> nn.Module:
    """The model that the report describes, in eval mode.

    Raises:
        MissingDependencyError: timm is not installed.
    """
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise MissingDependencyError(
            "verifying an export for timm requires timm: pip install 'm33d-hf[export]'."
        ) from error
    model = VisionTransformer(**arguments, norm_layer=partial(nn.LayerNorm, eps=layer_norm_eps))
    return model.eval()
