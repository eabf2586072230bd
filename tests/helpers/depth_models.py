"""Folders with tiny depth estimation models of random weights, and videos and images to run them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    ZoeDepthImageProcessor,
)

from helpers.tiny import tiny_config
from m33d_hf.inference.depth_models import DepthPredictor
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation


def shake(model: nn.Module, seed: int) -> None:
    """Weights large enough that predictions differ between pixels; a last layer that no ReLU switches off."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.shape == (1,):  # the bias of the last convolution
                parameter.fill_(5.0)


def save_depth_anything(folder: Path, kind: str = "relative", seed: int = 0) -> Path:
    """Depth Anything, 4 layers of 16; `kind` is its configuration's depth_estimation_type."""
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=42,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        head_in_index=-1,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    model = DepthAnythingForDepthEstimation(config)
    shake(model, seed)
    model.save_pretrained(folder)
    size = {"height": 42, "width": 42}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def save_dpt(folder: Path, seed: int = 0) -> Path:
    """DPT, 4 layers of 16."""
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        use_auxiliary_head=False,
    )
    model = DPTForDepthEstimation(config)
    shake(model, seed)
    model.save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_ours(folder: Path, seed: int = 0) -> Path:
    """M33DForDepthEstimation, 4 layers of 32, metres."""
    config = tiny_config(num_hidden_layers=4, depth_mean=2.0, depth_std=0.8, min_depth=0.1, max_depth=10.0)
    model = M33DForDepthEstimation(config)
    shake(model, seed)
    model.save_pretrained(folder)
    M33DImageProcessor.from_model_config(config).save_pretrained(folder)
    return folder


def save_zoe(folder: Path, seed: int = 0) -> Path:
    """ZoeDepth, 4 layers of 16, metres up to 10; its processor pads, and takes the padding off afterwards."""
    backbone = BeitConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        use_relative_position_bias=True,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "indoor"}],
    )
    model = ZoeDepthForDepthEstimation(config)
    shake(model, seed)
    model.save_pretrained(folder)
    ZoeDepthImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


class RedPredictor(DepthPredictor):
    """Predicts (red + 1) / 16 exactly, and counts the pictures; needs no weights."""

    def __init__(self, kind: str = "inverse", digest: str = "red") -> None:
        super().__init__("red", "red", kind, digest, torch.device("cpu"), nn.Identity(), None)
        self.seen = 0

    def predict(self, images: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        self.seen += len(images)
        return red_depth(np.stack(images))


def red_depth(frames: np.ndarray) -> np.ndarray:
    """What `RedPredictor` predicts of (.., H, W, 3) uint8."""
    return ((frames[..., 0].astype(np.float32) + 1) / 16).astype(np.float32)


def write_pictures(folder: Path, count: int, height: int = 24, width: int = 30, seed: int = 0) -> np.ndarray:
    """Frames `frame_000.png` .. of a moving ramp; returns (T, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    frames = [np.clip(ramp + 8 * t + rng.uniform(0, 20, (height, width, 3)), 0, 255) for t in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame.astype(np.uint8)).save(folder / f"frame_{t:03d}.png")
    return np.stack(frames).astype(np.uint8)
