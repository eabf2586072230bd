# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Ranges of the fields of M33DConfig, and the checks of what it and its library take."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

from .errors_m33d import ConfigError, nearest_name_hint
from .fields_m33d import Range, check_value, fit, shown
from .pretraining_fields_m33d import PRETRAINING_RANGES
from .task_heads_m33d import HEAD_RANGES

_WIDTH = Range(low=1, high=65_536)
_BLOCKS = Range(low=1, high=1024)
_DROP = Range(low=0, below=1)
_SCALE = Range(above=0, high=1e6)

# Every field that holds numbers. Upper bounds are far beyond any model that a machine can hold.
CONFIG_RANGES: Mapping[str, Range] = {
    "image_size": Range(low=1, high=16_384, length=2),
    "patch_size": Range(low=1, high=1024, length=2),
    "num_frames": Range(low=1, high=4096),
    "tubelet_size": Range(low=1, high=4096),
    "hidden_size": _WIDTH,
    "num_hidden_layers": _BLOCKS,
    "num_attention_heads": _BLOCKS,
    "intermediate_size": Range(low=1, high=1_048_576),
    "layer_norm_eps": Range(above=0, high=1),
    "hidden_dropout_prob": _DROP,
    "attention_probs_dropout_prob": _DROP,
    "drop_path_rate": _DROP,
    "initializer_range": Range(low=0, high=100),
    "position_grid": Range(low=1, high=65_536, length=3),
    "num_register_tokens": Range(low=0, high=1024),
    "token_budget": Range(above=0, high=1e9),
    "token_budget_alpha": _SCALE,
    **PRETRAINING_RANGES,
    **HEAD_RANGES,
}
LABELS = Range(low=1, high=1_000_000)
MOST_WEIGHTS = 10**11  # of the encoders and the decoder together
MOST_TOKENS = 2**20  # of one modality

# What transformers hands to a configuration beside its fields.
_LIBRARY_ARGUMENTS = {
    *("auto_map", "name_or_path", "num_labels", "torch_dtype", "attn_implementation", "output_attentions"),
    *("model_type", "custom_pipelines", "quantization_config", "use_return_dict", "experts_implementation"),
}
# Fields of outputs that transformers.Trainer leaves out of predictions: logits or metres alone stay.
NO_PREDICTIONS = (
    *("losses", "weighted_losses", "loss_sums", "loss_counts", "keep", "masked", "diagnostics", "reconstructions"),
    *("features", "clip_logits", "standardized_depth"),
)

Class = TypeVar("Class", bound=type)
logger = logging.get_logger(__name__)


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, Range], where: str = "") -> None:
    """Refuse numbers out of the range of their field; fields that are None or have no range pass.

    Raises:
        ConfigError: the first such number, with its range; `where` begins the message.
    """
    for name, allowed in ranges.items():
        value = values.get(name)
        problem = None if value is None else allowed.problem(value)
        if problem is not None:
            raise ConfigError(f"{where}{name} {problem}.")


def check_library_fields(config: Any, more: Mapping[str, Any]) -> None:
    """Refuse what transformers would fail on in its own way: labels, their number, and the type of the weights.

    Args:
        config: with its fields set, those of transformers not yet looked at.
        more: arguments that are no fields.

    Raises:
        ConfigError: with the field and what it may be.
    """
    if (count := more.get("num_labels")) is not None and (not fit(count, int)[0] or LABELS.problem(count)):
        raise ConfigError(f"num_labels is {shown(count)}; it must be an integer, {LABELS.words()}.")
    if config.id2label is not None and not fit(config.id2label, dict[int, str])[0]:
        raise ConfigError(f"id2label is {shown(config.id2label)}; it must map integers to names: {{0: name}}.")
    if config.id2label is not None and sorted(map(int, config.id2label)) != list(range(len(config.id2label))):
        raise ConfigError(
            f"id2label is {shown(config.id2label)}; classes are numbered without gaps from 0, as the outputs of a "
            f"model are: name each from 0 to {len(config.id2label) - 1}."
        )
    if config.label2id is not None and not fit({v: k for k, v in config.label2id.items()}, dict[int, str])[0]:
        raise ConfigError(f"label2id is {shown(config.label2id)}; it must map names to integers: {{name: 0}}.")
    for name in (config.dtype, more.get("torch_dtype")):
        if name is not None and not isinstance(getattr(torch, str(name).removeprefix("torch."), None), torch.dtype):
            raise ConfigError(f"dtype is {shown(name)}; it must be a torch dtype, such as float32 or bfloat16.")


