"""Tiny configurations and random batches that many tests share."""

from __future__ import annotations

from typing import Any

import torch

from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality

SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
CLIP: dict[str, Any] = {"num_frames": 4, "tubelet_size": 2}


def both(rgb: dict[str, Any] | None = None, depth: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """RGB and depth entries with overrides."""
    return [rgb_modality(**(rgb or {})), depth_modality(**(depth or {}))]


# MultiMAE: RGB once more with normalised patches, predicted where RGB is masked.
NORM_RGB: dict[str, Any] = rgb_modality(
    name="norm_rgb", role="target", target_of="rgb", mask_ratio=1.0, weight=1.0, target_norm="pooled"
)
MULTIMAE: dict[str, Any] = {
    "modalities": [*both({"target_norm": "none", "weight": 1.0}), NORM_RGB],
    "encoder_sharing": "shared",
    "joint_encoding": True,
    "encoder_norm": False,
    "global_token": True,
    "token_budget": 0.25,
    "decoder_kind": "per_target",
    "loss_reduction": "sample",
}
UNMASKED = {"mask_ratio": 0.0, "weight": 0.0}

# One configuration per combination of losses and wiring that the package offers.
VARIANTS: dict[str, dict[str, Any]] = {
    "stage2_literal": {},
    "stage1_literal": {"modalities": both(UNMASKED, UNMASKED), "contrastive_weight": 1.0},
    "stage1_position_free": {
        "modalities": both(UNMASKED, UNMASKED),
        "contrastive_weight": 1.0,
        "contrastive_position_free": True,
    },
    "plus": {
        "modalities": both({"mask_ratio": 0.5}, {"mask_ratio": 0.5, "drop_probability": 0.5}),
        "decoder_fusion": "fused",
        "contrastive_weight": 0.1,
        "matching_weight": 0.1,
        "matching_fusion": "product",
        "contrastive_position_free": True,
    },
    "mae": {"modalities": [rgb_modality(weight=1.0)]},
    "mask3d": {"modalities": both({"role": "input"}, {})},
    "rgb_to_depth": {"modalities": both({"role": "input", "mask_ratio": 0.0}, {"role": "target", "mask_ratio": 1.0})},
    "cross": {"decoder_attention": "cross"},
    "shared_encoder": {
        "encoder_sharing": "shared",
        "contrastive_weight": 0.1,
        "matching_weight": 1.0,
        "contrastive_symmetric": True,
        "contrastive_learnable_temperature": True,
        "contrastive_projection_dim": 8,
    },
    "joint_encoding": {"joint_encoding": True, "decoder_fusion": "separate"},
    "multimae": MULTIMAE,
    "learned_positions": {
        "position_embedding_type": "learned",
        "position_embedding_resize": "antialias",
        "position_grid": [1, 5, 5],
        "num_register_tokens": 2,
    },
    "batch_negatives": {
        "contrastive_weight": 0.1,
        "contrastive_negatives": "batch",
        "contrastive_tokens": "full_forward",
    },
    "video_motion": {
        **CLIP,
        "contrastive_weight": 0.1,
        "matching_weight": 0.1,
        "modalities": both(
            {"masking": "motion", "mask_ratio": 0.7, "target_norm": "per_channel", "target_space": "unit"},
            {"mask_ratio": 0.7, "loss": "mse"},
        ),
    },
    "video_tube": {
        **CLIP,
        "contrastive_weight": 0.1,
        "loss_reduction": "sample",
        "modalities": both(
            {"masking": "tube", "mask_ratio": 0.7}, {"masking": "tube", "mask_ratio": 0.7, "loss": "l2"}
        ),
    },
    "video_frame": {
        **CLIP,
        "modalities": both({"masking": "frame", "mask_ratio": 0.5}, {"masking": "frame", "mask_ratio": 0.5}),
    },
}


def tiny_config(**overrides: Any) -> M33DConfig:
    """A configuration of a few thousand parameters."""
    return M33DConfig(**{**SMALL, **overrides})


def random_batch(config: M33DConfig, batch_size: int = 4, seed: int = 0, holes: float = 0.2) -> dict[str, torch.Tensor]:
    """Random RGB, and depth with holes where the configuration has it."""
    generator = torch.Generator().manual_seed(seed)
    height, width = config.image_height_width
    lead = (batch_size,) if config.num_frames == 1 else (batch_size, config.num_frames)
    batch = {"pixel_values": torch.randn(*lead, 3, height, width, generator=generator)}
    if any(spec.name == "depth" for spec in config.specs):
        mask = torch.rand(*lead, 1, height, width, generator=generator) >= holes
        batch["depth_values"] = torch.randn(*lead, 1, height, width, generator=generator) * mask
        batch["depth_mask"] = mask
    return batch
