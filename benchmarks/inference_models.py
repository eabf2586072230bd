"""What the inference benchmark compares: our task models and transformers' of the same width, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    DPTConfig,
    DPTForDepthEstimation,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.weights import convert_state_dict, from_state_dict

TASKS = ("clips", "depth", "segmentation")
TOLERANCE = 1e-4  # of the largest logit, where both sides have the same weights
_SIZES: dict[str, dict[str, int]] = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64},
}
_LABELS = {"clips": 101, "segmentation": 40}


def picture(size: str) -> dict[str, int]:
    """Side and patch of the input, in pixels."""
    return {"image_size": 64, "patch_size": 16} if size == "tiny" else {"image_size": 224, "patch_size": 16}


def clip_length(size: str) -> int:
    """Frames of a clip."""
    return 4 if size == "tiny" else 16


def build_pair(task: str, size: str) -> tuple[nn.Module, nn.Module]:
    """(ours, the peer) in eval mode; for clips with the same weights.

    Args:
        task: one of TASKS.
        size: "base", "small" or "tiny".
    """
    torch.manual_seed(0)
    ours, peer = {"clips": _clips, "depth": _depth, "segmentation": _segmentation}[task](size)
    return ours.eval(), peer.eval()


def _clips(size: str) -> tuple[nn.Module, nn.Module]:
    common = {**picture(size), **_SIZES[size], "num_frames": clip_length(size), "tubelet_size": 2}
    peer = VideoMAEForVideoClassification(VideoMAEConfig(**common, num_labels=_LABELS["clips"]))
    eps = peer.config.layer_norm_eps
    ours = M33DForVideoClassification(M33DConfig(**common, num_labels=_LABELS["clips"], layer_norm_eps=eps))
    convert_state_dict(from_state_dict(peer.state_dict(), "the peer of the benchmark"), ours)
    return ours, peer


def _depth(size: str) -> tuple[nn.Module, nn.Module]:
    narrow = 16 if size == "tiny" else 256  # of the fused maps, in both
    ours = M33DForDepthEstimation(
        M33DConfig(**picture(size), **_SIZES[size], depth_mean=2.0, depth_std=1.0, depth_head_width=narrow)
    )
    layers = _SIZES[size]["num_hidden_layers"]
    width = _SIZES[size]["hidden_size"]
    peer = DPTForDepthEstimation(
        DPTConfig(
            **picture(size), **_SIZES[size], backbone_out_indices=[layers * (i + 1) // 4 - 1 for i in range(4)],
            neck_hidden_sizes=[width // 8, width // 4, width // 2, width], fusion_hidden_size=narrow, is_hybrid=False,
        )
    )  # fmt: skip
    return ours, peer


def _segmentation(size: str) -> tuple[nn.Module, nn.Module]:
    labels, layers = _LABELS["segmentation"], _SIZES[size]["num_hidden_layers"]
    narrow = {"segmentation_head_width": 16} if size == "tiny" else {}
    ours = M33DForSemanticSegmentation(M33DConfig(**picture(size), **_SIZES[size], num_labels=labels, **narrow))
    # UPerNet over the feature pyramid that ViTs get; over bare maps of one size it would be another, cheaper model.
    peer = BeitForSemanticSegmentation(
        BeitConfig(
            **picture(size), **_SIZES[size], out_indices=[layers * (i + 1) // 4 for i in range(4)], num_labels=labels,
            use_auxiliary_head=False,
        )
    )  # fmt: skip
    return ours, peer


def inputs(task: str, size: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Forward arguments, the same for both sides."""
    generator = torch.Generator().manual_seed(batch)
    side = picture(size)["image_size"]
    shape = (batch, clip_length(size), 3, side, side) if task == "clips" else (batch, 3, side, side)
    return {"pixel_values": torch.randn(shape, generator=generator).to(device)}


def answer(output: Any) -> torch.Tensor:
    """What the user wants of an output."""
    return output.logits if hasattr(output, "logits") else output.predicted_depth