def check_amounts(config: Any) -> None:
    """Refuse more tokens or weights than any machine can hold.

    Raises:
        ConfigError: with the fields that they come from; also frames or sides that do not divide.
    """
    t, h, w = config.grid
    if t * h * w > MOST_TOKENS:
        raise ConfigError(f"the grid of {t} x {h} x {w} has {t * h * w} tokens; at most {MOST_TOKENS} are supported.")
    if (weights := _rough_weights(config)) > MOST_WEIGHTS:
        raise ConfigError(
            f"hidden_size {config.hidden_size} with num_hidden_layers {config.num_hidden_layers} give a "
            f"model of about {weights:.0e} weights; at most {MOST_WEIGHTS:.0e} are supported."
        )


def _rough_weights(config: Any) -> int:
    """Weights of encoders, decoder and patch kernels, near enough to tell a slip of the pen."""
    kernels = sum(config.patch_dim(spec) for spec in config.specs) * (config.hidden_size + config.decoder_hidden_size)
    encoder = config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    width, inner = config.decoder_hidden_size, config.decoder_intermediate_size
    return kernels + encoder + config.decoder_num_hidden_layers * width * (4 * width + 2 * inner)


def check_positions(config: Any) -> None:
    """Refuse positions that the frames of a model, or its other fields, contradict.

    Raises:
        ConfigError: with the field and what it may be.
    """
    kind, (t, h, w) = config.position_embedding_type, config.position_grid or config.grid
    if kind == "sincos_2d" and config.grid[0] > 1:
        raise ConfigError("position_embedding_type 'sincos_2d' has no time axis; use 'sincos_1d' for clips.")
    if kind != "learned":
        return
    if config.position_embedding_resize == "rebuild":
        raise ConfigError(
            "learned positions cannot be rebuilt; set position_embedding_resize to 'interpolate' or 'antialias'."
        )
    if t * h * w > MOST_TOKENS:
        raise ConfigError(
            f"position_grid {t} x {h} x {w} has {t * h * w} positions; at most {MOST_TOKENS} are supported."
        )
    if t > 1 and not config.is_clip_model:
        raise ConfigError(f"position_grid has {t} tubelets, but an image model has one; set it to [1, {h}, {w}].")
    slots = config.grid[0]
    if t == 1 < slots:
        raise ConfigError(f"position_grid has one tubelet, but clips have {slots}; set it to [{slots}, {h}, {w}].")


def refuse_unknown_fields(given: Iterable[str], known: Iterable[str], version: str | None) -> None:
    """Refuse arguments that are no fields; those of a saved configuration are told and kept.

    Args:
        given: names of arguments that are no fields of the dataclass.
        known: names of fields.
        version: of transformers, that saved the configuration; None where no file was read.

    Raises:
        ConfigError: with the nearest field.
    """
    for key in given:
        theirs = hasattr(PreTrainedConfig, key) and not callable(getattr(PreTrainedConfig, key))
        if key in _LIBRARY_ARGUMENTS or key.startswith("_") or theirs:
            continue
        message = f"M33DConfig has no field {key!r}.{nearest_name_hint(key, known)}"
        if version is None:
            raise ConfigError(message)
        # Or somebody's own attribute.
        logger.warning(
            "%s It is kept as a plain attribute and has no effect: a later version may have written the file (it was "
            "saved with transformers %s).", message, version,
        )  # fmt: skip


def check_encoders(config: Any) -> None:
    """Refuse `encoder_modalities` that name nothing, or what is no modality.

    Raises:
        ConfigError: with the name, or the field.
    """
    if config.encoder_modalities is not None and not config.encoder_modalities:
        raise ConfigError("encoder_modalities is empty; set it to at least one modality, or to None for all of them.")
    for name in config.encoder_modalities or []:
        config.spec(name)


