"""Pour a foreign checkpoint into one of our models, all or nothing, and account for every weight on both
sides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from m33d_hf.errors import ConfigError, ConversionError, nearest_name_hint
from m33d_hf.modeling.configuration_m33d import M33DConfig

from .architecture import check_encoder, decoder_obstacle, infer_config
from .classes import FINE_TUNE_REASON, class_obstacle
from .detect import FORMATS
from .files import ForeignCheckpoint
from .layout import FormatTable, Neutral, Weight, translate
from .multimae import target_obstacle
from .positions import grid_note, verify_table

_CHOICES = {
    "depth_encoder_init": ("copy", "random"),
    "depth_patch_init": ("sum", "mean", "random"),
    "inflate": ("none", "average", "center"),
}


@dataclass(frozen=True)
class ConversionOptions:
    """How the parts of a model that MAE and VideoMAE do not have are filled (REFERENCE.md §4).

    Args:
        init_decoder: take the decoder where its shape fits.
        depth_encoder_init: encoders of other modalities than RGB: "copy" of the checkpoint's, or left
            "random".
        depth_patch_init: patch kernels of other modalities: "sum" of the RGB kernels (equals grey replicated
            three times), their "mean", or left "random".
        inflate: an image kernel in a clip model: refused ("none"), spread evenly over the tubelet
            ("average"), or put on its middle frame ("center").
    """

    init_decoder: bool = True
    depth_encoder_init: str = "copy"
    depth_patch_init: str = "sum"
    inflate: str = "none"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"{name} is {value!r}, expected one of {', '.join(allowed)}."
                    f"{nearest_name_hint(str(value), allowed)}"
                )


@dataclass
class ConversionReport:
    """What became of every foreign key (`used`, `ignored`) and of every weight of the model (`filled`,
    `new`).

    `used`: foreign key -> our keys. `ignored`: foreign key -> reason. `filled`: our key -> how. `new`: our
    key -> why it keeps its fresh initialisation. `notes`: remarks for the user.
    """

    format: str
    origin: str
    used: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for people: counts, then ignored and new weights grouped by reason."""
        lines = [
            f"{self.origin}: {self.format}; {len(self.used)} keys used, {len(self.ignored)} ignored;"
            f" {len(self.filled)} weights filled, {len(self.new)} new"
        ]
        for title, entries in (("ignored", self.ignored), ("new", self.new)):
            groups: dict[str, list[str]] = {}
            for key, reason in entries.items():
                groups.setdefault(reason, []).append(key)
            for reason, keys in groups.items():
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                lines.append(f"  {title}: {', '.join(keys[:3])}{more}: {reason}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass
class _Plan:
    random_encoders: frozenset[str] = frozenset()
    classifier_reason: str | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, list[str]] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)

    def fill(self, target: str, weight: Weight, value: Tensor | None = None, how: str = "") -> None:
        self.values[target] = weight.tensor if value is None else value
        self.filled[target] = how or weight.how
        for source in weight.sources:
            self.used.setdefault(source, []).append(target)


def config_for(checkpoint: ForeignCheckpoint) -> dict[str, Any]:
    """`M33DConfig` arguments of an RGB-only `M33DForPreTraining` that the checkpoint fits."""
    table = FORMATS[checkpoint.format]
    return infer_config(translate(checkpoint.tensors, table), table, checkpoint.config)


def convert_state_dict(
    checkpoint: ForeignCheckpoint, model: nn.Module, options: ConversionOptions | None = None
) -> ConversionReport:
    """Fill `model` from `checkpoint` in place.

    Works for `M33DForPreTraining`, `M33DModel` and the task models, with separate or shared encoders.
    Nothing is written unless every foreign key and every weight of the model is accounted for.

    Raises:
        ConversionError: another architecture, learned position tables, or any key that remains unexplained.
    """
    options = options or ConversionOptions()
    table = FORMATS[checkpoint.format]
    config = _config_of(model)
    neutral = translate(checkpoint.tensors, table)
    check_encoder(neutral, table, checkpoint.config, config, options.inflate)
    targets = dict(model.state_dict())
    decoder_reason = _decoder_reason(neutral, table, checkpoint, config, targets, options)
    ignored = dict(checkpoint.ignored) | dict(neutral.ignored)
    notes = list(checkpoint.notes)
    neutral = _settle_positions(neutral, table, config, decoder_reason, ignored, notes)
    if decoder_reason is None and config.encoder_norm and not _has_final_norm(neutral):
        notes.append("the checkpoint's decoder read features without a final norm; ours norms them first")
    plan = _Plan(random_encoders=_random_encoders(config, options))
    plan.classifier_reason = _classifier_reason(neutral, checkpoint, config, targets)
    for target in targets:
        _plan_target(target, targets[target], neutral, options, decoder_reason, plan)
    _account(neutral, plan, ignored, decoder_reason, targets, checkpoint, table)
    _pour(plan.values, targets, table)
    return ConversionReport(table.name, checkpoint.origin, plan.used, ignored, plan.filled, plan.new, notes)


