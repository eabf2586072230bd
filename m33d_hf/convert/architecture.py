"""Does a translated checkpoint fit a configuration? And the configuration that would fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality

from .layout import FormatTable, Neutral
from .multimae import decoder_sizes, modality_arguments
from .positions import table_side

# Head counts are in no tensor. Those of the released sizes (REFERENCE.md §1.1, §2.1; factories of the
# originals).
_RELEASED_HEADS: dict[str, dict[str, dict[int, int]]] = {
    "sincos_2d": {"encoder": {768: 12, 1024: 16, 1280: 16}, "decoder": {512: 16}},
    "sincos_1d": {
        "encoder": {384: 6, 768: 12, 1024: 16, 1280: 16},
        "decoder": {192: 3, 384: 6, 512: 8, 640: 8},
    },
}
_HEAD_FIELDS = {"encoder": "num_attention_heads", "decoder": "decoder_num_attention_heads"}
_WIDTH_PER_HEAD = 64


def known_heads(neutral: Neutral, table: FormatTable, config: Mapping[str, Any], part: str) -> int | None:
    """Head count of ``encoder`` or ``decoder`` from config.json or the released sizes; None when unknown."""
    named = config.get(_HEAD_FIELDS[part])
    if isinstance(named, int):
        return named
    weight = neutral.weights.get("patch.bias" if part == "encoder" else "decoder.embed.weight")
    return None if weight is None else _RELEASED_HEADS[table.position_kind][part].get(weight.tensor.shape[0])


def check_encoder(
    neutral: Neutral, table: FormatTable, foreign_config: Mapping[str, Any], config: M33DConfig, inflate: str
) -> None:
    """Raise one `ConversionError` that lists every mismatch with both values and the fields to set."""
    kernel = _need(neutral, "patch.weight", table).shape
    image_kernel = len(kernel) == 4
    wanted: dict[str, tuple[Any, Any]] = {
        "hidden_size": (kernel[0], config.hidden_size),
        "num_hidden_layers": (neutral.depth("encoder"), config.num_hidden_layers),
        "intermediate_size": (
            _need(neutral, "encoder.layers.0.mlp.fc1.weight", table).shape[0],
            config.intermediate_size,
        ),
        "patch_size": (tuple(kernel[-2:]), tuple(config.patch_height_width)),
    }
    heads = known_heads(neutral, table, foreign_config, "encoder")
    if heads is not None:
        wanted["num_attention_heads"] = (heads, config.num_attention_heads)
    if not image_kernel and config.is_clip_model:
        wanted["tubelet_size"] = (kernel[2], config.tubelet_size)
    activation = foreign_config.get("hidden_act")
    if isinstance(activation, str):
        wanted["hidden_act"] = (activation, config.hidden_act)
    wrong = [f"{name}={found!r} (the model has {own!r})" for name, (found, own) in wanted.items() if found != own]
    if wrong:
        own_kernel = _own_kernel(config)
        raise ConversionError(
            f"{table.name}: the checkpoint is of another architecture; its patch kernel is"
            f" {tuple(kernel)}, the"
            f" model's is {own_kernel}. Set {', '.join(wrong)}."
        )
    _check_rank(tuple(kernel), config, inflate, table)
    if not (image_kernel and config.is_clip_model) and config.position_embedding_type != table.position_kind:
        raise ConversionError(
            f"{table.name}: trained with {table.position_kind} positions, the model has"
            f" {config.position_embedding_type}. Set position_embedding_type={table.position_kind!r}."
        )


def _check_rank(kernel: tuple[int, ...], config: M33DConfig, inflate: str, table: FormatTable) -> None:
    own = _own_kernel(config)
    if len(kernel) == 5 and not config.is_clip_model:
        raise ConversionError(
            f"{table.name}: a clip checkpoint (patch kernel {kernel}) does not fit an image model ({own})."
            f" Set tubelet_size={kernel[2]} and num_frames to a multiple of it."
        )
    if len(kernel) == 4 and config.is_clip_model and inflate == "none":
        raise ConversionError(
            f"{table.name}: an image checkpoint (patch kernel {kernel}) does not fit a clip model ({own})."
            " If you want its kernel spread over time, say so with inflate='average' or inflate='center'."
        )


def _own_kernel(config: M33DConfig) -> tuple[int, ...]:
    time = (config.tubelet_size,) if config.is_clip_model else ()
    channels = next((spec.channels for spec in config.specs if spec.name == "rgb"), config.specs[0].channels)
    return (config.hidden_size, channels, *time, *config.patch_height_width)


def _need(neutral: Neutral, name: str, table: FormatTable) -> Tensor:
    weight = neutral.weights.get(name)
    if weight is None:
        raise ConversionError(f"{table.name}: the checkpoint has no weight for {name!r}; the file is incomplete.")
    return weight.tensor


def decoder_obstacle(
    neutral: Neutral, table: FormatTable, foreign_config: Mapping[str, Any], config: M33DConfig
) -> str | None:
    """Why the checkpoint's decoder does not fit the model's, or None when it does."""
    if _need(neutral, "patch.weight", table).ndim == 4 and config.is_clip_model:
        return "an image decoder does not fit a clip model"
    embed = neutral.weights.get("decoder.embed.weight")
    fc1 = neutral.weights.get("decoder.layers.0.mlp.fc1.weight")
    if embed is None or fc1 is None:
        return None  # An incomplete decoder is reported as such when its weights turn out to be missing.
    pairs = {
        "decoder_hidden_size": (embed.tensor.shape[0], config.decoder_hidden_size),
        "decoder_num_hidden_layers": (neutral.depth("decoder"), config.decoder_num_hidden_layers),
        "decoder_intermediate_size": (fc1.tensor.shape[0], config.decoder_intermediate_size),
    }
    heads = known_heads(neutral, table, foreign_config, "decoder")
    if heads is not None:
        pairs["decoder_num_attention_heads"] = (heads, config.decoder_num_attention_heads)
    wrong = [f"{name} {found} (model: {own})" for name, (found, own) in pairs.items() if found != own]
    return f"decoder of another shape: {', '.join(wrong)}" if wrong else None


def infer_config(neutral: Neutral, table: FormatTable, foreign_config: Mapping[str, Any]) -> dict[str, Any]:
    """`M33DConfig` arguments that fit the checkpoint: of an RGB-only model (methods mae / videomae), or of multimae.

    Sizes come from the tensors, head counts from config.json, the released sizes or 64 channels per head; the
    image size from the position table (MAE), config.json, or 224; frames from config.json or 16.
    """
    kernel = _need(neutral, "patch.weight", table).shape
    clip = len(kernel) == 5
    patch = kernel[-1] if kernel[-1] == kernel[-2] else list(kernel[-2:])
    result: dict[str, Any] = {
        "hidden_size": kernel[0],
        "num_hidden_layers": neutral.depth("encoder"),
        "num_attention_heads": _heads_or_rule(neutral, table, foreign_config, "encoder", kernel[0]),
        "intermediate_size": _need(neutral, "encoder.layers.0.mlp.fc1.weight", table).shape[0],
        "patch_size": patch,
        "image_size": _image_size(neutral, table, foreign_config, (kernel[-2], kernel[-1])),
        "num_frames": int(foreign_config.get("num_frames", 16)) if clip else 1,
        "tubelet_size": kernel[2] if clip else 1,
        "decoder_modality_embedding": False,
    }
    if "multimae" in table.name.lower():
        return result | modality_arguments(neutral) | (decoder_sizes(neutral) or {})
    if clip:
        result["modalities"] = [
            rgb_modality(masking="tube", mask_ratio=0.9, target_norm="per_channel", target_space="unit", weight=1.0)
        ]
    else:
        result["modalities"] = [rgb_modality(mask_ratio=0.75, weight=1.0)]
    if neutral.has_decoder():
        width = _need(neutral, "decoder.embed.weight", table).shape[0]
        result["decoder_hidden_size"] = width
        result["decoder_num_hidden_layers"] = neutral.depth("decoder")
        result["decoder_num_attention_heads"] = _heads_or_rule(neutral, table, foreign_config, "decoder", width)
        result["decoder_intermediate_size"] = _need(neutral, "decoder.layers.0.mlp.fc1.weight", table).shape[0]
    elif clip:
        # VideoMAE-B's decoder for encoder-only files; its factories halve the width and keep 64 per head.
        width = kernel[0] // 2
        result |= {
            "decoder_hidden_size": width,
            "decoder_num_hidden_layers": 4,
            "decoder_num_attention_heads": max(1, width // _WIDTH_PER_HEAD),
            "decoder_intermediate_size": 4 * width,
        }
    return result


def _heads_or_rule(
    neutral: Neutral, table: FormatTable, foreign_config: Mapping[str, Any], part: str, width: int
) -> int:
    known = known_heads(neutral, table, foreign_config, part)
    return known if known is not None else max(1, width // _WIDTH_PER_HEAD)


def _image_size(
    neutral: Neutral, table: FormatTable, foreign_config: Mapping[str, Any], patch: tuple[int, int]
) -> int | list[int]:
    positions = neutral.tables.get("encoder")
    if positions is not None:
        side = table_side(positions.tensor, table.cls_position_row)
        if side is not None:
            height, width = side[0] * patch[0], side[1] * patch[1]
            return height if height == width else [height, width]
    named = foreign_config.get("image_size", 224)
    return named if isinstance(named, int) else list(named)
