"""Load a foreign checkpoint into one of our models, all or nothing; every weight of both is accounted for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.architecture import check_encoder, decoder_obstacle, infer_config, known_fields
from m33d_hf.weights.facts import Facts
from m33d_hf.weights.files import ForeignCheckpoint
from m33d_hf.weights.foreign_names import ForeignNames, ends_in_norm, has_final_norm
from m33d_hf.weights.formats import multimae_heads
from m33d_hf.weights.formats.classes import FINE_TUNE_REASON, class_names, class_obstacle
from m33d_hf.weights.formats.detect import FORMATS
from m33d_hf.weights.formats.layout import Neutral, translate
from m33d_hf.weights.formats.multimae import TABLE, target_obstacle
from m33d_hf.weights.init_options import ConversionOptions
from m33d_hf.weights.matching import time_note
from m33d_hf.weights.report import ConversionReport, lines_on
from m33d_hf.weights.settling import settle_positions


def config_for(checkpoint: ForeignCheckpoint, init_decoder: bool = True, given: Collection[str] = ()) -> dict[str, Any]:
    """`M33DConfig` arguments of an `M33DForPreTraining` that the checkpoint fits: RGB only, or method multimae.

    Args:
        checkpoint: weights, with what is known or stated about them.
        init_decoder: whether the decoder will be taken too.
        given: fields that the caller lays over the result; nothing needs to tell them.

    Raises:
        ConversionError: neither tensors nor files beside them nor a statement tell what the weights were trained with
            (heads, input size), and several readings are possible.
    """
    return infer_config(_facts_of(checkpoint), init_decoder, given)


def head_fields(checkpoint: ForeignCheckpoint) -> dict[str, Any]:
    """`M33DConfig` arguments of a task model that takes the checkpoint's head: its sizes, and its classes by name."""
    neutral = _facts_of(checkpoint).neutral
    fields = multimae_heads.head_fields(neutral)
    classifier = neutral.weights.get("classifier.weight")
    if classifier is not None:
        fields["num_labels"] = classifier.tensor.shape[0]
    names = class_names(checkpoint.config.get("id2label"))
    if names is not None and len(names) == fields.get("num_labels"):
        del fields["num_labels"]
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    return fields


def architecture_of(checkpoint: ForeignCheckpoint) -> dict[str, Any]:
    """The `M33DConfig` fields of the encoder, and of the decoder if there is one, as far as the files state them.

    Heads and input size are those of the released model where the encoder has exactly its shape; activation and epsilon
    are left out unless config.json says them.
    """
    return known_fields(_facts_of(checkpoint))


def trained_positions(checkpoint: ForeignCheckpoint) -> dict[str, Any]:
    """The fields that say where a checkpoint's tokens stand, and which of them have no place.

    `position_grid` is None where nothing tells it.
    """
    facts = _facts_of(checkpoint)
    grid = facts.grid()
    return {
        "global_token": facts.table is TABLE and "cls_token" in facts.neutral.weights,
        "num_register_tokens": facts.registers(),
        "use_cls_token": "cls_token" in facts.neutral.weights if facts.table.position_kind == "learned" else None,
        "position_embedding_type": facts.table.position_kind,
        "position_embedding_resize": facts.table.position_resize,
        "tubelet_size": facts.neutral.weights["patch.weight"].tensor.shape[2] if facts.is_clip() else 1,
        "position_grid": None if grid is None else [facts.slots() or 1, *grid.base],
    }


def _facts_of(checkpoint: ForeignCheckpoint) -> Facts:
    table = FORMATS[checkpoint.format]
    return Facts(translate(checkpoint.tensors, table), table, checkpoint)


def convert_state_dict(
    checkpoint: ForeignCheckpoint, model: nn.Module, options: ConversionOptions | None = None
) -> ConversionReport:
    """Fill `model` from `checkpoint` in place.

    Works for `M33DForPreTraining`, `M33DModel` and the task models, with separate or shared encoders.
    Nothing is written unless every foreign key and every weight of the model is accounted for.

    Raises:
        ConversionError: another architecture, other positions, or any key that remains unexplained.
    """
    options = options or ConversionOptions()
    config, facts = config_of(model), _facts_of(checkpoint)
    neutral, table = facts.neutral, facts.table
    check_encoder(facts, config, options.inflate)
    targets = dict(model.state_dict())
    decoder_reason = _decoder_reason(facts, config, targets, options)
    report = ConversionReport(table.name, checkpoint.origin, ignored={**checkpoint.ignored, **neutral.ignored})
    report.notes = [*checkpoint.notes, *([table.note] if table.note else [])]
    report.notes += _norm_notes(neutral, targets, decoder_reason)
    report.notes += _time_notes(neutral, targets, config)
    neutral = settle_positions(facts, config, decoder_reason, report)
    classifier_reason = _classifier_reason(neutral, checkpoint, config, targets)
    reasons = {"decoder_obstacle": decoder_reason, "classifier_obstacle": classifier_reason}
    heads = multimae_heads.obstacles(neutral, targets)
    report.notes += _head_notes(facts, {**heads, "classifier": classifier_reason})
    ForeignNames(targets, neutral.weights, report, options, config=config, heads=heads, **reasons).apply()
    report.facts = lines_on(facts, config, decoder_reason is None)
    return report


