"""Tiny transformers models with random weights, and their weights in the ORIGINAL repositories' layouts.

The layouts are written out here module by module, independently of the tables in m33d_hf.weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, ViTMAEConfig, ViTMAEForPreTraining

from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "image_size": 32,
    "patch_size": 8,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 40,
}
CLIP_SIZES = SIZES | {"num_frames": 4, "tubelet_size": 2}


def _randomise(model: nn.Module, seed: int) -> None:
    """Draw every trainable weight, biases and norms included: zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "pos_embed" in name or "position_embeddings" in name:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.15 * noise)


def tiny_vitmae(seed: int = 0) -> ViTMAEForPreTraining:
    """ViTMAE, 3 layers of 32, patches of 8 on 32 pixels, mask ratio .75, norm_pix."""
    config = ViTMAEConfig(**SIZES, layer_norm_eps=1e-6, norm_pix_loss=True, mask_ratio=0.75)
    model = ViTMAEForPreTraining(config).eval()
    _randomise(model, seed)
    # transformers 5 leaves both tables at zero in a model built from a config; released weights hold these.
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        table.data.copy_(mae_table(4, 4, table.shape[-1]))
    return model


def mae_table(height: int, width: int, dim: int) -> Tensor:
    """MAE's table (1, 1 + h*w, D) entry by entry: zero row, then sin and cos of the column, then of the row."""
    quarter = dim // 4
    rows = [[0.0] * dim]
    for y in range(height):
        for x in range(width):
            angles = [[value / 10000 ** (k / quarter) for k in range(quarter)] for value in (x, y)]
            rows.append([f(a) for part in angles for f in (math.sin, math.cos) for a in part])
    return torch.tensor(rows, dtype=torch.float64).float()[None]


def tiny_videomae(seed: int = 0, use_mean_pooling: bool = False) -> VideoMAEForPreTraining:
    """VideoMAE, 3 layers of 32, 4 frames, tubelets of 2. Its decoder norm gets the original's eps (1e-6).

    With `use_mean_pooling`, transformers' default, the encoder has no final norm; the original and released ones do.
    """
    config = VideoMAEConfig(**CLIP_SIZES, layer_norm_eps=1e-6, use_mean_pooling=use_mean_pooling, norm_pix_loss=True)
    model = VideoMAEForPreTraining(config).eval()
    _randomise(model, seed)
    # transformers leaves torch's default (1e-5) here, the original repository uses 1e-6 throughout.
    model.decoder.norm.eps = 1e-6
    return model


def mae_config(**overrides: Any) -> M33DConfig:
    """Our `mae` method at the size of `tiny_vitmae`."""
    arguments: dict[str, Any] = SIZES | {"modalities": [rgb_modality(mask_ratio=0.75, weight=1.0)]}
    return M33DConfig(**(arguments | overrides))


def videomae_config(**overrides: Any) -> M33DConfig:
    """Our `videomae` method at the size of `tiny_videomae`."""
    rgb = rgb_modality(masking="tube", mask_ratio=0.75, target_norm="per_channel", target_space="unit", weight=1.0)
    return M33DConfig(**(CLIP_SIZES | {"modalities": [rgb]} | overrides))


def two_modalities(clip: bool = False, **overrides: Any) -> M33DConfig:
    """RGB and depth at the tiny size."""
    masking = {"masking": "tube", "mask_ratio": 0.75} if clip else {"mask_ratio": 0.75}
    modalities = [rgb_modality(**masking), depth_modality(**masking)]
    return M33DConfig(**((CLIP_SIZES if clip else SIZES) | {"modalities": modalities} | overrides))


def _linear(target: dict[str, Tensor], name: str, module: nn.Module) -> None:
    target[f"{name}.weight"] = module.weight.detach().clone()
    if module.bias is not None:
        target[f"{name}.bias"] = module.bias.detach().clone()


