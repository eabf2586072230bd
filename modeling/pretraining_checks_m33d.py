# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What the fields of pre-training must not say together."""

from __future__ import annotations

from typing import Any

from .errors_m33d import ConfigError
from .modalities_m33d import ModalitySpec


def check_decoder(config: Any) -> None:
    """Refuse decoders and losses that tell one modality's tokens what is hidden of another, or tie nothing together.

    Raises:
        ConfigError: with the fields and the fix.
    """
    if config.joint_encoding:
        hidden = [spec.name for spec in config.input_specs if spec.drop_probability > 0]
        if hidden:
            raise ConfigError(
                f"with joint_encoding, the latents of other modalities contain {hidden[0]!r} before it is hidden; "
                "set its drop_probability to 0 or joint_encoding to False."
            )
        for term in ("contrastive", "matching"):
            if getattr(config, f"{term}_weight") > 0:
                raise ConfigError(
                    f"the {term} term requires features of each modality alone; "
                    f"set joint_encoding to False or {term}_weight to 0."
                )
    several = len(config.specs) > 1 and config.target_specs
    if config.decoder_fusion == "separate" and not config.joint_encoding and several:
        cut = [s.name for s in config.target_specs if not s.is_input] or (
            [s.name for s in config.specs] if config.encoder_sharing == "separate" else []
        )
        if cut:
            raise ConfigError(
                f"decoder_fusion 'separate' with separately encoded modalities disconnects {cut}: the loss of "
                "one would not reach the encoder of the other. Use 'joint' or 'fused', or joint_encoding."
            )
    if config.decoder_fusion == "fused" and config.decoder_attention == "cross":
        raise ConfigError("decoder_attention 'cross' does not support decoder_fusion 'fused'; use 'joint'.")


def check_budget(config: Any) -> None:
    """Refuse a token budget without what it needs (MultiMAE's joint encoder and decoders), and these without it.

    Raises:
        ConfigError: with the fields and the fix.
    """
    for spec in config.specs:
        _check_second_target(config, spec)
    if config.global_token and config.use_cls_token:
        raise ConfigError("global_token and use_cls_token serve the same purpose; set one of them to False.")
    if (config.token_budget is not None) != (config.decoder_kind == "per_target"):
        raise ConfigError(
            f"token_budget {config.token_budget} and decoder_kind {config.decoder_kind!r} cannot be combined: with a "
            "token budget the number of visible tokens varies by sample, which decoder_kind 'per_target' requires "
            "and other decoders do not support. Set both (method multimae) or neither."
        )
    if config.token_budget is None:
        return
    if not config.joint_encoding or config.use_cls_token or config.share_mask:
        raise ConfigError(
            "token_budget requires a joint sequence of all modalities: set joint_encoding to True, use_cls_token to "
            "False (global_token takes its place) and share_mask to None."
        )
    kinds = {spec.name: spec.masking for spec in config.input_specs if spec.masking != "random"}
    if kinds:
        raise ConfigError(f"token_budget draws positions at random; set masking 'random' for {kinds}.")
    config.budget_for(config.grid)


def _check_second_target(config: Any, spec: ModalitySpec) -> None:
    if spec.target_of is None:
        return
    sources = {other.name: other for other in config.input_specs}
    source = sources.get(spec.target_of)
    same = ("input_name", "mask_name", "channels")
    if source is None or any(getattr(source, name) != getattr(spec, name) for name in same):
        raise ConfigError(
            f"modality {spec.name!r}: target_of is {spec.target_of!r}; expected an input modality with the same "
            f"{', '.join(same)}, one of {sorted(sources)}."
        )
    if spec.is_target and config.decoder_kind != "per_target":
        raise ConfigError(f"modality {spec.name!r}: target_of requires decoder_kind 'per_target'.")


def check_pair_losses(config: Any) -> None:
    """Refuse contrastive and matching terms without a pair, or with negatives that give the answer away.

    Raises:
        ConfigError: with the fields and the fix.
    """
    pairwise = config.contrastive_weight > 0 or config.matching_weight > 0
    if pairwise and (not config.paired_specs or "rgb" not in [s.name for s in config.input_specs]):
        raise ConfigError("contrastive and matching terms require 'rgb' and a second input modality.")
    if config.contrastive_negatives == "batch" and config.contrastive_weight > 0:
        masked = any(spec.mask_ratio > 0 for spec in config.input_specs)
        if config.masks_are_shared and masked and config.contrastive_tokens == "visible":
            raise ConfigError(
                "contrastive_negatives 'batch' with shared masks leaks the image identity through the pattern of "
                "visible positions; set share_mask to False."
            )
        if config.contrastive_symmetric:
            raise ConfigError(
                "contrastive_negatives 'batch' cannot be symmetric; set contrastive_symmetric to False or "
                "contrastive_negatives to 'sample'."
            )
    if config.matching_pool == "cls" and config.matching_weight > 0 and not config.use_cls_token:
        raise ConfigError("matching_pool 'cls' requires use_cls_token True.")


def check_follow_up(config: Any) -> None:
    """Refuse denoising without a decoder to predict the noise, and distillation of features that there are not.

    Raises:
        ConfigError: with the fields and the fix.
    """
    denoised = [spec.name for spec in config.denoised_specs]
    if denoised and (not config.target_specs or config.decoder_kind != "shared"):
        raise ConfigError(
            f"denoising_weight of {denoised} requires the shared decoder of a reconstruction: set the role of a "
            "modality to 'both' with a weight above 0, and decoder_kind to 'shared'; or set denoising_weight to 0 "
            "(as in stage 1)."
        )
    if config.distillation_weight > 0 and config.token_budget is not None:
        raise ConfigError(
            "distillation requires features per modality, which token_budget does not provide; remove one of the two."
        )
