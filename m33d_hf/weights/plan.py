"""Where every weight of a model comes from: copied, made of the RGB one, or new for a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from torch import Tensor

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.formats.layout import Neutral, Weight
from m33d_hf.weights.init_options import ConversionOptions


@dataclass
class Plan:
    """What a conversion will do, before anything is written."""

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


def random_encoders(config: M33DConfig, options: ConversionOptions) -> frozenset[str]:
    """Names of the encoders (and of the modalities they serve) that keep their own initialisation."""
    if options.depth_encoder_init == "copy":
        return frozenset()
    return frozenset(config.encoder_name(spec) for spec in config.specs) - {"rgb", "shared"}


_EMBEDDING = re.compile(
    r"(?:m33d\.)?embeddings\.(?P<modality>\w+)\.(?P<leaf>projection\.weight|projection\.bias|cls_token)"
)
_ENCODER = re.compile(r"(?:m33d\.)?encoders\.(?P<encoder>\w+)\.(?P<leaf>.+)")
_NEUTRAL_LEAF = {
    "projection.weight": "patch.weight",
    "projection.bias": "patch.bias",
    "cls_token": "cls_token",
}


def plan_target(
    target: str,
    own: Tensor,
    neutral: Neutral,
    options: ConversionOptions,
    decoder_reason: str | None,
    plan: Plan,
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
        elif encoder["leaf"].startswith("layernorm.") and not has_final_norm(neutral):
            plan.new[target] = "the checkpoint has no final norm; ours starts at weight 1, bias 0"
    elif target.removeprefix("m33d.") == "global_token":
        # docs/method.md#global-token: MAE's class token with its position, or MultiMAE's own.
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


def _fill_or_new(target: str, neutral: Neutral, reason: str, plan: Plan) -> None:
    source = neutral.weights.get(target)
    if source is None:
        plan.new[target] = reason
    else:
        plan.fill(target, source)


def has_final_norm(neutral: Neutral) -> bool:
    return any(name.startswith("encoder.layernorm.") for name in neutral.weights)


def _plan_embedding(
    target: str,
    own: Tensor,
    modality: str,
    leaf: str,
    neutral: Neutral,
    options: ConversionOptions,
    plan: Plan,
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


def _plan_decoder(target: str, neutral: Neutral, decoder_reason: str | None, plan: Plan) -> None:
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