def _mae_block(target: dict[str, Tensor], name: str, layer: Any) -> None:
    attention = layer.attention
    _linear(target, f"{name}.norm1", layer.layernorm_before)
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    target[f"{name}.attn.qkv.weight"] = torch.cat([part.weight.detach() for part in three])
    target[f"{name}.attn.qkv.bias"] = torch.cat([part.bias.detach() for part in three])
    _linear(target, f"{name}.attn.proj", attention.o_proj)
    _linear(target, f"{name}.norm2", layer.layernorm_after)
    _linear(target, f"{name}.mlp.fc1", layer.mlp.fc1)
    _linear(target, f"{name}.mlp.fc2", layer.mlp.fc2)


def original_mae(model: ViTMAEForPreTraining, decoder: bool = True) -> dict[str, Tensor]:
    """The state dict that the MAE repository would have saved."""
    vit, result = model.vit, {}
    result["cls_token"] = vit.embeddings.cls_token.detach().clone()
    result["pos_embed"] = vit.embeddings.position_embeddings.detach().clone()
    _linear(result, "patch_embed.proj", vit.embeddings.patch_embeddings.projection)
    for index, layer in enumerate(vit.layers):
        _mae_block(result, f"blocks.{index}", layer)
    _linear(result, "norm", vit.layernorm)
    if decoder:
        part = model.decoder
        result["mask_token"] = part.mask_token.detach().clone()
        result["decoder_pos_embed"] = part.decoder_pos_embed.detach().clone()
        _linear(result, "decoder_embed", part.decoder_embed)
        for index, layer in enumerate(part.decoder_layers):
            _mae_block(result, f"decoder_blocks.{index}", layer)
        _linear(result, "decoder_norm", part.decoder_norm)
        _linear(result, "decoder_pred", part.decoder_pred)
    return result


def _videomae_block(target: dict[str, Tensor], name: str, layer: Any) -> None:
    inner = layer.attention.attention
    _linear(target, f"{name}.norm1", layer.layernorm_before)
    target[f"{name}.attn.q_bias"] = inner.query.bias.detach().clone()
    target[f"{name}.attn.v_bias"] = inner.value.bias.detach().clone()
    three = (inner.query, inner.key, inner.value)
    target[f"{name}.attn.qkv.weight"] = torch.cat([part.weight.detach() for part in three])
    _linear(target, f"{name}.attn.proj", layer.attention.output.dense)
    _linear(target, f"{name}.norm2", layer.layernorm_after)
    _linear(target, f"{name}.mlp.fc1", layer.intermediate.dense)
    _linear(target, f"{name}.mlp.fc2", layer.output.dense)


def original_videomae(model: VideoMAEForPreTraining) -> dict[str, Tensor]:
    """The state dict that the VideoMAE repository would have saved after pre-training."""
    result: dict[str, Tensor] = {"mask_token": model.mask_token.detach().clone()}
    _linear(result, "encoder.patch_embed.proj", model.videomae.embeddings.patch_embeddings.projection)
    for index, layer in enumerate(model.videomae.encoder.layer):
        _videomae_block(result, f"encoder.blocks.{index}", layer)
    _linear(result, "encoder.norm", model.videomae.layernorm)
    for index, layer in enumerate(model.decoder.decoder_layers):
        _videomae_block(result, f"decoder.blocks.{index}", layer)
    _linear(result, "decoder.norm", model.decoder.norm)
    _linear(result, "decoder.head", model.decoder.head)
    _linear(result, "encoder_to_decoder", model.encoder_to_decoder)
    return result


def original_videomae_finetuned(model: VideoMAEForPreTraining, classes: int = 5) -> dict[str, Tensor]:
    """The state dict of a fine-tuned VideoMAE classifier: no prefix, fc_norm and head instead of norm."""
    result = {
        key.removeprefix("encoder."): tensor
        for key, tensor in original_videomae(model).items()
        if key.startswith("encoder.") and not key.startswith("encoder.norm")
    }
    width = model.config.hidden_size
    for key, shape in (("fc_norm.weight", (width,)), ("fc_norm.bias", (width,)), ("head.bias", (classes,))):
        result[key] = torch.zeros(shape)
    result["head.weight"] = torch.zeros(classes, width)
    return result
