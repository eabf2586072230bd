"""What the step benchmark runs: sizes, cases, and the same input and mask for us and for transformers' models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, ViTMAEConfig, ViTMAEForPreTraining

from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.patches_m33d import position_table

Batch = dict[str, Any]

_ENCODERS: dict[str, dict[str, int]] = {
    "base": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "small": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
    "tiny": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 72,
    },
}
_NAMES = (
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)
_DECODERS = {
    ("base", "image"): (512, 8, 16, 2048),
    ("base", "clip"): (384, 4, 6, 1536),
    ("small", "image"): (256, 8, 8, 1024),
    ("small", "clip"): (192, 4, 3, 768),
    ("tiny", "image"): (24, 2, 3, 40),
    ("tiny", "clip"): (24, 2, 3, 40),
}
_FRAMES = {"base": (16, 2), "small": (16, 2), "tiny": (4, 2)}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: of the case.
        kind: "image" or "clip".
        peer: "videomae", "mae" or None; transformers' model it is timed against.
        same_model: whether the peer computes the same loss, so that parity is proved before anything is timed.
        batch: samples on CPU; on a GPU there are more of them (`--batch`).
    """

    name: str
    kind: str
    peer: str | None
    same_model: bool
    batch: int


CASES = {
    case.name: case
    for case in (
        Case("videomae", "clip", "videomae", True, 4),
        Case("mae", "image", "mae", True, 16),
        Case("m33d_video", "clip", "videomae", False, 2),
        Case("m33d_plus_video", "clip", "videomae", False, 2),
        Case("m33d_image_stage1", "image", None, False, 4),
        Case("m33d_image_stage2", "image", "mae", False, 8),
        Case("m33d_plus_stage2", "image", "mae", False, 8),
    )
}


def sizes(size: str, kind: str) -> dict[str, Any]:
    """Configuration arguments: "base" is ViT-B with MAE's or VideoMAE's decoder, "small" ViT-S with half of that."""
    arguments: dict[str, Any] = dict(_ENCODERS[size])
    arguments |= dict(zip(_NAMES, _DECODERS[size, kind], strict=True))
    if kind == "clip":
        arguments["num_frames"], arguments["tubelet_size"] = _FRAMES[size]
    return arguments


def our_config(case: Case, size: str) -> M33DConfig:
    """Our configuration of a case; other cases take the recipes' masks and weights, tube masks in clips."""
    arguments = sizes(size, case.kind)
    ratio = 0.75 if size == "tiny" else 0.9
    clip: dict[str, Any] = {"masking": "tube", "mask_ratio": ratio}
    rgb_clip = rgb_modality(**clip, target_norm="per_channel", target_space="unit", weight=1.0)
    if case.name == "videomae":
        return M33DConfig(**arguments, modalities=[rgb_clip])
    if case.name == "mae":
        return M33DConfig(**arguments, modalities=[rgb_modality(mask_ratio=0.75, weight=1.0)])
    if case.name in ("m33d_video", "m33d_plus_video"):
        plus: dict[str, Any] = {}
        if case.name == "m33d_plus_video":
            plus = {"decoder_fusion": "fused", "contrastive_position_free": True, "matching_fusion": "product"}
        depth = depth_modality(**clip, weight=0.5, loss="mse", drop_probability=0.5 if plus else 0.0)
        arguments |= {"contrastive_weight": 0.2, "matching_weight": 0.1, **plus}
        return M33DConfig(**arguments, modalities=[rgb_clip, depth])
    if case.name == "m33d_image_stage1":
        whole: dict[str, Any] = {"mask_ratio": 0.0, "weight": 0.0}
        return M33DConfig(
            **arguments, modalities=[rgb_modality(**whole), depth_modality(**whole)], contrastive_weight=1.0
        )
    cured = case.name == "m33d_plus_stage2"
    return M33DConfig(
        **arguments,
        modalities=[
            rgb_modality(mask_ratio=0.8, weight=0.1),
            depth_modality(mask_ratio=0.8, weight=1.0, loss="l1", drop_probability=0.5 if cured else 0.0),
        ],
        decoder_fusion="fused" if cured else "joint",
    )


def peer_config(name: str, size: str) -> M33DConfig:
    """Our configuration of the model that a peer computes; its masks are what the peer is given."""
    return our_config(CASES[name], size)


def build_peer(name: str, size: str) -> nn.Module:
    """transformers' model with sdpa, made to compute what the original repositories do.

    Four of its defaults stand in the way: `use_mean_pooling` drops VideoMAE's final norm; norms inside take eps 1e-12,
    VideoMAE's decoder norm 1e-5, instead of 1e-6; and a ViTMAE built from a configuration has position tables of zeros.
    """
    if name == "videomae":
        config = VideoMAEConfig(
            **sizes(size, "clip"),
            layer_norm_eps=1e-6,
            use_mean_pooling=False,
            norm_pix_loss=True,
            attn_implementation="sdpa",
        )
        model = VideoMAEForPreTraining(config)
        model.decoder.norm.eps = 1e-6
        return model
    config = ViTMAEConfig(
        **sizes(size, "image"), layer_norm_eps=1e-6, norm_pix_loss=True, mask_ratio=0.75, attn_implementation="sdpa"
    )
    model = ViTMAEForPreTraining(config)
    side = config.image_size // config.patch_size
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        values = position_table("sincos_2d", (1, side, side), table.shape[-1])
        table.data[0, 1:] = values
        table.data[0, 0] = 0.0
    return model


def our_batch(config: M33DConfig, samples: int, device: torch.device, seed: int = 7) -> Batch:
    """Forward arguments: smooth random pixels, depth with holes, masks drawn as the collator does."""
    generator = torch.Generator().manual_seed(seed)
    height, width = config.image_height_width
    lead = (samples,) if config.num_frames == 1 else (samples, config.num_frames)
    batch: Batch = {}
    for spec in config.specs:
        batch[spec.input_name] = torch.randn(*lead, spec.channels, height, width, generator=generator)
        if spec.mask_name is not None:
            holes = torch.rand(*lead, 1, height // 4, width // 4, generator=generator) < 0.1
            batch[spec.mask_name] = ~holes.repeat_interleave(4, -2).repeat_interleave(4, -1)
    batch["keep"] = draw_keep(config, samples, generator=generator)
    hidden = [spec for spec in config.input_specs if spec.drop_probability > 0]
    if hidden:
        draws = {spec.name: torch.rand(samples, generator=generator) for spec in hidden}
        batch["hide"] = {spec.name: draws[spec.name] < spec.drop_probability for spec in hidden}
    return {name: _to(value, device) for name, value in batch.items()}


def _to(value: Any, device: torch.device) -> Any:
    return {k: v.to(device) for k, v in value.items()} if isinstance(value, dict) else value.to(device)


def peer_batch(name: str, config: M33DConfig, batch: Batch) -> Batch:
    """The same pixels and mask as the peer's forward arguments."""
    keep: Tensor = batch["keep"]["rgb"]
    samples, total = keep.shape[0], config.num_tokens
    if name == "videomae":
        masked = torch.ones(samples, total, dtype=torch.bool, device=keep.device).scatter(1, keep, False)
        return {"pixel_values": batch["pixel_values"], "bool_masked_pos": masked}
    # ViTMAE keeps the patches with the smallest noise, in its order: ours ascend.
    order = torch.arange(total, dtype=torch.float32, device=keep.device).expand(samples, total)
    noise = (order + total).scatter(1, keep, order[:, : keep.shape[1]])
    return {"pixel_values": batch["pixel_values"], "noise": noise}
