"""M33DForPreTraining: reconstruction, contrast and matching on top of the encoders, and what the losses do not say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .batch_m33d import PreTrainingBatch
from .configuration_m33d import M33DConfig, ModalitySpec
from .decoder_m33d import M33DDecoder
from .encoder_m33d import as_clip
from .errors_m33d import ConfigError, DataError
from .heads_m33d import M33DContrastiveHead
from .losses_m33d import (
    batch_contrastive_loss,
    contrastive_loss,
    distillation_loss,
    fuse_pair,
    global_embedding,
    matching_loss,
    matching_pairs,
    mismatched_partners,
    normalize_patches,
    reconstruction_count,
    reconstruction_loss,
    retrieval_hits,
    weighted_total,
)
from .masking_m33d import JOINT, budget_without, draw_keep, motion_scores
from .modalities_m33d import noise_term
from .modeling_m33d import GLOBAL, M33DModel, M33DPreTrainedModel
from .multimae_decoder_m33d import M33DTargetDecoders
from .outputs_m33d import M33DForPreTrainingOutput

Tensors = dict[str, torch.Tensor]

# Forward arguments of a batch that hold no pixels.
_NO_PIXELS = ("keep", "hide", "noise", "teacher_features")


def _check_alike(pixels: Tensors, valid: Tensors) -> None:
    """Refuse modalities of different batch, frames or size, and masks that are not those of their modality.

    Raises:
        DataError: naming both. Else the patches of another place would be read, or an index would be out of range.
    """
    first, reference = next(iter(pixels.items()))
    expected = (*reference.shape[:2], *reference.shape[3:])
    named = [*pixels.items(), *((f"the mask of {name}", mask) for name, mask in valid.items())]
    for name, values in named:
        if values.ndim != 5 or (*values.shape[:2], *values.shape[3:]) != expected:
            raise DataError(
                f"{name} has shape {tuple(values.shape)}, {first} has {tuple(reference.shape)} as (B, T, C, H, W): "
                "all modalities and masks of a batch need the same samples, frames, height and width."
            )


class M33DForPreTraining(M33DPreTrainedModel):
    """Masked modelling, contrastive and matching terms. Only the parts that a configuration's losses need exist."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        if not (config.target_specs or config.contrastive_weight > 0 or config.matching_weight > 0):
            raise ConfigError("no loss term is active: give a modality a weight, or set contrastive_weight.")
        if config.target_specs and config.global_token and config.decoder_kind == "shared":
            raise ConfigError(
                "global_token has no place in the shared decoder; set it to False, or give decoder_kind 'per_target' "
                "and a token_budget (method multimae)."
            )
        self.m33d = M33DModel(config)
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
        weights = {spec.name: float(spec.weight) for spec in self.config.target_specs}
        if self.contrastive_head is not None:
            weights["contrastive"] = float(self.config.contrastive_weight)
        if self.matching_head is not None:
            weights["matching"] = float(self.config.matching_weight)
        weights |= {noise_term(spec.name): float(spec.denoising_weight) for spec in self.config.denoised_specs}
        if self.config.distillation_weight > 0:
            weights["distillation"] = float(self.config.distillation_weight)
        return weights

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
            DataError: modalities or masks of different shapes.
        """
        given = {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}
        batch = self._prepare({**given, "keep": keep, "hide": hide, "noise": noise}, kwargs)
        states = self._main_states(batch)
        predictions, masked = {}, {}
        if self.decoder is not None:
            predictions, masked = self.decoder(states, batch.keep, batch.grid, batch.hide)
        pair_states = self._pair_states(batch, states)
        sums, counts = self._terms(batch, predictions, masked, states, pair_states, teacher_features)
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
            diagnostics=self._diagnostics(batch, states, pair_states) if output_diagnostics else None,
            features=self._features(states or pair_states) if output_features else None,
            reconstructions=predictions if output_reconstruction else None,
        )

    def loss_counts(self, **batch: Any) -> dict[str, torch.Tensor]:
        """The denominators of all terms, from the batch alone and before any forward pass.

        Raises:
            ConfigError: the batch holds no `keep` (masks drawn inside forward cannot be counted before it).
        """
        if batch.get("keep") is None:
            raise ConfigError("loss_counts needs 'keep' in the batch; let the collator draw the masks.")
        known = {"pixel_values", "depth_values", "depth_mask", *_NO_PIXELS}
        given = {key: value for key, value in batch.items() if key in known}
        prepared = self._prepare(given, {key: value for key, value in batch.items() if key not in known})
        rows = prepared.batch_size
        counts: Tensors = {}
        for spec in self.config.target_specs:
            index = prepared.masked_index(spec)
            shape = torch.Size((rows, index.shape[1], self.config.patch_dim(spec)))
            counted = prepared.counted_values(spec, prepared.valid_patches(spec, index))
            counts[spec.name] = reconstruction_count(
                shape, spec.loss, counted, self.config.loss_reduction, prepared.device
            )
        if self.contrastive_head is not None:
            rows_each = [prepared.pairs_with_rgb(spec).any(dim=2).sum().float() for spec in self.config.paired_specs]
            counts["contrastive"] = torch.stack(rows_each).sum()
        if self.matching_head is not None:
            pairs = matching_pairs(rows, self.config.num_matching_negatives) * len(self.config.paired_specs)
            counts["matching"] = torch.full((), float(pairs), device=prepared.device)
        for spec in self.config.denoised_specs:
            if self.training and spec.drop_probability > 0 and batch.get("hide") is None:
                raise ConfigError("loss_counts needs 'hide' in the batch; let the collator draw the hidden samples.")
            counts[noise_term(spec.name)] = self._denoising_count(prepared, spec)
        if self.config.distillation_weight > 0:
            values = rows * self.config.hidden_size * len(self.config.input_specs)
            counts["distillation"] = torch.full((), float(values), device=prepared.device)
        return counts

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
        states = self.m33d.encode(inputs, keep, use_positions)
        return {name: global_embedding(tokens) for name, tokens in self._features(states).items()}

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
        expected = [JOINT] if self.config.token_budget is not None else list(inputs)
        missing = [name for name in expected if name not in keep]
        if missing:
            raise ConfigError(f"keep lacks the visible tokens of {missing}; it has {sorted(keep)}.")
        hide = given.get("hide")
        if hide is None and self.training:
            hide = {
                spec.name: torch.rand(pixels.shape[0], device=pixels.device) < spec.drop_probability
                for spec in self.config.input_specs
                if spec.drop_probability > 0
            }
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
                    f"forward lacks {spec.input_name!r}: modality {spec.name!r} is part of this pre-training model. "
                    "Give it, or take the modality out of the configuration."
                )
        targets = {
            s.name: inputs[s.name] if s.name in inputs else as_clip(values[s.input_name], s, self.config)
            for s in self.config.target_specs
        }
        valid = {}
        for spec in self.config.specs:
            mask = values.get(spec.mask_name) if spec.mask_name else None
            if mask is not None:
                valid[spec.name] = (
                    mask[:, None].expand(-1, self.config.tubelet_size, -1, -1, -1) if mask.ndim == 4 else mask
                )
        _check_alike({**inputs, **targets}, valid)
        for name, mask in valid.items():
            pixels = inputs.get(name, targets.get(name))
            if pixels is not None:  # a NaN in a hole would spread through the patch embedding
                filled = pixels.masked_fill(~mask.bool(), 0.0)
                for pixels_of in (inputs, targets):
                    if name in pixels_of:
                        pixels_of[name] = filled
        return inputs, targets, valid

    def _noise(self, given: Tensors | None, inputs: Tensors, valid: Tensors) -> Tensors:
        """Standard normal noise of the modalities to denoise, 0 in holes; none in evaluation unless it is given."""
        specs = self.config.denoised_specs
        if given is None:
            drawn = {spec.name: torch.randn_like(inputs[spec.name]) for spec in specs} if self.training else {}
        else:
            drawn = {spec.name: as_clip(given[spec.name], spec, self.config) for spec in specs if spec.name in given}
            missing = [spec.name for spec in specs if spec.name not in given]
            if missing:
                raise ConfigError(f"noise lacks the modalities {missing}; give all that are denoised, or no noise.")
            idle = [name for name in given if name not in drawn]
            if idle:
                raise ConfigError(f"noise is given for {idle}, which are not denoised: set their denoising_weight.")
        for name in drawn:
            if drawn[name].shape != inputs[name].shape:
                shapes = f"{tuple(drawn[name].shape)}, the input has {tuple(inputs[name].shape)}"
                raise DataError(f"the noise of {name} has shape {shapes} as (B, T, C, H, W); give one value per pixel.")
            if name in valid:
                drawn[name] = drawn[name].masked_fill(~valid[name].bool(), 0.0)
        return drawn

    def _main_states(self, batch: PreTrainingBatch) -> Tensors:
        """The encoder pass with positions; empty when only a position-free contrastive term wants features."""
        needed = self.decoder is not None or self.matching_head is not None or self.config.distillation_weight > 0
        if not needed and (self.config.contrastive_position_free or self.config.contrastive_tokens == "full_forward"):
            return {}
        return self.m33d.encode(batch.inputs, batch.keep)

    def _pair_states(self, batch: PreTrainingBatch, states: Tensors) -> Tensors:
        """Features for the contrastive term: the main pass, or a pass of their own where the configuration says so."""
        if self.contrastive_head is None:
            return states
        if not self.config.contrastive_position_free and self.config.contrastive_tokens == "visible":
            return states
        keep = None if self.config.contrastive_tokens == "full_forward" else batch.keep
        return self.m33d.encode(batch.inputs, keep, use_positions=not self.config.contrastive_position_free)

    def _terms(
        self,
        batch: PreTrainingBatch,
        predictions: Tensors,
        masked: Tensors,
        states: Tensors,
        pair_states: Tensors,
        teacher_features: Tensors | None,
    ) -> tuple[Tensors, Tensors]:
        """Numerators and denominators of all loss terms, by term."""
        sums: Tensors = {}
        counts: Tensors = {}
        if self.decoder is not None:
            self._add_reconstruction(batch, predictions, masked, sums, counts)
            self._add_denoising(batch, predictions, sums, counts)
        if self.contrastive_head is not None:
            self._add_contrastive(self.contrastive_head, batch, pair_states, sums, counts)
        if self.matching_head is not None:
            self._add_matching(self.matching_head, states or pair_states, sums, counts)
        if self.config.distillation_weight > 0:
            sums["distillation"], counts["distillation"] = self._distillation(states, teacher_features)
        elif teacher_features is not None:
            raise ConfigError("forward got teacher_features, but distillation_weight is 0: set it, or leave them out.")
        return sums, counts

    def _add_reconstruction(
        self, batch: PreTrainingBatch, predictions: Tensors, masked: Tensors, sums: Tensors, counts: Tensors
    ) -> None:
        for spec in self.config.target_specs:
            sums[spec.name], counts[spec.name] = self._reconstruction(
                batch, spec, predictions[spec.name], masked[spec.name]
            )

    def _reconstruction(
        self, batch: PreTrainingBatch, spec: ModalitySpec, prediction: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        valid = batch.valid_patches(spec, index)
        target = batch.target_patches(spec, index, valid)
        if spec.normalize_prediction:
            prediction = normalize_patches(prediction.float(), spec.target_norm, spec.channels, spec.target_eps, valid)
        counted = batch.counted_values(spec, valid)
        return reconstruction_loss(prediction, target, spec.loss, counted, self.config.loss_reduction)

    def _add_denoising(self, batch: PreTrainingBatch, predictions: Tensors, sums: Tensors, counts: Tensors) -> None:
        for spec in self.config.denoised_specs:
            term = noise_term(spec.name)
            counts[term] = self._denoising_count(batch, spec)
            if spec.name not in batch.noise:  # evaluation: nothing was added
                sums[term] = torch.zeros((), device=batch.device)
                continue
            sums[term], _ = reconstruction_loss(
                predictions[term],
                batch.noise_patches(spec),
                "mse",
                batch.noisy_values(spec),
                self.config.loss_reduction,
            )

    def _denoising_count(self, batch: PreTrainingBatch, spec: ModalitySpec) -> torch.Tensor:
        if spec.name not in batch.noise:
            return torch.zeros((), device=batch.device)
        shape = torch.Size((*batch.keep[spec.name].shape, self.config.patch_dim(spec)))
        return reconstruction_count(shape, "mse", batch.noisy_values(spec), self.config.loss_reduction, batch.device)

    def _distillation(self, states: Tensors, teacher: Tensors | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Smooth L1 between the student's embeddings of what it sees and the teacher's, over all modalities."""
        names = [spec.name for spec in self.config.input_specs]
        device = states[names[0]].device
        if teacher is None and not self.training:
            return torch.zeros((), device=device), torch.zeros((), device=device)
        missing = [name for name in names if name not in (teacher or {})]
        if missing:
            raise ConfigError(
                f"forward lacks the teacher_features of {missing}, which distillation_weight "
                f"{self.config.distillation_weight} asks for; give them (embed_globally of the teacher) or set it to 0."
            )
        features = self._features(states)
        terms = [distillation_loss(global_embedding(features[name]), (teacher or {})[name]) for name in names]
        return torch.stack([term[0] for term in terms]).sum(), torch.stack([term[1] for term in terms]).sum()

    def _add_contrastive(
        self,
        head: M33DContrastiveHead,
        batch: PreTrainingBatch,
        states: Tensors,
        sums: Tensors,
        counts: Tensors,
    ) -> None:
        config = self.config
        rgb = head.project("rgb", self.m33d.without_cls(states["rgb"]))
        temperature = head.current_temperature()
        for spec in config.paired_specs:
            other = head.project(spec.name, self.m33d.without_cls(states[spec.name]))
            places = (*batch.contrast_positions(spec), batch.valid_tokens(spec))
            if config.contrastive_negatives == "batch":
                term = batch_contrastive_loss(
                    rgb,
                    other,
                    *places,
                    temperature,
                    config.contrastive_normalize,
                    over_ranks=self.training,
                )
            else:
                term = contrastive_loss(
                    rgb,
                    other,
                    *places,
                    temperature,
                    config.contrastive_normalize,
                    config.contrastive_symmetric,
                )
            sums["contrastive"] = sums.get("contrastive", 0.0) + term[0]
            counts["contrastive"] = counts.get("contrastive", 0.0) + term[1]

    def _pooled(self, states_BND: torch.Tensor) -> torch.Tensor:
        if self.config.matching_pool == "cls":
            return states_BND[:, 0]
        return self.m33d.without_cls(states_BND).mean(dim=1)

    def _matching_logits(
        self, heads: nn.ModuleDict, states: Tensors, spec: ModalitySpec
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rgb, other = self._pooled(states["rgb"]), self._pooled(states[spec.name])
        size = rgb.shape[0]
        negatives = min(self.config.num_matching_negatives, size - 1)
        mode = self.config.matching_negatives
        partners = mismatched_partners(size, negatives, mode, rgb.device, drawn=self.training)
        fused = [fuse_pair(rgb, other[partner], self.config.matching_fusion) for partner in partners]
        fused.insert(0, fuse_pair(rgb, other, self.config.matching_fusion))
        labels = torch.zeros(size * len(fused), dtype=torch.long, device=rgb.device)
        labels[:size].fill_(1)
        return heads[spec.name](torch.cat(fused)), labels

    def _add_matching(self, heads: nn.ModuleDict, states: Tensors, sums: Tensors, counts: Tensors) -> None:
        for spec in self.config.paired_specs:
            logits, labels = self._matching_logits(heads, states, spec)
            total, count = matching_loss(logits, labels)
            if states["rgb"].shape[0] < 2:
                # One sample has no mismatched partner; the head stays in the graph with a zero gradient.
                total, count = total * 0.0, count * 0.0
            sums["matching"] = sums.get("matching", 0.0) + total
            counts["matching"] = counts.get("matching", 0.0) + count

    def _features(self, states: Tensors) -> Tensors:
        return {name: self.m33d.without_cls(tokens) for name, tokens in states.items() if name != GLOBAL}

    @torch.no_grad()
    def _diagnostics(self, batch: PreTrainingBatch, states: Tensors, pair_states: Tensors) -> Tensors:
        """What the losses do not say: is matching solved by position, can the matching head learn, is depth copied."""
        results: Tensors = {}
        features = self._features(pair_states)
        for spec in self.config.paired_specs:
            if "rgb" in features:
                results |= self._retrieval(batch, spec, features)
            if self.matching_head is not None:
                logits, labels = self._matching_logits(self.matching_head, states or pair_states, spec)
                results[f"matching_accuracy_{spec.name}"] = (logits.argmax(dim=-1) == labels).float().mean()
        for spec in self.config.target_specs:
            if self.decoder is None or spec.name not in states or len(states) < 2 or self.config.joint_encoding:
                continue  # nothing to hide, nothing else to see, or the other latents have seen it already
            for word, hidden in (("hidden", True), ("visible", False)):
                flags = torch.full((batch.batch_size,), hidden, dtype=torch.bool, device=batch.device)
                predictions, masked = self.decoder(states, batch.keep, batch.grid, {spec.name: flags})
                total, count = self._reconstruction(batch, spec, predictions[spec.name], masked[spec.name])
                results[f"{spec.name}_loss_{word}"] = total / count.clamp_min(1)
        return results | self._budget_diagnostics(batch, states)

    def _budget_diagnostics(self, batch: PreTrainingBatch, states: Tensors) -> Tensors:
        """Loss of each modality at the same masked tokens with its visible ones, and with none of it in the budget."""
        inputs = self.config.input_specs
        results: Tensors = {}
        if self.decoder is None or JOINT not in batch.keep or len(inputs) < 2:
            return results
        for number, spec in enumerate(inputs):
            if not spec.is_target:
                continue
            unseen = {JOINT: budget_without(batch.keep[JOINT], number, len(inputs), batch.num_tokens)}
            for word, keep in (("hidden", unseen), ("visible", batch.keep)):
                seen = self.m33d.encode(batch.inputs, keep) if word == "hidden" else states
                predictions, masked = self.decoder(seen, keep, batch.grid)
                total, count = self._reconstruction(batch, spec, predictions[spec.name], masked[spec.name])
                results[f"{spec.name}_loss_{word}"] = total / count.clamp_min(1)
        return results

    def _retrieval(self, batch: PreTrainingBatch, spec: ModalitySpec, features: Tensors) -> Tensors:
        rgb, other = features["rgb"], features[spec.name]
        if self.contrastive_head is not None:
            rgb, other = (
                self.contrastive_head.project("rgb", rgb),
                self.contrastive_head.project(spec.name, other),
            )
        keep_rgb, keep_other = batch.contrast_positions(spec)
        valid = batch.valid_tokens(spec)
        cosine = self.config.contrastive_normalize
        hits, rows = retrieval_hits(rgb, other, keep_rgb, keep_other, valid, cosine)
        columns = valid.float().sum(dim=1).mean() if valid is not None else torch.tensor(float(keep_other.shape[1]))
        results = {
            f"retrieval_accuracy_{spec.name}": hits / rows.clamp_min(1),
            f"retrieval_chance_{spec.name}": 1.0 / columns.clamp_min(1).to(hits.device),
        }
        if batch.batch_size > 1:
            rolled = None if valid is None else valid.roll(1, dims=0)
            hits, rows = retrieval_hits(
                rgb, other.roll(1, dims=0), keep_rgb, keep_other.roll(1, dims=0), rolled, cosine
            )
            results[f"retrieval_accuracy_mismatched_{spec.name}"] = hits / rows.clamp_min(1)
        return results