def _config_of(model: nn.Module) -> M33DConfig:
    config = getattr(model, "config", None)
    if not isinstance(config, M33DConfig):
        raise ConversionError(f"{type(model).__name__} is no M33D model: it has no M33DConfig.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConversionError(f"{type(model).__name__} is on the meta device; give it memory before converting.")
    return config


def _random_encoders(config: M33DConfig, options: ConversionOptions) -> frozenset[str]:
    """Names of the encoders (and of the modalities they serve) that keep their own initialisation."""
    if options.depth_encoder_init == "copy":
        return frozenset()
    return frozenset(config.encoder_name(spec) for spec in config.specs) - {"rgb", "shared"}


def _decoder_reason(
    neutral: Neutral,
    table: FormatTable,
    checkpoint: ForeignCheckpoint,
    config: M33DConfig,
    targets: Mapping[str, Tensor],
    options: ConversionOptions,
) -> str | None:
    """Why the decoder is not taken from the checkpoint; None when it is."""
    if not any(target.startswith("decoder.") for target in targets):
        return "the model has no decoder"
    if not neutral.has_decoder():
        return "the checkpoint holds no decoder"
    if not options.init_decoder:
        return "init_decoder is False"
    per_target = any(name.startswith("decoder.targets.") for name in neutral.weights)
    if per_target != (config.decoder_kind == "per_target"):
        theirs = "per_target" if per_target else "shared"
        return f"a decoder of another kind: decoder_kind {theirs!r} (model: {config.decoder_kind!r})"
    if per_target:
        return target_obstacle(neutral, checkpoint.config, config)
    return decoder_obstacle(neutral, table, checkpoint.config, config)


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
        return "the checkpoint's classifier reads one token, ours the normed mean of all of them"
    return class_obstacle(theirs.tensor.shape[0], checkpoint.config.get("id2label"), ours.shape[0], config.id2label)


def _settle_positions(
    neutral: Neutral,
    table: FormatTable,
    config: M33DConfig,
    decoder_reason: str | None,
    ignored: dict[str, str],
    notes: list[str],
) -> Neutral:
    """Verify the position tables, list them as ignored, and add the class row to the class token."""
    weights = dict(neutral.weights)
    notes_given = False  # one table per modality would say the same
    for part, entry in neutral.tables.items():
        key = entry.sources[0]
        part = part.partition(".")[0]
        if part == "decoder" and decoder_reason is not None:
            ignored[key] = decoder_reason
            continue
        reason, cls_row = verify_table(key, entry.tensor, table.position_kind, table.cls_position_row, config)
        if config.position_embedding_type != table.position_kind:
            reason = f"the inflated model has {config.position_embedding_type} positions instead"
        ignored[key] = reason
        if part == "decoder" and cls_row is not None and bool(cls_row.any()):
            raise ConversionError(f"{key!r}: row 0 (class token) is not zero, but our decoder adds nothing there.")
        if part == "encoder" and not notes_given:
            notes_given = True
            note = grid_note(entry.tensor, table.cls_position_row, config)
            notes.extend([note] if note else [])
            if cls_row is not None and "cls_token" in weights:
                cls = weights["cls_token"]
                weights["cls_token"] = Weight(cls.tensor + cls_row, cls.sources, "cls_token + position row 0")
    return Neutral(weights, neutral.tables, neutral.ignored)


_EMBEDDING = re.compile(
    r"(?:m33d\.)?embeddings\.(?P<modality>\w+)\.(?P<leaf>projection\.weight|projection\.bias|cls_token)"
)
_ENCODER = re.compile(r"(?:m33d\.)?encoders\.(?P<encoder>\w+)\.(?P<leaf>.+)")
_NEUTRAL_LEAF = {
    "projection.weight": "patch.weight",
    "projection.bias": "patch.bias",
    "cls_token": "cls_token",
}


def _plan_target(
    target: str,
    own: Tensor,
    neutral: Neutral,
    options: ConversionOptions,
    decoder_reason: str | None,
    plan: _Plan,
) -> None:
    """Decide for one weight of the model: filled, new with a reason, or left open (an error later)."""
    embedding = _EMBEDDING.fullmatch(target)
    encoder = _ENCODER.fullmatch(target)
    if embedding:
        _plan_embedding(target, own, embedding["modality"], embedding["leaf"], neutral, options, plan)
    elif encoder:
        source = neutral.weights.get(f"encoder.{encoder['leaf']}")
        if encoder["encoder"] in plan.random_encoders:
            plan.new[target] = "depth_encoder_init is 'random'"
        elif source is not None:
            plan.fill(target, source)
        elif encoder["leaf"].startswith("layernorm.") and not _has_final_norm(neutral):
            plan.new[target] = "the checkpoint has no final norm; ours starts at weight 1, bias 0"
    elif target.removeprefix("m33d.") == "global_token":
        # REFERENCE.md §3.7: MAE's class token with its position, or MultiMAE's own.
        cls_token = neutral.weights.get("cls_token")
        if cls_token is None:
            plan.new[target] = "the checkpoint has no class token"
        else:
            plan.fill(target, cls_token)
    elif target.startswith("decoder."):
        _plan_decoder(target, neutral, decoder_reason, plan)
    elif target.startswith("fc_norm."):
        _fill_or_new(
            target, neutral, "the checkpoint has no norm of pooled features; ours starts as the identity", plan
        )
    elif target.startswith("classifier."):
        if plan.classifier_reason is not None:
            plan.new[target] = plan.classifier_reason
        else:
            _fill_or_new(target, neutral, "the checkpoint's classifier has no bias", plan)
    elif not target.startswith(("m33d.", "embeddings.", "encoders.")):
        plan.new[target] = "this head has no counterpart in the checkpoint"


def _fill_or_new(target: str, neutral: Neutral, reason: str, plan: _Plan) -> None:
    source = neutral.weights.get(target)
    if source is None:
        plan.new[target] = reason
    else:
        plan.fill(target, source)


def _has_final_norm(neutral: Neutral) -> bool:
    return any(name.startswith("encoder.layernorm.") for name in neutral.weights)


def _plan_embedding(
    target: str,
    own: Tensor,
    modality: str,
    leaf: str,
    neutral: Neutral,
    options: ConversionOptions,
    plan: _Plan,
) -> None:
    source = neutral.weights.get(_NEUTRAL_LEAF[leaf])
    if leaf == "cls_token":
        if source is None:
            plan.new[target] = "the checkpoint has no class token"
        elif modality in plan.random_encoders:
            plan.new[target] = "depth_encoder_init is 'random'"
        else:
            plan.fill(target, source)
        return
    exact = neutral.weights.get(f"patch_{modality}.{leaf.removeprefix('projection.')}")
    if exact is not None:
        plan.fill(target, exact)
    elif modality != "rgb" and options.depth_patch_init == "random":
        plan.new[target] = "depth_patch_init is 'random'"
    elif source is not None and leaf == "projection.bias":
        plan.fill(target, source)
    elif source is not None:
        kernel, how = _fit_kernel(source.tensor, own, modality, options)
        plan.fill(target, source, kernel, how)


def _fit_kernel(kernel: Tensor, own: Tensor, modality: str, options: ConversionOptions) -> tuple[Tensor, str]:
    """Bring an RGB kernel (D, 3, [t,] p, p) to a modality's channels and, if asked for, to a tubelet."""
    how = []
    if modality != "rgb":
        total = kernel.sum(dim=1, keepdim=True)
        if options.depth_patch_init == "mean":
            total = total / kernel.shape[1]
        # Spread over several channels so that equal channels still give the response of one.
        kernel = (total / own.shape[1]).repeat_interleave(own.shape[1], dim=1)
        how.append(f"{options.depth_patch_init} over the RGB kernels")
    if own.ndim == 5 and kernel.ndim == 4:
        frames = own.shape[2]
        if options.inflate == "average":
            kernel = kernel.unsqueeze(2).repeat_interleave(frames, dim=2) / frames
        else:
            spread = kernel.new_zeros(kernel.shape[0], kernel.shape[1], frames, *kernel.shape[2:])
            spread[:, :, frames // 2] = kernel
            kernel = spread
        how.append(f"inflated over {frames} frames ({options.inflate})")
    return kernel, ", ".join(how) or "copied"


def _plan_decoder(target: str, neutral: Neutral, decoder_reason: str | None, plan: _Plan) -> None:
    if decoder_reason is not None:
        plan.new[target] = decoder_reason
        return
    if target.startswith("decoder.targets."):
        source = neutral.weights.get(target)
        if source is None and not any(n.startswith(".".join(target.split(".")[:3]) + ".") for n in neutral.weights):
            plan.new[target] = "the checkpoint does not predict this modality"
        elif source is not None:
            plan.fill(target, source)
        elif ".task_embeddings." in target:
            plan.new[target] = "the checkpoint does not encode this modality"
        return
    if target.startswith("decoder.modality_embeddings."):
        plan.new[target] = "MAE and VideoMAE have one modality and no embedding for it"
        return
    if target.startswith("decoder.heads.") and not target.startswith("decoder.heads.rgb."):
        plan.new[target] = "MAE and VideoMAE predict RGB only"
        return
    source = neutral.weights.get(target.replace("decoder.heads.rgb.", "decoder.head."))
    if source is not None:
        plan.fill(target, source)


def _account(
    neutral: Neutral,
    plan: _Plan,
    ignored: dict[str, str],
    decoder_reason: str | None,
    targets: Mapping[str, Tensor],
    checkpoint: ForeignCheckpoint,
    table: FormatTable,
) -> None:
    """Give a reason to every foreign weight that went nowhere, or raise; likewise for our open weights."""
    poured = set(plan.used)
    for name, weight in neutral.weights.items():
        for key in weight.sources:
            if key not in poured and key not in ignored:
                reason = _reason_for_unused(name, decoder_reason, plan.classifier_reason, targets)
                if reason:
                    ignored[key] = reason
    unexplained = [key for key in checkpoint.tensors if key not in poured and key not in ignored]
    if unexplained:
        raise ConversionError(
            f"{table.name}: {len(unexplained)} weights of {checkpoint.origin} have no place in the model,"
            f" first"
            f" {unexplained[0]!r}. Does the model's configuration (qkv_bias, layers, modalities) match?"
        )
    missing = [target for target in targets if target not in plan.filled and target not in plan.new]
    if missing:
        raise ConversionError(
            f"{table.name}: {len(missing)} weights of the model are not in {checkpoint.origin}, first"
            f" {missing[0]!r}. The file is incomplete or of another model."
        )


def _reason_for_unused(
    name: str, decoder_reason: str | None, classifier_reason: str | None, targets: Mapping[str, Tensor]
) -> str | None:
    if name.startswith("classifier."):
        return classifier_reason
    if name.startswith("fc_norm.") and "fc_norm.weight" not in targets:
        return FINE_TUNE_REASON
    if name.startswith("decoder."):
        if decoder_reason is not None:
            return decoder_reason
        if name.startswith("decoder.targets."):
            return "the model does not predict this modality, or does not encode it"
        if name.startswith("decoder.head.") and "decoder.heads.rgb.weight" not in targets:
            return "the model does not reconstruct RGB"
        return None
    if name == "cls_token" and not any(target.endswith(("cls_token", "global_token")) for target in targets):
        return "the model has no class token (use_cls_token, global_token)"
    if name.startswith("patch_") and not any(f"embeddings.{name[6:].split('.')[0]}." in target for target in targets):
        return "the model does not take this modality"
    if name.startswith("encoder.layernorm.") and not any(".layernorm." in t for t in targets if "encoders." in t):
        return "the model's head reads the raw blocks, before any final norm"
    return None


def _pour(values: Mapping[str, Tensor], targets: Mapping[str, Tensor], table: FormatTable) -> None:
    for target, value in values.items():
        if value.shape != targets[target].shape:
            raise ConversionError(
                f"{table.name}: {target!r} is {tuple(targets[target].shape)} in the model but"
                f" {tuple(value.shape)} in the checkpoint."
            )
    with torch.no_grad():
        for target, value in values.items():
            targets[target].copy_(value)
