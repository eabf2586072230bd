"""Weights of other architectures are refused by name, with what converting them would need; real models' own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from helpers.plain_vit import random_vit
from m33d_hf.errors import ConversionError
from m33d_hf.weights import from_state_dict, load_foreign

VIT: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40},
    **{"image_size": 32, "patch_size": 8},
}
STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}
SWIN: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
HIERA: dict[str, Any] = {"image_size": [224, 224], "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}


@pytest.mark.parametrize("names", ["disk", "memory"])
@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("Swin", {**SWIN, "window_size": 4}, r"Swin.*Needed: stages with windowed attention"),
        ("Swinv2", {**SWIN, "window_size": 4}, r"Swin.*Needed: stages"),
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, r"ResNet.*ours is a transformer"),
        ("ConvNext", STAGES, r"ConvNeXt.*ours is a transformer"),
        ("Beit", {**VIT, "use_relative_position_bias": True}, r"relative position biases"),
        ("Beit", {**VIT, "use_shared_relative_position_bias": True}, r"relative position biases"),
        ("Data2VecVision", VIT, r"layer scales under BEiT's"),
        ("CLIPVision", VIT, r"CLIP's image encoder.*quick_gelu"),
        ("SiglipVision", VIT, r"SigLIP's image encoder.*attention pooling"),
        ("Hiera", HIERA, r"hierarchical transformer.*one stack of equal blocks"),
        ("DINOv3ViT", {**VIT, "num_register_tokens": 2}, r"DINOv3.*rotary positions"),
        ("DeiT", VIT, r"DeiT with distillation.*a second token"),
        ("Vivit", {**VIT, "num_frames": 2}, r"ViViT.*class token.*GELU by tanh"),
        ("Timesformer", {**VIT, "num_frames": 2}, r"TimeSformer.*a second attention"),
    ],
)
def test_models_of_transformers(tmp_path: Path, name: str, sizes: dict[str, Any], message: str, names: str) -> None:
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))
    with pytest.raises(ConversionError, match=message):
        if names == "disk":
            model.save_pretrained(tmp_path)
            load_foreign(tmp_path)
        else:
            from_state_dict(dict(model.state_dict()))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"layers.0.blocks.0.attn.qkv.weight": (3, 3)}, "Swin"),
        ({"blocks.0.attn.relative_position_bias_table": (3, 3)}, "relative position biases"),
        ({"blocks.0.attn.rel_pos_h": (3, 3)}, "decomposed relative positions"),
        ({"blocks.2.proj.weight": (3, 3)}, "hierarchical transformer"),
        ({"layer1.0.conv1.weight": (3, 3, 3, 3)}, "ResNet"),
        ({"stages.0.blocks.0.conv_dw.weight": (3, 1, 7, 7)}, "ConvNeXt"),
        ({"visual.conv1.weight": (3, 3, 8, 8)}, "CLIP's image encoder"),
        ({"blocks.0.mlp.fc1_g.weight": (3, 3)}, "gated MLP"),
        ({"blocks.0.attn.rope.freqs": (3, 3)}, "rotary positions"),
        ({"blocks.0.attn.q_norm.weight": (3,)}, "normalises queries and keys"),
        ({"blocks.0.gamma_1": (32,)}, "layer scales under BEiT's"),
        ({"dist_token": (1, 1, 32)}, "DeiT with distillation"),
        ({"embeddings.patch_embeddings.backbone.bit.embedder.convolution.weight": (3, 3, 7, 7)}, "a hybrid ViT"),
        (
            {"vit.embeddings.patch_embeddings.backbone.bit.encoder.stages.0.layers.0.conv1.weight": (3, 3, 1, 1)},
            "hybrid",
        ),
        ({"post_network.0.attn.kv.weight": (3, 3)}, "VOLO"),
    ],
)
def test_names_of_original_repositories(keys: dict[str, tuple[int, ...]], message: str) -> None:
    """Alone, and in a file that is a plain ViT but for them."""
    foreign: dict[str, Tensor] = {key: torch.ones(shape) for key, shape in keys.items()}
    for weights in (foreign, random_vit() | foreign):
        with pytest.raises(ConversionError, match=f"{message}.*Needed: "):
            from_state_dict(weights)


def test_gate_that_is_packed_into_the_first_matrix() -> None:
    """The names are those of a plain MLP (timm's DINOv2 giant); only the shapes tell."""
    weights = random_vit()
    inner = weights["blocks.0.mlp.fc2.weight"].shape[1]
    gate = {name: weights[f"blocks.0.mlp.fc1.{name}"].repeat_interleave(2, dim=0) for name in ("weight", "bias")}
    with pytest.raises(ConversionError, match=rf"giant.*SwiGLU.*makes {2 * inner} values.*reads {inner}.*Needed: "):
        from_state_dict(weights | {f"blocks.0.mlp.fc1.{name}": tensor for name, tensor in gate.items()})


def test_video_and_multimae_names_are_not_looked_at() -> None:
    """A ViT of one stage with the patches of clips stays with its own rules, which name the surplus key."""
    weights = random_vit(patch=(2, 8, 8), rows=0, class_token=False)
    assert from_state_dict(weights | {"blocks.0.gamma_1": torch.ones(32)}).format == "videomae"


TIMM: list[tuple[str, dict[str, Any], str]] = [
    ("swin_tiny_patch4_window7_224", {}, "Swin"),
    ("resnet18", {}, "ResNet"),
    ("convnext_atto", {}, "ConvNeXt"),
    ("beit_base_patch16_224", {"depth": 1}, "relative position biases"),
    ("vit_base_patch16_clip_224", {"depth": 1}, "CLIP's image encoder"),
    ("vit_base_patch16_siglip_224", {"depth": 1}, "SigLIP's image encoder"),
    ("eva02_tiny_patch14_224", {"depth": 1}, "EVA"),
    ("eva02_base_patch14_224", {"depth": 1}, "EVA-02"),
    ("vit_base_patch16_rope_224", {"depth": 1}, "layer scales under BEiT's"),
    ("hiera_tiny_224", {}, "hierarchical transformer"),
    ("mvitv2_tiny", {}, "MViT|hierarchical"),
    ("deit_tiny_distilled_patch16_224", {"depth": 1}, "DeiT with distillation"),
    ("samvit_base_patch16", {"depth": 1}, "SAM"),
    ("vit_giant_patch14_dinov2", {"depth": 1, "embed_dim": 48, "num_heads": 3}, "DINOv2 giant.*SwiGLU"),
    ("volo_d1_224", {}, "VOLO.*outlook attention"),
    ("vit_tiny_r_s16_p8_224", {"depth": 1}, "a hybrid ViT.*one linear projection"),
    ("vit_small_r26_s32_224", {"depth": 1}, "a hybrid ViT.*one linear projection"),
    ("vit_small_resnet26d_224", {"depth": 1}, "a hybrid ViT.*one linear projection"),
    ("xcit_nano_12_p16_224", {}, "XCiT.*one linear projection"),
]


@pytest.mark.extras
@pytest.mark.parametrize(("name", "changes", "message"), TIMM)
def test_models_of_timm(name: str, changes: dict[str, Any], message: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, **changes)
    with pytest.raises(ConversionError, match=message):
        from_state_dict(dict(model.state_dict()))
