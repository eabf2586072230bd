"""Does a translated checkpoint fit a configuration? And the configuration that would fit it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.weights.facts import Facts, needed
from m33d_hf.weights.foreign_names import has_final_norm
from m33d_hf.weights.formats import multimae
from m33d_hf.weights.formats.layout import FormatTable, Neutral
from m33d_hf.weights.normalisation import normalised_modalities

_WIDTH_PER_HEAD = 64


def check_encoder(facts: Facts, config: M33DConfig, inflate: str) -> None:
    """Raise one `ConversionError` that lists every mismatch with both values and the fields to set."""
    neutral, table = facts.neutral, facts.table
    kernel = _need(neutral, "patch.weight", table).shape
    image_kernel = len(kernel) == 4
    wanted: dict[str, tuple[Any, Any]] = {
        "hidden_size": (kernel[0], config.hidden_size),
        "num_hidden_layers": (neutral.depth("encoder"), config.num_hidden_layers),
        "intermediate_size": (_rows(neutral, "encoder.layers.0.mlp.fc1.weight", table), config.intermediate_size),
        "patch_size": (tuple(kernel[-2:]), tuple(config.patch_height_width)),
    }
    wanted["num_register_tokens"] = (facts.registers(), config.num_register_tokens)
    heads = facts.get("num_attention_heads")
    if heads is not None:
        wanted["num_attention_heads"] = (heads.value, config.num_attention_heads)
    if not image_kernel and config.is_clip_model:
        wanted["tubelet_size"] = (kernel[2], config.tubelet_size)
    activation = facts.get("hidden_act")
    if activation is not None and not activation.assumed:
        wanted["hidden_act"] = (activation.value, config.hidden_act)
    wrong = [f"{name}={found!r} (the model has {own!r})" for name, (found, own) in wanted.items() if found != own]
    if wrong:
        raise ConversionError(
            f"{table.name}: the checkpoint has a different architecture: its patch kernel is {tuple(kernel)}, but the "
            "model's"
            f" is {_own_kernel(config)}. Set {', '.join(wrong)}.{_about_heads(facts, config)}"
        )
    _check_rank(tuple(kernel), config, inflate, table)
    if not (image_kernel and config.is_clip_model) and config.position_embedding_type != table.position_kind:
        raise ConversionError(
            f"{table.name}: trained with {table.position_kind} positions, but the model has"
            f" {config.position_embedding_type}. Set position_embedding_type={table.position_kind!r}."
        )


def _about_heads(facts: Facts, config: M33DConfig) -> str:
    heads, own = facts.get("num_attention_heads"), config.num_attention_heads
    if heads is None or not heads.assumed or heads.value == own:
        return ""
    return (
        f" The number of heads cannot be read from the weights: {heads.value} is that of {heads.source}. If this"
        f" checkpoint was trained with {own}, pass it (init.num_attention_heads {own}; convert_checkpoint.py "
        f"--num_attention_heads {own})."
    )


def _check_rank(kernel: tuple[int, ...], config: M33DConfig, inflate: str, table: FormatTable) -> None:
    own = _own_kernel(config)
    if len(kernel) == 4 and config.is_clip_model and inflate == "none":
        raise ConversionError(
            f"{table.name}: an image checkpoint (patch kernel {kernel}) does not fit a clip model ({own})."
            " To spread its kernel over time, pass inflate='average' or inflate='center' (of a run: --init.inflate"
            " average)."
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


def _rows(neutral: Neutral, name: str, table: FormatTable) -> int:
    weight = _need(neutral, name, table)
    if weight.ndim != 2:
        raise ConversionError(f"{table.name}: the weight for {name!r} has shape {tuple(weight.shape)}, not a matrix.")
    return weight.shape[0]


def decoder_obstacle(facts: Facts, config: M33DConfig) -> str | None:
    """Why the checkpoint's decoder does not fit the model's, or None when it does."""
    neutral, table = facts.neutral, facts.table
    if (_need(neutral, "patch.weight", table).ndim == 5) != config.is_clip_model:
        theirs, ours = ("an image", "a clip") if config.is_clip_model else ("a clip", "an image")
        return f"{theirs} decoder does not fit {ours} model"
    if "decoder.embed.weight" not in neutral.weights or "decoder.layers.0.mlp.fc1.weight" not in neutral.weights:
        return None  # An incomplete decoder is reported as such when its weights turn out to be missing.
    pairs = {
        "decoder_hidden_size": (_rows(neutral, "decoder.embed.weight", table), config.decoder_hidden_size),
        "decoder_num_hidden_layers": (neutral.depth("decoder"), config.decoder_num_hidden_layers),
        "decoder_intermediate_size": (
            _rows(neutral, "decoder.layers.0.mlp.fc1.weight", table),
            config.decoder_intermediate_size,
        ),
    }
    heads = facts.value("decoder_num_attention_heads")
    if heads is not None:
        pairs["decoder_num_attention_heads"] = (heads, config.decoder_num_attention_heads)
    wrong = [f"{name} {found} (model: {own})" for name, (found, own) in pairs.items() if found != own]
    return f"decoder of a different shape: {', '.join(wrong)}" if wrong else None


def infer_config(facts: Facts, init_decoder: bool = True, given: Collection[str] = ()) -> dict[str, Any]:
    """`M33DConfig` arguments that fit the checkpoint: of an RGB-only model (methods mae / videomae), or of multimae.

    Sizes come from the tensors; what cannot be read from them, from `facts`.

    Args:
        facts: what is known about the checkpoint.
        init_decoder: whether its decoder will be taken too, so that its heads must be known.

    Raises:
        ConversionError: an incomplete checkpoint, or one with several readings.
    """
    neutral, table = facts.neutral, facts.table
    kernel = _need(neutral, "patch.weight", table).shape
    clip = len(kernel) == 5
    known = needed(facts, clip, init_decoder and neutral.has_decoder(), given)
    result: dict[str, Any] = {
        **_encoder_fields(facts),
        "num_frames": 1,
        "decoder_modality_embedding": False,
        **{name: fact.value for name, fact in known.items()},
    }
    grid = facts.grid()
    if table.position_kind == "learned":
        result |= {"position_embedding_type": "learned", "use_cls_token": "cls_token" in neutral.weights}
        result |= {} if grid is None else {"position_grid": [facts.slots() or 1, *grid.base]}
        result |= {"num_register_tokens": facts.registers()} if facts.registers() else {}
        result |= {} if table.position_resize == "interpolate" else {"position_embedding_resize": table.position_resize}
    elif grid is not None and grid.base != grid.sides:
        result["position_grid"] = [1, *grid.base]
    plain = {} if facts.normalised().value else {"target_norm": "none"}
    if table is multimae.TABLE:
        sizes = multimae.RELEASED_DECODER | multimae.decoder_sizes(neutral)
        if not sizes["decoder_num_hidden_layers"]:  # ours have some; theirs is then reported as of another shape
            sizes["decoder_num_hidden_layers"] = multimae.RELEASED_DECODER["decoder_num_hidden_layers"]
        sizes["decoder_num_attention_heads"] = max(1, sizes["decoder_hidden_size"] // 32)  # as many as the released
        result |= multimae.modality_arguments(neutral) | sizes
    elif clip:
        masking = {"masking": "tube", "mask_ratio": 0.9, "target_norm": "per_channel", "target_space": "unit"}
        result["modalities"] = [rgb_modality(**{**masking, **plain}, weight=1.0)]
        result |= _decoder_fields(facts) if neutral.has_decoder() else _halved_decoder(kernel[0])
    else:
        result["modalities"] = [rgb_modality(mask_ratio=0.75, weight=1.0, **plain)]
        result |= _decoder_fields(facts) if neutral.has_decoder() else {}
    result["modalities"] = normalised_modalities(facts.checkpoint, result["modalities"])
    if table is not multimae.TABLE and (neutral.has_decoder() or table is multimae.TIMM_TABLE):
        # To a fine-tuned model, which norms after pooling, a norm is added instead, and the report says so.
        result["encoder_norm"] = has_final_norm(neutral.weights)
    if "decoder_num_attention_heads" in known:
        result["decoder_num_attention_heads"] = known["decoder_num_attention_heads"].value
    return result


def _encoder_fields(facts: Facts) -> dict[str, Any]:
    """What the tensors of an encoder say."""
    neutral, table = facts.neutral, facts.table
    kernel = _need(neutral, "patch.weight", table).shape
    return {
        "hidden_size": kernel[0],
        "num_hidden_layers": neutral.depth("encoder"),
        "intermediate_size": _rows(neutral, "encoder.layers.0.mlp.fc1.weight", table),
        "patch_size": kernel[-1] if kernel[-1] == kernel[-2] else list(kernel[-2:]),
        "tubelet_size": kernel[2] if len(kernel) == 5 else 1,
        "qkv_bias": "encoder.layers.0.attention.qkv.bias" in neutral.weights,
    }


def known_fields(facts: Facts) -> dict[str, Any]:
    """What tensors and files state of the architecture; what several readings would fit is left out."""
    known = {name: facts.get(name) for name in ("num_attention_heads", "image_size", "hidden_act", "layer_norm_eps")}
    known |= {"num_frames": facts.get("num_frames")} if facts.is_clip() else {}
    decoder: dict[str, Any] = {}
    if facts.neutral.has_decoder() and "decoder.embed.weight" in facts.neutral.weights:
        known["decoder_num_attention_heads"] = facts.get("decoder_num_attention_heads")
        decoder = _decoder_fields(facts)
    usual = ("hidden_act", "layer_norm_eps")  # of all released models, so that nothing is said about this one
    said = {name: fact.value for name, fact in known.items() if fact and not (fact.assumed and name in usual)}
    return {**_encoder_fields(facts), **decoder, **said}


def _decoder_fields(facts: Facts) -> dict[str, int]:
    width = _rows(facts.neutral, "decoder.embed.weight", facts.table)
    return {
        "decoder_hidden_size": width,
        "decoder_num_hidden_layers": facts.neutral.depth("decoder"),
        "decoder_num_attention_heads": max(1, width // _WIDTH_PER_HEAD),  # of a new decoder: any number will do
        "decoder_intermediate_size": _rows(facts.neutral, "decoder.layers.0.mlp.fc1.weight", facts.table),
    }


def _halved_decoder(width: int) -> dict[str, int]:
    """VideoMAE-B's decoder for encoder-only files; its factories halve the width and keep 64 per head."""
    half = width // 2
    return {
        "decoder_hidden_size": half,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": max(1, half // _WIDTH_PER_HEAD),
        "decoder_intermediate_size": 4 * half,
    }
