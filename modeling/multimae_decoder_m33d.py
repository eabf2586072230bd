# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""MultiMAE's decoders: one per target, each reading the visible tokens of all modalities by cross-attention.

The number of visible tokens of a modality varies by sample (a token budget), so that every position
of a target is predicted, and the loss counts the masked ones.
"""

from __future__ import annotations

import torch
from torch import nn

from .configuration_m33d import M33DConfig, ModalitySpec
from .encoder_m33d import M33DPositions
from .errors_m33d import ConfigError
from .layers_m33d import M33DMLP, M33DAttention, M33DLayer
from .masking_m33d import JOINT
from .patches_m33d import Grid

Tensors = dict[str, torch.Tensor]


class M33DTargetDecoder(nn.Module):
    """The decoder of one target: a cross-attention without residual, an MLP, then self-attention over its positions.

    Args:
        config: the model.
        spec: the target.
    """

    def __init__(self, config: M33DConfig, spec: ModalitySpec) -> None:
        super().__init__()
        width, heads, inner = (
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
        )
        self.sources = [source.name for source in config.input_specs]
        self.task = spec.source_name
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.task_embeddings = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, 1, width)) for name in dict.fromkeys([*self.sources, self.task])}
        )
        self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.context_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = M33DAttention(config, width, heads)
        self.out_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = M33DMLP(config, width, inner)
        self.layers = nn.ModuleList(
            M33DLayer(config, width, heads, inner) for _ in range(config.decoder_num_hidden_layers)
        )
        self.head = nn.Linear(width, config.patch_dim(spec))

    def forward(
        self, visible_BVD: torch.Tensor, global_B1D: torch.Tensor | None, joint_BV: torch.Tensor, table_NE: torch.Tensor
    ) -> torch.Tensor:
        """Predict every position of the target.

        Args:
            visible_BVD: encoded visible tokens of all modalities.
            global_B1D: the encoded global token, part of the context without position or task.
            joint_BV: their places among the M * N tokens of the modalities side by side.
            table_NE: positions.

        Returns:
            (B, N, P).
        """
        latents = self.embed(visible_BVD)
        places = torch.cat([table_NE + self.task_embeddings[name][0] for name in self.sources])
        context = latents + places[joint_BV].to(latents.dtype)
        if global_B1D is not None:
            context = torch.cat([context, self.embed(global_B1D).to(context.dtype)], dim=1)
        queries = self._queries(latents, joint_BV, table_NE)
        # No residual around the cross-attention, as in MultiMAE's code.
        tokens, _ = self.attention(self.context_norm(context), self.query_norm(queries))
        tokens = tokens + self.mlp(self.out_norm(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens)

    def _queries(self, latents_BVE: torch.Tensor, joint_BV: torch.Tensor, table_NE: torch.Tensor) -> torch.Tensor:
        """(B, N, E): the task's own visible latents at their positions, the mask token everywhere else."""
        batch, total, width = latents_BVE.shape[0], table_NE.shape[0], latents_BVE.shape[-1]
        own = self.mask_token.to(latents_BVE.dtype).expand(batch, total, width)
        if self.task in self.sources:
            # Laid out over all modalities first, because how many of the V are the task's own varies by sample.
            everywhere = self.mask_token.to(latents_BVE.dtype).expand(batch, len(self.sources) * total, width)
            laid = everywhere.scatter(1, joint_BV[..., None].expand(-1, -1, width), latents_BVE)
            own = laid.unflatten(1, (-1, total))[:, self.sources.index(self.task)]
        return own + (table_NE + self.task_embeddings[self.task][0]).to(own.dtype)


class M33DTargetDecoders(nn.Module):
    """One decoder per target, none shared; they share the position table alone."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__()
        # MultiMAE interpolates its decoders' positions bilinearly, its encoder's bicubically.
        self.positions = M33DPositions(config, config.decoder_hidden_size, mode="bilinear")
        self.targets = nn.ModuleDict({spec.name: M33DTargetDecoder(config, spec) for spec in config.target_specs})

    def forward(
        self, states: Tensors, keep: Tensors, grid: Grid, hide: Tensors | None = None
    ) -> tuple[Tensors, Tensors]:
        """Predict all positions of every target.

        Args:
            states: "joint" -> (B, V, D) encoded visible tokens, "global" -> (B, 1, D) where there is one.
            keep: "joint" -> (B, V) their places.
            grid: (t, h, w) tokens.
            hide: must be empty; it is there for the signature of `M33DDecoder`.

        Returns:
            name -> (B, N, P) predictions and name -> (B, N) their positions, which are all.

        Raises:
            ConfigError: a modality is to be hidden.
        """
        if hide:
            raise ConfigError(
                f"{sorted(hide)} cannot be hidden after joint encoding, because the other latents depend on it. Pass a "
                "`keep` without it."
            )
        visible, joint = states[JOINT], keep[JOINT]
        table = self.positions(grid)
        everything = torch.arange(table.shape[0], device=joint.device).expand(joint.shape[0], -1)
        predictions = {
            name: decoder(visible, states.get("global"), joint, table) for name, decoder in self.targets.items()
        }
        return predictions, dict.fromkeys(predictions, everything)