def check_modalities(config: Any) -> None:
    """Refuse modalities that cannot stand beside each other: none encoded, equal names, masks that do not apply.

    Raises:
        ConfigError: with the modality and the fix.
    """
    names = [spec.name for spec in config.specs]
    if not config.input_specs:
        raise ConfigError("no modality is an input; set the role of at least one to 'input' or 'both'.")
    own_pixels = [spec.input_name for spec in config.specs if spec.target_of is None]
    for key, values in (("name", names), ("input_name", own_pixels)):
        if len(set(values)) != len(values):
            raise ConfigError(f"two modalities have the same {key} in {values}; give every modality its own.")
    for spec in config.specs:
        if "." in spec.name or not spec.name.isidentifier() or not spec.input_name.isidentifier():
            raise ConfigError(f"modality {spec.name!r} / {spec.input_name!r}: names must be Python identifiers.")
        if spec.masking == "motion" and config.num_frames == 1:
            raise ConfigError(f"modality {spec.name!r}: masking 'motion' requires clips; use 'random' for images.")
        if spec.masking == "motion" and spec.is_input and "rgb" not in [each.name for each in config.input_specs]:
            raise ConfigError(
                f"modality {spec.name!r}: masking 'motion' follows the motion of RGB, which is no input of this model; "
                "use 'random' or 'tube', or add a modality 'rgb' whose role is 'input' or 'both'."
            )
    check_encoders(config)
    if config.share_mask:
        kinds = {(spec.masking, spec.mask_ratio) for spec in config.input_specs}
        if len(kinds) > 1:
            raise ConfigError(
                f"share_mask requires the same masking and mask_ratio for all inputs, but they are {sorted(kinds)}."
            )


def check_task_inputs(config: Any) -> None:
    """Refuse inputs of task models that are none, or twice, and a fusion for one sequence.

    Raises:
        ConfigError: with the field and the fix.
    """
    named = config.task_inputs
    if named is None:
        return
    if not named or len(set(named)) != len(named):
        raise ConfigError(f"task_inputs is {named}; it must be [rgb], [depth] or [rgb, depth].")
    inputs = [spec.name for spec in config.input_specs]
    for name in named:
        if name not in inputs:
            raise ConfigError(
                f"task_inputs has {name!r}, but the input modalities of the model are {inputs}; take it out of "
                f"task_inputs, or give modalities an entry {name!r} whose role is 'input' or 'both'."
            )
    if config.task_fusion is not None and len(named) > 1 and not config.task_tokens_are_fused:
        where = "joint_encoding True" if config.joint_encoding else "encoder_sharing 'shared'"
        raise ConfigError(
            f"task_fusion is {config.task_fusion!r}, but with {where} RGB and depth are one sequence, which leaves "
            "nothing to fuse; set task_fusion to None, or use separate encoders."
        )


def check_types(config: Any, types: Mapping[str, Any]) -> None:
    """Refuse fields of another type than their annotation says, and an activation that nobody knows.

    The strict dataclass below cannot: annotations of this package are text, which it leaves alone.

    Raises:
        ConfigError: the first such field, with what it may hold.
    """
    for name, hint in types.items():
        check_value(name, getattr(config, name), hint)
    # Here, as it takes torch's distributed tensors along: more than half a second that describing fields does not need.
    from transformers.activations import ACT2FN

    if config.hidden_act not in ACT2FN:
        hint = nearest_name_hint(config.hidden_act, ACT2FN)
        raise ConfigError(f"hidden_act is {shown(config.hidden_act)}, which is unknown to transformers.{hint}")


def refusing_as_ours(cls: Class) -> Class:
    """Let a configuration class raise ConfigError where its library would raise errors of its own at construction."""
    construct = cls.__init__  # type: ignore[misc]

    @functools.wraps(construct)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            construct(self, *args, **kwargs)
        except ConfigError:
            raise
        except (StrictDataclassError, TypeError, ValueError, AttributeError, LookupError) as error:
            told = " ".join(str(error).split())
            raise ConfigError(f"{cls.__name__}: transformers refuses the value of one of its fields: {told}") from error

    cls.__init__ = __init__  # type: ignore[misc]
    return cls
