# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""M33DForPreTraining: reconstruction, contrast and matching on top of the encoders, and what the losses do not say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .batch_checks_m33d import check_alike, check_names, check_rows, collect_masks, without_holes
from .batch_m33d import PreTrainingBatch
from .configuration_m33d import M33DConfig
from .decoder_m33d import M33DDecoder
from .diagnostics_m33d import diagnostics
from .encoder_choice_m33d import with_encoders
from .encoder_m33d import as_clip
from .errors_m33d import ConfigError, DataError
from .heads_m33d import M33DContrastiveHead
from .losses_m33d import global_embedding, weighted_total
from .masking_m33d import JOINT, draw_keep, motion_scores
from .modeling_m33d import M33DModel, M33DPreTrainedModel
from .multimae_decoder_m33d import M33DTargetDecoders
from .outputs_m33d import M33DForPreTrainingOutput
from .states_m33d import states_are_wanted
from .terms_m33d import PreTrainingPass, Tensors, active_terms, final_features

# Forward arguments of a batch that hold no pixels.
_NO_PIXELS = ("keep", "hide", "noise", "teacher_features")


class M33DForPreTraining(M33DPreTrainedModel):
    """Masked modelling, contrastive and matching terms. Only the parts that a configuration's losses need exist."""

    def __init__(self, config: M33DConfig) -> None:
        inputs = [spec.name for spec in config.input_specs]
        config = with_encoders(config, inputs, config.encoder_norm)  # also where it comes from a task model's folder
        super().__init__(config)
        self.terms = active_terms(config)
        if not self.terms:
            raise ConfigError("no loss term is active: set the weight of a modality, or contrastive_weight, above 0.")
        unplaced = config.contrastive_position_free and not any(term.needs_states for term in self.terms)
        if unplaced and config.position_embedding_type == "learned":
            raise ConfigError(
                "contrastive_position_free without another term leaves learned positions without a gradient; set it to "
                "False, or position_embedding_type to null."
            )
        if config.target_specs and config.global_token and config.decoder_kind == "shared":
            raise ConfigError(
                "the shared decoder does not support global_token; set it to False, or set decoder_kind 'per_target' "
                "and a token_budget (method multimae)."
            )
        self.m33d = M33DModel(config, inputs, config.encoder_norm)
        self.decoder: M33DDecoder | M33DTargetDecoders | None = None
        if config.target_specs:
            self.decoder = M33DDecoder(config) if config.decoder_kind == "shared" else M33DTargetDecoders(config)
        self.contrastive_head = M33DContrastiveHead(config) if config.contrastive_weight > 0 else None
        self.matching_head = None
        if config.matching_weight > 0:
            width = config.hidden_size * (2 if config.matching_fusion == "concat" else 1)
            self.matching_head = nn.ModuleDict({spec.name: nn.Linear(width, 2) for spec in config.paired_specs})
        self.post_init()
        # The encoders' own, which post_init hands on: what they leave out is a part of this model.
        self._keys_to_ignore_on_load_unexpected = set()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, M33DContrastiveHead) and module.log_temperature is not None:
            init.constant_(module.log_temperature, float(torch.tensor(module.temperature).log()))

    def get_input_embeddings(self) -> nn.Module:
        """The first modality's patch projection."""
        return self.m33d.get_input_embeddings()

    def extract_features(self, pixel_values: torch.Tensor | None = None, **inputs: Any) -> Tensors:
        """Encode every token of the given modalities, never masked: name -> (B, N, D)."""
        return self.m33d.extract_features(pixel_values, **inputs)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Term -> weight: alpha and beta of the modalities, gamma, eta (Eq. 5)."""
        return {term.name: term.weight for term in self.terms}

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        depth_values: torch.Tensor | None = None,
        depth_mask: torch.Tensor | None = None,
        keep: dict[str, torch.Tensor] | None = None,
        hide: dict[str, torch.Tensor] | None = None,
        noise: dict[str, torch.Tensor] | None = None,
        teacher_features: dict[str, torch.Tensor] | None = None,
        output_diagnostics: bool = False,
        output_features: bool = False,
        output_reconstruction: bool = False,
        **kwargs: Any,
    ) -> M33DForPreTrainingOutput:
        """Compute the pre-training loss.

        Args:
            pixel_values: (B, 3, H, W) or (B, T, 3, H, W) normalised RGB.
            depth_values: (B, 1, H, W) or (B, T, 1, H, W) standardised depth; holes may hold anything, NaN included.
            depth_mask: bool like `depth_values`, True where valid; all valid when None.
            keep: name -> (B, V) int64 visible tokens, ascending; with a token budget "joint" -> (B, V) (see
                `draw_budget`); drawn here when None.
            hide: name -> (B,) bool, samples whose latents of that modality are hidden from the decoder; drawn from
                `drop_probability` when None and training.
            noise: name -> standard normal values like that input, for modalities that are denoised; drawn here when
                None and training. In evaluation nothing is added without it, and the term counts nothing.
            teacher_features: name -> (B, D) global embeddings of the distilled teacher (`embed_globally`); needed in
                training with `distillation_weight`. In evaluation the term counts nothing without them.
            output_diagnostics: also compute accuracies and the losses with a modality hidden.
            output_features: also return encoded visible tokens.
            output_reconstruction: also return the predictions.
            kwargs: inputs and masks of further modalities.

        Raises:
            ConfigError: a missing modality or an argument nobody knows.
            DataError: modalities, masks or positions of different samples or shapes, or positions that repeat
                themselves or lie outside (looked at where they are on the CPU).
        """
        given = {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}
        if teacher_features is not None and self.config.distillation_weight <= 0:
            raise ConfigError(
                "forward got teacher_features, but distillation_weight is 0: set it above 0, or leave them out."
            )
        batch = self._prepare({**given, "keep": keep, "hide": hide, "noise": noise}, kwargs)
        self._check_teacher(teacher_features, batch)
        recorded = states_are_wanted(self.config, kwargs)
        states = self._main_states(batch, recorded)
        predictions, masked = {}, {}
        if self.decoder is not None:
            predictions, masked = self.decoder(states, batch.keep, batch.grid, batch.hide)
        seen = PreTrainingPass(
            self, batch, states, self._pair_states(batch, states, recorded), predictions, masked, teacher_features
        )
        totals = {term.name: term.total(seen) for term in self.terms}
        sums, counts = ({name: total[part] for name, total in totals.items()} for part in (0, 1))
        losses = {name: sums[name] / counts[name].clamp_min(1) for name in sums}
        weights = self.loss_weights
        return M33DForPreTrainingOutput(
            loss=weighted_total(sums, counts, weights),
            losses=losses,
            weighted_losses={name: weights[name] * losses[name] for name in losses},
            loss_sums=sums,
            loss_counts=counts,
            keep=batch.keep,
            masked=masked,
            diagnostics=diagnostics(seen) if output_diagnostics else None,
            features=final_features(self.m33d, states or seen.pair_states) if output_features else None,
            reconstructions=predictions if output_reconstruction else None,
        )

    def loss_counts(self, **batch: Any) -> dict[str, torch.Tensor]:
        """The denominators of all terms, from the batch alone and before any forward pass.

        Raises:
            ConfigError: the batch holds no `keep`, or no `hide` where it decides what is counted (what forward draws
                cannot be counted before it).
        """
        if batch.get("keep") is None:
            raise ConfigError("loss_counts requires 'keep' in the batch; use the collator to draw the masks.")
        dropped = any(spec.drop_probability > 0 for spec in self.config.denoised_specs)
        if self.training and dropped and batch.get("hide") is None:
            raise ConfigError("loss_counts requires 'hide' in the batch; use the collator to draw the hidden samples.")
        prepared = self.prepared(**batch)
        return {term.name: term.count(prepared) for term in self.terms}

    def prepared(self, **batch: Any) -> PreTrainingBatch:
        """A batch as the losses see it: pixels, targets, holes and masks of all modalities, before any forward pass.

        Raises:
            ConfigError, DataError: as `forward`.
        """
        known = {"pixel_values", "depth_values", "depth_mask", *_NO_PIXELS}
        given = {key: value for key, value in batch.items() if key in known}
        return self._prepare(given, {key: value for key, value in batch.items() if key not in known})

    @torch.no_grad()
    def embed_globally(self, keep: Tensors | None = None, use_positions: bool = True, **batch: Any) -> Tensors:
        """The clean inputs of a batch as global embeddings, which a teacher gives to its student.

        Args:
            keep: name -> (B, V) tokens to look at; all of them when None.
            use_positions: False for weights that were trained without position embeddings.
            batch: forward arguments; masks of holes are minded, noise is not added.

        Returns:
            name -> (B, D) float32, the maximum of the final features over the tokens (class token left out).
        """
        pixels = {name: value for name, value in batch.items() if name not in _NO_PIXELS}
        inputs = self._pixels(pixels, {})[0]
        self.m33d.check_visible(keep, inputs)
        states = self.m33d.encode(inputs, keep, use_positions)
        return {name: global_embedding(tokens) for name, tokens in final_features(self.m33d, states).items()}

    # -- parts of the forward pass -------------------------------------------------------------------------------

    def _prepare(self, given: dict[str, Any], kwargs: dict[str, Any]) -> PreTrainingBatch:
        named = {key: value for key, value in given.items() if key not in _NO_PIXELS}
        inputs, targets, valid = self._pixels(named, kwargs)
        pixels = next(iter(inputs.values()))
        grid = self.m33d.grid_of(pixels)
        keep = given.get("keep")
        if keep is None:
            motion = None
            if any(spec.masking == "motion" for spec in self.config.input_specs):
                motion = motion_scores(inputs["rgb"], self.config)
            keep = draw_keep(self.config, pixels.shape[0], grid, device=pixels.device, motion=motion)
        if (self.config.token_budget is not None) != (JOINT in keep):
            wanted = [JOINT] if self.config.token_budget is not None else list(inputs)
            raise ConfigError(f"keep has no visible tokens of {wanted}; it has those of {sorted(keep)}.")
        self.m33d.check_visible(keep, inputs)
        hide = given.get("hide")
        if hide is None and self.training:
            hide = {
                spec.name: torch.rand(pixels.shape[0], device=pixels.device) < spec.drop_probability
                for spec in self.config.input_specs
                if spec.drop_probability > 0
            }
        check_names("hide", hide or {}, list(inputs))
        for name, hidden in (hide or {}).items():
            check_rows(f"hide of {name!r}", hidden, (pixels.shape[0],), "one bool per sample")
        noise = self._noise(given.get("noise"), inputs, valid)
        for name, drawn in noise.items():
            inputs[name] = inputs[name] + self.config.spec(name).denoising_std * drawn
        return PreTrainingBatch(self.config, grid, inputs, targets, valid, keep, hide or None, noise)

    def _pixels(self, named: dict[str, Any], kwargs: dict[str, Any]) -> tuple[Tensors, Tensors, Tensors]:
        """Inputs and targets by modality as (B, T, C, H, W), 0 in holes, and the masks of valid pixels."""
        inputs = self.m33d.collect_inputs(named, kwargs)
        values = {**named, **kwargs}
        for spec in self.config.specs:
            if values.get(spec.input_name) is None and (spec.is_input or spec.is_target):
                raise ConfigError(
                    f"forward requires {spec.input_name!r}, because modality {spec.name!r} is part of this "
                    "pre-training "
                    "model. Pass it, or remove the modality from the configuration."
                )
        targets = {
            s.name: inputs[s.name] if s.name in inputs else as_clip(values[s.input_name], s, self.config)
            for s in self.config.target_specs
        }
        valid = collect_masks(self.config, values)
        check_alike({**inputs, **targets}, valid)
        return inputs, without_holes(targets, valid), valid

    def _noise(self, given: Tensors | None, inputs: Tensors, valid: Tensors) -> Tensors:
        """Standard normal noise of the modalities to denoise, 0 in holes; none in evaluation unless it is given."""
        specs = self.config.denoised_specs
        if given is None:
            drawn = {spec.name: torch.randn_like(inputs[spec.name]) for spec in specs} if self.training else {}
        else:
            drawn = {spec.name: as_clip(given[spec.name], spec, self.config) for spec in specs if spec.name in given}
            missing = [spec.name for spec in specs if spec.name not in given]
            if missing:
                raise ConfigError(f"noise is missing for {missing}; pass noise for all denoised modalities, or none.")
            idle = [name for name in given if name not in drawn]
            if idle:
                raise ConfigError(
                    f"noise was passed for {idle}, which are not denoised: remove it, or set their denoising_weight."
                )
        for name in drawn:
            if drawn[name].shape != inputs[name].shape:
                shapes = f"{tuple(drawn[name].shape)}, but the input has {tuple(inputs[name].shape)}"
                raise DataError(f"the noise of {name} has shape {shapes} as (B, T, C, H, W); pass one value per pixel.")
            if name in valid:
                drawn[name] = drawn[name].masked_fill(~valid[name].bool(), 0.0)
        return drawn

    def _check_teacher(self, features: Tensors | None, batch: PreTrainingBatch) -> None:
        check_names("teacher_features", features or {}, [spec.name for spec in self.config.specs])
        for name, embedding in (features or {}).items():
            shape = (batch.batch_size, self.config.hidden_size)
            check_rows(f"teacher_features of {name!r}", embedding, shape, "one global embedding per sample, (B, D)")

    def _main_states(self, batch: PreTrainingBatch, recorded: bool) -> Tensors:
        """The encoder pass with positions; empty when only a position-free contrastive term wants features."""
        needed = any(term.needs_states for term in self.terms)
        if not needed and (self.config.contrastive_position_free or self.config.contrastive_tokens == "full_forward"):
            return {}
        return self.m33d.encode(batch.inputs, batch.keep, recorded=recorded)

    def _pair_states(self, batch: PreTrainingBatch, states: Tensors, recorded: bool) -> Tensors:
        """Features for the contrastive term: the main pass, or a pass of their own where the configuration says so."""
        if self.contrastive_head is None:
            return states
        if not self.config.contrastive_position_free and self.config.contrastive_tokens == "visible":
            return states
        keep = None if self.config.contrastive_tokens == "full_forward" else batch.keep
        positions = not self.config.contrastive_position_free
        return self.m33d.encode(batch.inputs, keep, positions, recorded=recorded and not states)