def _head_notes(facts: Facts, obstacles: Mapping[str, str | None]) -> list[str]:
    """Notes on loaded heads that read or compute something else than in the original model."""
    taken = {head for head, obstacle in obstacles.items() if obstacle is None}
    notes = []
    if "classifier" in taken and facts.checkpoint.format == "transformers_videomae":
        notes.append(
            "transformers normalises the mean of the tokens with an epsilon of 1e-5, this model with layer_norm_eps:"
            " the relative difference of the logits is about 5e-6 divided by the variance of that mean"
        )
    if taken - {"classifier"} and "patch_depth.weight" in facts.neutral.weights:
        notes.append("the head was trained on tokens that also attended to depth; in this model it reads RGB only")
    return notes


def _time_notes(neutral: Neutral, targets: Mapping[str, Tensor], config: M33DConfig) -> list[str]:
    """What becomes of a checkpoint of clips in a model of images, and the other way round."""
    kernels = (own for name, own in targets.items() if name.endswith(".projection.weight"))
    own, theirs = next(kernels, None), neutral.weights["patch.weight"].tensor
    note = None if own is None else time_note(theirs, own, str(config.position_embedding_type))
    return [] if note is None else [note]


def _norm_notes(neutral: Neutral, targets: Mapping[str, Tensor], decoder_reason: str | None) -> list[str]:
    """Notes on the effect of a final norm that the checkpoint does not have."""
    if has_final_norm(neutral.weights) or not ends_in_norm(targets):
        return []
    notes = [
        "the model's encoders end in a norm that the checkpoint does not have (a fine-tuned model normalises after"
        " pooling), so features are normalised, unlike the checkpoint's; set encoder_norm to false to leave it out"
    ]
    if decoder_reason is None:
        notes.append("the checkpoint's decoder reads features without a final norm; ours normalises them first")
    return notes


def config_of(model: nn.Module) -> M33DConfig:
    """The configuration of a model that can be filled.

    Raises:
        ConversionError: it is none of ours, or has no memory.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, M33DConfig):
        raise ConversionError(f"{type(model).__name__} is not an M33D model: it has no M33DConfig.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConversionError(f"{type(model).__name__} is on the meta device; materialise it before converting.")
    return config


def _decoder_reason(
    facts: Facts, config: M33DConfig, targets: Mapping[str, Tensor], options: ConversionOptions
) -> str | None:
    """Why the decoder is not taken from the checkpoint; None when it is."""
    neutral = facts.neutral
    if not any(target.startswith("decoder.") for target in targets):
        return "the model has no decoder"
    if not neutral.has_decoder():
        return "the checkpoint holds no decoder"
    if not options.init_decoder:
        return "init_decoder is False"
    per_target = any(name.startswith("decoder.targets.") for name in neutral.weights)
    if per_target != (config.decoder_kind == "per_target"):
        theirs = "per_target" if per_target else "shared"
        return f"a different kind of decoder: decoder_kind {theirs!r} (model: {config.decoder_kind!r})"
    if per_target:
        heads = facts.value("decoder_num_attention_heads")
        return target_obstacle(neutral, heads, facts.checkpoint.arguments, config)
    return decoder_obstacle(facts, config)


def _classifier_reason(
    neutral: Neutral, checkpoint: ForeignCheckpoint, config: M33DConfig, targets: Mapping[str, Tensor]
) -> str | None:
    """Why the checkpoint's classifier is not taken; None when it is."""
    theirs, ours = neutral.weights.get("classifier.weight"), targets.get("classifier.weight")
    if ours is None:
        return FINE_TUNE_REASON
    if theirs is None:
        return "the checkpoint has no classifier"
    if "fc_norm.weight" not in neutral.weights:
        return (
            "the checkpoint's classifier reads one token, or normalised ones; "
            "ours reads the normalised mean of all tokens"
        )
    if checkpoint.format == "mae_st_finetuned" and "cls_token" not in neutral.weights:
        return "the checkpoint has no class token, but its mean leaves out the first token as if it had one"
    return class_obstacle(theirs.tensor.shape[0], checkpoint.config.get("id2label"), ours.shape[0], config.id2label)
