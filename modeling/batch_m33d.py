# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""One pre-training batch, its masks, and the views of it that losses and their denominators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .configuration_m33d import M33DConfig, ModalitySpec
from .losses_m33d import normalize_patches, positive_pairs
from .masking_m33d import JOINT, complement, masked_by_budget
from .patches_m33d import Grid, channels_last_patches, gather_patches, patch_view

Tensors = dict[str, torch.Tensor]


def _on_device(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """A short float32 vector filled in on the device: a copy from the host would wait, and bars a CUDA graph."""
    return torch.stack([torch.full((), float(value), device=device) for value in values])


@dataclass
class PreTrainingBatch:
    """Inputs and targets as (B, T, C, H, W), validity masks alike, and the positions that are visible.

    Attributes:
        inputs, targets: name -> pixels; valid: name -> bool pixels (absent when all count).
        keep: name -> (B, V) visible positions ("joint" with a token budget); hide: name -> (B,) samples hidden from
            the decoder.
        noise: name -> standard normal noise, 0 where invalid; what of it went into the input, times `denoising_std`,
            is to be predicted. Empty where nothing was added.
    """

    config: M33DConfig
    grid: Grid
    inputs: Tensors
    targets: Tensors
    valid: Tensors
    keep: Tensors
    hide: Tensors | None
    noise: Tensors = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """B."""
        return next(iter(self.inputs.values())).shape[0]

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return next(iter(self.inputs.values())).device

    @property
    def num_tokens(self) -> int:
        """Tokens N of one modality on this batch's grid."""
        t, h, w = self.grid
        return t * h * w

    def masked_index(self, spec: ModalitySpec) -> torch.Tensor:
        """(B, K) positions to predict: the masked ones, or all where their number varies by sample (token budget)."""
        if spec.name in self.keep and spec.is_input:
            return complement(self.keep[spec.name], self.num_tokens)
        return torch.arange(self.num_tokens, device=self.device).expand(self.batch_size, -1)

    def masked_tokens(self, spec: ModalitySpec) -> torch.Tensor | None:
        """(B, N) bool of the masked tokens where a token budget decides; None where all of `masked_index` counts."""
        names = [source.name for source in self.config.input_specs]
        if JOINT not in self.keep or spec.source_name not in names:
            return None
        masked = masked_by_budget(self.keep[JOINT], len(names), self.num_tokens)
        return masked[:, names.index(spec.source_name)]

    def counted_values(self, spec: ModalitySpec, valid: torch.Tensor | None) -> torch.Tensor | None:
        """(B, K, P) bool of the values that a loss counts: those valid, with a token budget those masked as well.

        None when all count.
        """
        masked = self.masked_tokens(spec)
        if masked is None:
            return valid
        values = self.config.patch_dim(spec)
        return masked[:, :, None].expand(-1, -1, values) if valid is None else valid & masked[:, :, None]

    def _patches(self, pixels: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        patches = gather_patches(pixels, self.config.tubelet_size, self.config.patch_height_width, index)
        return channels_last_patches(patches)

    def valid_patches(self, spec: ModalitySpec, index: torch.Tensor) -> torch.Tensor | None:
        """(B, K, P) bool of valid values, None when all are."""
        mask = self.valid.get(spec.name)
        if mask is None:
            return None
        patches = self._patches(mask.bool(), index)
        if mask.shape[2] == spec.channels:
            return patches
        return patches.repeat_interleave(spec.channels, dim=-1)

    def target_patches(self, spec: ModalitySpec, index: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """(B, K, P) float32 reconstruction target of the masked patches."""
        patches = self._patches(self.targets[spec.name], index).float()
        if spec.target_space == "unit" and spec.channel_mean is not None and spec.channel_std is not None:
            # Repeated to the length of a patch: products with vectors of three values are twice as slow on CPU.
            pixels = patches.shape[-1] // spec.channels
            mean = _on_device(spec.channel_mean, patches.device).repeat(pixels)
            std = _on_device(spec.channel_std, patches.device).repeat(pixels)
            patches = patches * std + mean
        return normalize_patches(patches, spec.target_norm, spec.channels, spec.target_eps, valid)

    def noise_patches(self, spec: ModalitySpec) -> torch.Tensor:
        """(B, V, P) float32 noise of the visible patches."""
        return self._patches(self.noise[spec.name], self.keep[spec.name]).float()

    def noisy_values(self, spec: ModalitySpec) -> torch.Tensor | None:
        """(B, V, P) bool: values whose noise the decoder can know; None when all of them.

        Holes have none, and of a sample that is hidden from the decoder no noise can be read off.
        """
        index = self.keep[spec.name]
        counted = self.valid_patches(spec, index)
        hidden = (self.hide or {}).get(spec.name)
        if hidden is None:
            return counted
        seen = ~hidden.bool()[:, None, None]
        if counted is None:
            return seen.expand(*index.shape, self.config.patch_dim(spec))
        return counted & seen

    def contrast_positions(self, spec: ModalitySpec) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, V) positions of the contrasted RGB tokens and of the other modality's."""
        if self.config.contrastive_tokens == "full_forward" and self.config.contrastive_weight > 0:
            everything = torch.arange(self.num_tokens, device=self.device).expand(self.batch_size, -1)
            return everything, everything
        return self.keep["rgb"], self.keep[spec.name]

    def valid_tokens(self, spec: ModalitySpec) -> torch.Tensor | None:
        """(B, V) bool: contrasted tokens with more than `contrastive_min_valid` of their pixels valid."""
        mask = self.valid.get(spec.name)
        if mask is None:
            return None
        view = patch_view(mask.float().contiguous(), self.config.tubelet_size, self.config.patch_height_width)
        share = view.mean(dim=(4, 5, 6, 7)).flatten(1)
        return torch.gather(share, 1, self.contrast_positions(spec)[1]) > self.config.contrastive_min_valid

    def pairs_with_rgb(self, spec: ModalitySpec) -> torch.Tensor:
        """(B, V, U) bool positives of the contrastive term."""
        return positive_pairs(*self.contrast_positions(spec), self.valid_tokens(spec))
