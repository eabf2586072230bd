"""Key lists and shapes of the released ViT-B files convert without remainder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.foreign import mae_table
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import config_for, convert_state_dict, from_state_dict


def _block(name: str, width: int, inner: int, split_bias: bool) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (inner, width),
        "mlp.fc1.bias": (inner,),
        "mlp.fc2.weight": (width, inner),
        "mlp.fc2.bias": (width,),
    }
    if split_bias:
        shapes |= {"attn.q_bias": (width,), "attn.v_bias": (width,)}
    else:
        shapes["attn.qkv.bias"] = (3 * width,)
    return {f"{name}.{key}": torch.zeros(shape) for key, shape in shapes.items()}


def _mae_base(decoder: bool) -> dict[str, Tensor]:
    weights = {
        "cls_token": torch.zeros(1, 1, 768),
        "pos_embed": mae_table(14, 14, 768),
        "patch_embed.proj.weight": torch.zeros(768, 3, 16, 16),
        "patch_embed.proj.bias": torch.zeros(768),
        "norm.weight": torch.ones(768),
        "norm.bias": torch.zeros(768),
    }
    for layer in range(12):
        weights |= _block(f"blocks.{layer}", 768, 3072, split_bias=False)
    if decoder:
        weights |= {
            "mask_token": torch.zeros(1, 1, 512),
            "decoder_pos_embed": mae_table(14, 14, 512),
            "decoder_embed.weight": torch.zeros(512, 768),
            "decoder_embed.bias": torch.zeros(512),
            "decoder_norm.weight": torch.ones(512),
            "decoder_norm.bias": torch.zeros(512),
            "decoder_pred.weight": torch.zeros(768, 512),
            "decoder_pred.bias": torch.zeros(768),
        }
        for layer in range(8):
            weights |= _block(f"decoder_blocks.{layer}", 512, 2048, split_bias=False)
    return weights


def _videomae_base() -> dict[str, Tensor]:
    weights = {
        "mask_token": torch.zeros(1, 1, 384),
        "encoder.patch_embed.proj.weight": torch.zeros(768, 3, 2, 16, 16),
        "encoder.patch_embed.proj.bias": torch.zeros(768),
        "encoder.norm.weight": torch.ones(768),
        "encoder.norm.bias": torch.zeros(768),
        "decoder.norm.weight": torch.ones(384),
        "decoder.norm.bias": torch.zeros(384),
        "decoder.head.weight": torch.zeros(1536, 384),
        "decoder.head.bias": torch.zeros(1536),
        "encoder_to_decoder.weight": torch.zeros(384, 768),
    }
    for layer in range(12):
        weights |= _block(f"encoder.blocks.{layer}", 768, 3072, split_bias=True)
    for layer in range(4):
        weights |= _block(f"decoder.blocks.{layer}", 384, 1536, split_bias=True)
    return weights


def _videomae_base_finetuned() -> dict[str, Tensor]:
    weights = {
        key.removeprefix("encoder."): tensor
        for key, tensor in _videomae_base().items()
        if key.startswith("encoder.") and "norm.weight" not in key[:20] and not key.startswith("encoder.norm")
    }
    for key, shape in (("fc_norm.weight", (768,)), ("fc_norm.bias", (768,))):
        weights[key] = torch.zeros(shape)
    return weights | {"head.weight": torch.zeros(101, 768), "head.bias": torch.zeros(101)}


def _uninitialised(config: M33DConfig) -> nn.Module:
    """A model of full size without the cost of drawing its weights."""
    with torch.device("meta"):
        model = M33DForPreTraining(config)
    return model.to_empty(device="cpu")


def test_mae_base_with_decoder_into_the_inferred_model() -> None:
    checkpoint = from_state_dict({"model": _mae_base(decoder=True)}, "mae_visualize_vit_base.pth")
    arguments = config_for(checkpoint)
    assert arguments["num_attention_heads"] == 12 and arguments["decoder_num_attention_heads"] == 16
    assert arguments["image_size"] == 224 and arguments["patch_size"] == 16
    report = convert_state_dict(checkpoint, _uninitialised(M33DConfig(**arguments)))
    assert not report.new
    assert set(report.ignored) == {"pos_embed", "decoder_pos_embed"}


def test_mae_base_encoder_into_the_paper_model() -> None:
    checkpoint = from_state_dict({"model": _mae_base(decoder=False)}, "mae_pretrain_vit_base.pth")
    model = _uninitialised(M33DConfig())
    report = convert_state_dict(checkpoint, model)
    assert set(report.ignored) == {"pos_embed"}
    assert {name.split(".")[0] for name in report.new} == {"decoder"}
    assert {name for name in model.state_dict() if name.startswith("m33d.")} == set(report.filled)


def test_videomae_base_has_218_keys_and_all_are_used() -> None:
    weights = _videomae_base()
    assert len(weights) == 218
    checkpoint = from_state_dict({"model": weights}, "videomae_k400.pth")
    arguments = config_for(checkpoint)
    assert arguments["num_frames"] == 16 and arguments["tubelet_size"] == 2
    assert arguments["decoder_num_attention_heads"] == 6
    report = convert_state_dict(checkpoint, _uninitialised(M33DConfig(**arguments)))
    assert not report.new and not report.ignored
    assert len(report.used) == 218


def test_fine_tuned_videomae_base_has_162_keys() -> None:
    weights = _videomae_base_finetuned()
    assert len(weights) == 162
    checkpoint = from_state_dict({"module": weights}, "videomae_ucf.pt")
    report = convert_state_dict(checkpoint, _uninitialised(M33DConfig(**config_for(checkpoint))))
    assert set(report.ignored) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert len(report.used) == 158
    assert not [name for name in report.new if name.startswith("m33d.") and "encoders.rgb.layernorm" not in name]


def _plain_vit(width: int, layers: int, patch: tuple[int, ...], split: bool) -> dict[str, Tensor]:
    """Blocks, patch kernel, class token and final norm of a released ViT, positions not included."""
    weights = {
        "cls_token": torch.zeros(1, 1, width),
        "patch_embed.proj.weight": torch.zeros(width, 3, *patch),
        "patch_embed.proj.bias": torch.zeros(width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    for layer in range(layers):
        block = _block(f"blocks.{layer}", width, 4 * width, split_bias=False)
        if split:
            for leaf in ("weight", "bias"):
                three = block.pop(f"blocks.{layer}.attn.qkv.{leaf}").chunk(3)
                block |= {f"blocks.{layer}.attn.{n}.{leaf}": part for n, part in zip("qkv", three, strict=True)}
        weights |= block
    return weights


def test_dino_small_has_150_keys_and_all_are_used() -> None:
    positions = torch.randn(1, 785, 384, generator=torch.Generator().manual_seed(0))
    weights = {**_plain_vit(384, 12, (8, 8), split=False), "pos_embed": positions}
    assert len(weights) == 150
    checkpoint = from_state_dict(weights, "dino_deitsmall8_pretrain.pth")
    arguments = config_for(checkpoint)
    assert (arguments["num_attention_heads"], arguments["image_size"], arguments["patch_size"]) == (6, 224, 8)
    report = convert_state_dict(checkpoint, _uninitialised(M33DConfig(**arguments)))
    assert not report.ignored and len(report.used) == 150
    assert all(name.startswith("decoder.") for name in report.new)


def test_mae_st_base_has_200_keys_and_all_are_used() -> None:
    generator = torch.Generator().manual_seed(0)
    tables = {"pos_embed_spatial": (1, 196, 768), "pos_embed_temporal": (1, 8, 768), "pos_embed_class": (1, 1, 768)}
    weights = _plain_vit(768, 12, (2, 16, 16), split=True)
    weights |= {name: torch.randn(shape, generator=generator) for name, shape in tables.items()}
    assert len(weights) == 200
    checkpoint = from_state_dict({"model_state": weights}, "mae_st_k400.pth")
    arguments = config_for(checkpoint)
    assert (arguments["num_attention_heads"], arguments["image_size"], arguments["num_frames"]) == (12, 224, 16)
    assert arguments["position_grid"] == [8, 14, 14] and arguments["use_cls_token"]
    report = convert_state_dict(checkpoint, _uninitialised(M33DConfig(**arguments)))
    assert not report.ignored and len(report.used) == 200
    assert all(name.startswith("decoder.") for name in report.new)
