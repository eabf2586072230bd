# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The light shared decoder: where the modalities meet. It predicts masked tokens (paper section 3.1, App. B.1).

With denoising (not in the paper: the authors' follow-up) it also predicts the noise of visible tokens.
"""

from __future__ import annotations

import torch
from torch import nn

from .configuration_m33d import M33DConfig
from .encoder_m33d import M33DPositions
from .layers_m33d import M33DLayer
from .masking_m33d import complement
from .modalities_m33d import noise_term
from .patches_m33d import Grid

Tensors = dict[str, torch.Tensor]


class M33DDecoder(nn.Module):
    """Transformer decoder with one mask token, modality embeddings and one linear head per reconstructed modality."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = config.decoder_fusion
        # Only modalities that reach the decoder get an embedding, so that no parameter is without a gradient.
        self.specs = [
            s for s in config.specs if s.is_target or s.is_denoised or (s.is_input and self.fusion != "separate")
        ]
        self.cross = config.decoder_attention == "cross"
        self.num_cls = int(bool(config.use_cls_token))
        width = config.decoder_hidden_size
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.modality_embeddings = nn.ParameterDict(
            {spec.name: nn.Parameter(torch.zeros(1, 1, width)) for spec in self.specs}
            if config.decoder_modality_embedding and len(self.specs) > 1
            else {}
        )
        self.positions = M33DPositions(config, width)
        self.layers = nn.ModuleList(
            M33DLayer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.heads = nn.ModuleDict(
            {spec.name: nn.Linear(width, config.patch_dim(spec)) for spec in config.target_specs}
        )
        self.noise_heads = nn.ModuleDict(
            {spec.name: nn.Linear(width, config.patch_dim(spec)) for spec in config.specs if spec.is_denoised}
        )

    def forward(
        self, states: Tensors, keep: Tensors, grid: Grid, hide: Tensors | None = None
    ) -> tuple[Tensors, Tensors]:
        """Predict the masked tokens of every target, and the noise of the visible tokens that had some added.

        Args:
            states: name -> (B, cls + V, D) encoded visible tokens.
            keep: name -> (B, V) their positions.
            grid: (t, h, w) tokens.
            hide: name -> (B,) bool, samples whose latents of that modality become mask tokens.

        Returns:
            name -> (B, K, P) predictions and name -> (B, K) their positions. Predicted noise is among the predictions
            as name + "_noise" -> (B, V, P), at the positions that `keep` names.
        """
        total = grid[0] * grid[1] * grid[2]
        batch = next(iter(states.values())).shape[0]
        latents = {name: self._hidden(self.embed(tokens), (hide or {}).get(name)) for name, tokens in states.items()}
        masked = {}
        for spec in self.config.target_specs:
            everything = torch.arange(total, device=self.mask_token.device).expand(batch, total)
            masked[spec.name] = complement(keep[spec.name], total) if spec.name in states else everything
        table = self.positions(grid).to(self.mask_token.dtype)
        if self.fusion == "fused":
            return self._fused(latents, keep, masked, table), masked
        if self.fusion == "separate":
            predictions: Tensors = {}
            for name in dict.fromkeys([*masked, *self.noise_heads]):
                own = {name: latents[name]} if name in latents else {}
                predictions |= self._sequence(own, keep, {name: masked[name]} if name in masked else {}, table)
            return predictions, masked
        return self._sequence(latents, keep, masked, table), masked

    def _hidden(self, latents_BVE: torch.Tensor, hide_B: torch.Tensor | None) -> torch.Tensor:
        if hide_B is None:
            return latents_BVE
        return torch.where(hide_B[:, None, None], self.mask_token.to(latents_BVE.dtype), latents_BVE)

    def _modality(self, name: str) -> torch.Tensor | float:
        return self.modality_embeddings[name] if name in self.modality_embeddings else 0.0  # noqa: SIM401

    def _placed(
        self, tokens_BVE: torch.Tensor, index_BV: torch.Tensor, table: torch.Tensor, num_cls: int
    ) -> torch.Tensor:
        positions = table[index_BV]
        if num_cls:
            positions = nn.functional.pad(positions, (0, 0, num_cls, 0))
        return tokens_BVE + positions

    def _sequence(self, latents: Tensors, keep: Tensors, masked: Tensors, table: torch.Tensor) -> Tensors:
        """One sequence [visible of all, masked of all targets]; an input-only modality has no mask tokens.

        Visible tokens whose noise is predicted are read at the end like masked ones, so they stand beside them; with
        cross-attention they are queries as well as context.
        """
        placed = {
            name: self._placed(tokens, keep[name], table, self.num_cls) + self._modality(name)
            for name, tokens in latents.items()
        }
        noisy = [name for name in placed if name in self.noise_heads]
        lengths = [placed[name].shape[1] for name in noisy] + [index.shape[1] for index in masked.values()]
        read = [placed[name] for name in noisy]
        if self.cross:
            visible = torch.cat(list(placed.values()), dim=1)
            tokens = torch.cat([*read, *self._mask_tokens(masked, table)], dim=1)
            for layer in self.layers:
                tokens = layer(tokens, context_BND=visible)
        else:
            seen = [tokens for name, tokens in placed.items() if name not in noisy] + read
            tokens = self._self_attended(seen, masked, table, sum(lengths))
        parts = self.layernorm(tokens).split(lengths, dim=1)
        predictions = {name: self.heads[name](part) for name, part in zip(masked, parts[len(noisy) :])}
        for name, part in zip(noisy, parts):
            predictions[noise_term(name)] = self.noise_heads[name](part[:, self.num_cls :])
        return predictions

    def _mask_tokens(self, places: Tensors, table: torch.Tensor) -> list[torch.Tensor]:
        """(B, K, E) mask tokens at their places, of every target."""
        return [self._placed(self.mask_token, index, table, 0) + self._modality(name) for name, index in places.items()]

    def _self_attended(
        self, seen: list[torch.Tensor], masked: Tensors, table: torch.Tensor, num_queries: int
    ) -> torch.Tensor:
        """Run the layers over [seen, mask tokens]; of the last one, the last `num_queries` tokens."""
        index_BN: torch.Tensor | None = None
        if self._shares_mask_tokens(seen, masked, table):
            tokens, index_BN = self._distinct(seen, masked, table)
        else:
            masks = self._mask_tokens(masked, table)
            tokens = torch.cat([*seen, *(mask.to(seen[0].dtype) for mask in masks)] if seen else masks, dim=1)
        for layer in self.layers[:-1]:
            tokens, index_BN = layer(tokens, index_BN=index_BN), None
        # Only these tokens are read, so the last layer computes nothing but them: exact, and cheaper.
        return self.layers[-1](tokens, num_queries=num_queries)

    def _shares_mask_tokens(self, seen: list[torch.Tensor], masked: Tensors, table: torch.Tensor) -> bool:
        """Whether the first layer norms and projects a mask token once instead of once per sample.

        Until they attend, mask tokens depend on position and modality alone. For float32 training on CPU, where it was
        measured: gradients summed over samples in bfloat16 would lose digits. Eager attention keeps the plain form,
        which m33d_hf/evaluation/flops.py counts.
        """
        return (
            self.training
            and table.device.type == "cpu"
            and self.config._attn_implementation != "eager"
            and not torch.is_autocast_enabled("cpu")
            and all(tokens.dtype == torch.float32 for tokens in seen)
            and len(self.layers) > 1
            and len(seen) > 0
            and sum(index.numel() for index in masked.values()) > len(masked) * table.shape[0]
        )

    def _distinct(
        self, seen: list[torch.Tensor], masked: Tensors, table: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, E) visible tokens of all samples and one mask token per position and target; (B, N) where they stand."""
        visible = torch.cat(seen, dim=1)
        batch, length = visible.shape[:2]
        everywhere = torch.arange(table.shape[0], device=table.device)[None]
        masks = self._mask_tokens(dict.fromkeys(masked, everywhere), table)
        index = [torch.arange(batch * length, device=table.device).view(batch, length)]
        for number, places in enumerate(masked.values()):
            index.append(batch * length + number * table.shape[0] + places)
        return torch.cat([visible.flatten(0, 1), *(mask[0] for mask in masks)]), torch.cat(index, dim=1)

    def _fused(self, latents: Tensors, keep: Tensors, masked: Tensors, table: torch.Tensor) -> Tensors:
        """One token per position: the sum over modalities of latent or mask token, plus one class token."""
        batch = next(iter(latents.values())).shape[0]
        tokens: torch.Tensor = table[None].expand(batch, -1, -1)
        classes = []
        for spec in self.specs:
            full = self.mask_token.expand(batch, table.shape[0], -1)
            if spec.name in latents:
                visible = latents[spec.name][:, self.num_cls :]
                index = keep[spec.name][..., None].expand(-1, -1, visible.shape[-1])
                full = full.to(visible.dtype).scatter(1, index, visible)
                classes += [latents[spec.name][:, : self.num_cls] + self._modality(spec.name)]
            tokens = tokens + full + self._modality(spec.name)
        if self.num_cls:
            tokens = torch.cat([torch.stack(classes).sum(dim=0), tokens], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.layernorm(tokens)[:, self.num_cls :]
        predictions = {}
        for name, index in masked.items():
            chosen = torch.gather(tokens, 1, index[..., None].expand(-1, -1, tokens.shape[-1]))
            predictions[name] = self.heads[name](chosen)
        for name, head in self.noise_heads.items():
            index = keep[name][..., None].expand(-1, -1, tokens.shape[-1])
            predictions[noise_term(name)] = head(torch.gather(tokens, 1, index))
        return predictions
