"""Export to stock transformers classes: clip models to VideoMAE, image encoders to ViTModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel, ViTConfig, ViTModel

from m33d_hf.errors import ExportError
from m33d_hf.weights.export.agreement import Difference, both_precisions, demand, plain
from m33d_hf.weights.export.encoder_weights import positions, prefix_token, side_or_sides, transformers_encoder
from m33d_hf.weights.export.export_report import versions
from m33d_hf.weights.export.obstacles import refuse_obstacles
from m33d_hf.weights.export.processors import write_processors
from m33d_hf.weights.export.source import CLASSIFIER, Source

# nn.LayerNorm's own epsilon, which VideoMAEForVideoClassification uses for the norm of the pooled features.
_POOLED_EPS = nn.LayerNorm(1).eps
BATCHES = (1, 3)


def write_transformers(source: Source, folder: Path, tolerance: float) -> dict[str, Any]:
    """Write a stock model and its processor; returns the report.

    Raises:
        ExportError: an obstacle, or the written model does not agree.
    """
    clip, classifies = source.config.is_clip_model, source.kind == CLASSIFIER and source.config.is_clip_model
    refuse_obstacles(source, "VideoMAE" if clip else "ViT")
    kind, config, weights, dropped = _videomae(source) if clip else _vit(source)
    _build(kind, config, weights).save_pretrained(folder)
    written = _reload(kind, folder)
    differences = _compare(source, written)
    demand(differences["float64"], tolerance, f"{kind.__name__} in {folder.parent}", _cause(source))
    return {
        "class": kind.__name__,
        "differences": plain(differences["float64"]),
        "tolerance": tolerance,
        "float32": {"differences": plain(differences["float32"])},
        "key_biases_dropped": dropped,
        "left_out": source.left_out(*([source.model.fc_norm, source.model.classifier] if classifies else [])),
        "preprocessing": write_processors(source, folder),
        "versions": versions("torch", "transformers"),
    }


def _shared(source: Source) -> dict[str, Any]:
    config = source.config
    names = (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps", "qkv_bias"),
    )
    return {name: getattr(config, name) for name in names} | {
        "image_size": side_or_sides(config.image_height_width),
        "patch_size": side_or_sides(config.patch_height_width),
        "num_channels": config.spec("rgb").channels,
    }


def _videomae(source: Source) -> tuple[type, Any, dict[str, Tensor], int]:
    config, classifies = source.config, source.kind == CLASSIFIER
    fields = _shared(source) | {"num_frames": config.num_frames, "tubelet_size": config.tubelet_size}
    # Mean pooling takes the place of the encoder's final norm.
    fields["use_mean_pooling"] = source.encoder.layernorm is None
    if classifies:
        fields |= {"id2label": dict(config.id2label or {}), "label2id": dict(config.label2id or {})}
    weights, dropped = {}, 0
    for name, tensor in transformers_encoder(source, "encoder.layer").items():
        if name.endswith("attention.attention.key.bias"):
            # Softmax ignores a constant added to all scores of a query, so dropping it changes only the rounding.
            dropped += 1
        else:
            name = name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
            weights[f"videomae.{name}" if classifies else name] = tensor
    if not classifies:
        return VideoMAEModel, VideoMAEConfig(**fields), weights, dropped
    for part in ("fc_norm", "classifier"):
        weights |= {f"{part}.{kind}": tensor for kind, tensor in getattr(source.model, part).state_dict().items()}
    return VideoMAEForVideoClassification, VideoMAEConfig(**fields), weights, dropped


def _vit(source: Source) -> tuple[type, Any, dict[str, Tensor], int]:
    weights = transformers_encoder(source, "encoder.layer")
    token = prefix_token(source)
    assert token is not None  # refuse_obstacles says so
    weights |= {"embeddings.cls_token": token, "embeddings.position_embeddings": positions(source, 1)}
    return ViTModel, ViTConfig(**_shared(source)), weights, 0


def _build(kind: type, config: Any, weights: dict[str, Tensor]) -> Any:
    """The stock model with weights under the names that transformers reads from disk, whatever its version."""
    plain = {name: tensor.detach().clone() for name, tensor in weights.items()}
    extra = {"add_pooling_layer": False} if kind is ViTModel else {}
    model, told = kind.from_pretrained(  # type: ignore[attr-defined]
        None, config=config, state_dict=plain, output_loading_info=True, dtype=torch.float32, **extra
    )
    wrong = {name: sorted(told[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if told[name]}
    if wrong:
        raise ExportError(f"{kind.__name__} of the installed transformers has other weights than expected: {wrong}.")
    return model


def _reload(kind: type, folder: Path) -> Any:
    extra = {"add_pooling_layer": False} if kind is ViTModel else {}
    return kind.from_pretrained(folder, dtype=torch.float32, **extra).eval()  # type: ignore[attr-defined]


def _compare(source: Source, written: Any) -> dict[str, list[Difference]]:
    config = source.config
    frames = [config.num_frames] if config.is_clip_model else []
    shape = [*frames, config.spec("rgb").channels, *config.image_height_width]

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        theirs = written(pixel_values=pixels)
        if isinstance(written, VideoMAEForVideoClassification):
            return source.model(pixel_values=pixels).logits, theirs.logits
        return source.encode(pixels), theirs.last_hidden_state

    return both_precisions(source.model, written, run, [[batch, *shape] for batch in BATCHES])


def _cause(source: Source) -> str:
    eps = source.config.layer_norm_eps
    if source.kind != CLASSIFIER or eps == _POOLED_EPS:
        return ""
    return (
        f" VideoMAEForVideoClassification normalises pooled features with an epsilon of {_POOLED_EPS:g}, which no "
        f"field changes; this model has layer_norm_eps {eps:g}. If pooled features vary little, the outputs differ; "
        "--to onnx and --to torch_export keep the epsilon."
    )
