"""Every foreign key is used or explained, every weight filled or listed as new; anything else is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.devices import NEEDS_CUDA
from helpers.foreign import (
    mae_config,
    original_mae,
    original_videomae,
    tiny_videomae,
    tiny_vitmae,
    two_modalities,
    videomae_config,
)
from m33d_hf.errors import CheckpointError, ConfigError, ConversionError
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.weights import ConversionOptions, ConversionReport, convert_state_dict, from_state_dict


@pytest.fixture(scope="module")
def mae_weights() -> dict[str, Tensor]:
    return original_mae(tiny_vitmae())


@pytest.fixture(scope="module")
def videomae_weights() -> dict[str, Tensor]:
    return original_videomae(tiny_videomae())


def _convert(weights: dict[str, Tensor], model: nn.Module, **options: Any) -> ConversionReport:
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    report = convert_state_dict(from_state_dict(weights), model, ConversionOptions(**options))
    after = model.state_dict()
    assert set(report.used) | set(report.ignored) == set(weights)
    assert not set(report.used) & set(report.ignored)
    assert set(report.filled) | set(report.new) == set(after)
    assert not set(report.filled) & set(report.new)
    for key in report.new:
        assert torch.equal(before[key], after[key]), f"{key} is listed as new but changed"
    return report


def _refused(weights: dict[str, Tensor], model: nn.Module, match: str, **options: Any) -> None:
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ConversionError, match=match):
        convert_state_dict(from_state_dict(weights), model, ConversionOptions(**options))
    for key, tensor in model.state_dict().items():
        assert torch.equal(before[key], tensor), f"{key} was written although the conversion failed"


def _tensor(model: nn.Module, name: str) -> Tensor:
    return next(tensor for key, tensor in model.state_dict().items() if key.endswith(name))


def test_one_renamed_key_fails(mae_weights: dict[str, Tensor]) -> None:
    weights = dict(mae_weights)
    weights["blocks.1.attn.projection.weight"] = weights.pop("blocks.1.attn.proj.weight")
    _refused(weights, M33DForPreTraining(mae_config()), r"blocks\.1\.attn\.projection\.weight.*Did you mean")


def test_one_extra_key_fails(videomae_weights: dict[str, Tensor]) -> None:
    weights = videomae_weights | {"encoder.blocks.0.gamma_1": torch.ones(32)}
    _refused(weights, M33DForPreTraining(videomae_config()), "gamma_1")


@pytest.mark.parametrize("key", ["blocks.2.norm2.bias", "norm.weight", "decoder_blocks.0.mlp.fc1.bias"])
def test_one_missing_key_fails(mae_weights: dict[str, Tensor], key: str) -> None:
    weights = {name: tensor for name, tensor in mae_weights.items() if name != key}
    _refused(weights, M33DForPreTraining(mae_config()), "not in state dict")


def test_a_checkpoint_without_final_norm_lists_it_as_new(mae_weights: dict[str, Tensor]) -> None:
    weights = {name: tensor for name, tensor in mae_weights.items() if not name.startswith("norm.")}
    report = _convert(weights, M33DForPreTraining(mae_config()))
    assert {name.partition("encoders.rgb.")[2] for name in report.new} == {"layernorm.weight", "layernorm.bias"}
    assert any("without a final norm" in note for note in report.notes)


def test_half_of_a_bias_fails(videomae_weights: dict[str, Tensor]) -> None:
    weights = {k: v for k, v in videomae_weights.items() if k != "encoder.blocks.1.attn.v_bias"}
    _refused(weights, M33DForPreTraining(videomae_config()), "k and v is missing")


def test_wrong_patch_size_names_both_shapes(mae_weights: dict[str, Tensor]) -> None:
    model = M33DForPreTraining(mae_config(patch_size=4))
    _refused(mae_weights, model, r"\(32, 3, 8, 8\).*\(32, 3, 4, 4\).*patch_size=\(8, 8\)")


def test_wrong_depth_and_width_name_the_fields(mae_weights: dict[str, Tensor]) -> None:
    model = M33DForPreTraining(mae_config(num_hidden_layers=2, hidden_size=64))
    _refused(mae_weights, model, r"hidden_size=32 \(the model has 64\).*num_hidden_layers=3 \(the model has 2\)")


def test_wrong_head_count_of_the_config_is_seen(mae_weights: dict[str, Tensor]) -> None:
    checkpoint = from_state_dict(mae_weights, config={"num_attention_heads": 8})
    with pytest.raises(ConversionError, match=r"num_attention_heads=8 \(the model has 4\)"):
        convert_state_dict(checkpoint, M33DForPreTraining(mae_config()))


@NEEDS_CUDA
def test_weights_and_models_on_a_gpu_convert(mae_weights: dict[str, Tensor]) -> None:
    here, there = M33DForPreTraining(mae_config()), M33DForPreTraining(mae_config()).cuda()
    filled = _convert(mae_weights, here).filled
    assert _convert({key: tensor.cuda() for key, tensor in mae_weights.items()}, there).filled == filled
    for key in filled:
        assert torch.equal(there.state_dict()[key].cpu(), here.state_dict()[key])


def test_learned_positions_are_refused(mae_weights: dict[str, Tensor]) -> None:
    weights = mae_weights | {"pos_embed": mae_weights["pos_embed"] + 0.01}
    _refused(weights, M33DForPreTraining(mae_config()), "'pos_embed'.*learned or fine-tuned")


def test_transposed_positions_are_refused(mae_weights: dict[str, Tensor]) -> None:
    y, x = mae_weights["pos_embed"].chunk(2, dim=-1)
    weights = mae_weights | {"pos_embed": torch.cat([x, y], dim=-1)}
    _refused(weights, M33DForPreTraining(mae_config()), "pos_embed")


def test_zero_positions_of_transformers_5_are_named(mae_weights: dict[str, Tensor]) -> None:
    weights = mae_weights | {"pos_embed": torch.zeros_like(mae_weights["pos_embed"])}
    _refused(weights, M33DForPreTraining(mae_config()), "all zeros. transformers does")


def test_half_precision_checkpoints_are_accepted(mae_weights: dict[str, Tensor]) -> None:
    weights = {key: tensor.half() for key, tensor in mae_weights.items()}
    model = M33DForPreTraining(mae_config())
    assert not _convert(weights, model).new
    assert _tensor(model, "layers.0.mlp.fc1.weight").dtype == torch.float32


def test_nan_in_a_checkpoint_is_refused(mae_weights: dict[str, Tensor]) -> None:
    weights = mae_weights | {"norm.bias": torch.full((32,), float("nan"))}
    with pytest.raises(CheckpointError, match=r"norm\.bias"):
        from_state_dict(weights)


def test_other_image_size_keeps_the_weights_and_notes_the_grid(mae_weights: dict[str, Tensor]) -> None:
    report = _convert(mae_weights, M33DForPreTraining(mae_config(image_size=[24, 40])))
    assert any("position_grid=[1, 4, 4]" in note for note in report.notes)
    interpolating = M33DForPreTraining(mae_config(image_size=[24, 40], position_grid=[1, 4, 4]))
    assert not _convert(mae_weights, interpolating).notes


@pytest.mark.parametrize("clip", [False, True])
def test_depth_encoder_and_its_summed_kernel(
    mae_weights: dict[str, Tensor], videomae_weights: dict[str, Tensor], clip: bool
) -> None:
    weights = videomae_weights if clip else mae_weights
    model = M33DForPreTraining(two_modalities(clip, contrastive_weight=0.1, matching_weight=0.1))
    report = _convert(weights, model)
    kernel = weights["encoder.patch_embed.proj.weight" if clip else "patch_embed.proj.weight"]
    torch.testing.assert_close(_tensor(model, "embeddings.depth.projection.weight"), kernel.sum(1, keepdim=True))
    assert torch.equal(
        _tensor(model, "embeddings.depth.projection.bias"), _tensor(model, "embeddings.rgb.projection.bias")
    )
    for name, tensor in model.state_dict().items():
        if "encoders.depth." in name:
            assert torch.equal(tensor, model.state_dict()[name.replace("encoders.depth.", "encoders.rgb.")])
    fresh = {name.split(".")[0] + "." + name.split(".")[1] for name in report.new}
    assert {"decoder.modality_embeddings", "decoder.heads"} <= fresh
    assert not [name for name in report.new if name.startswith(("m33d.", "decoder.layers", "decoder.heads.rgb"))]


def test_depth_parts_can_stay_random(mae_weights: dict[str, Tensor]) -> None:
    model = M33DForPreTraining(two_modalities())
    report = _convert(mae_weights, model, depth_encoder_init="random", depth_patch_init="random")
    depth = {name for name in model.state_dict() if ".depth." in name}
    assert depth <= set(report.new)
    mean = M33DForPreTraining(two_modalities())
    _convert(mae_weights, mean, depth_patch_init="mean")
    expected = mae_weights["patch_embed.proj.weight"].mean(1, keepdim=True)
    torch.testing.assert_close(_tensor(mean, "embeddings.depth.projection.weight"), expected)


def test_shared_encoder_is_filled_once(mae_weights: dict[str, Tensor]) -> None:
    model = M33DForPreTraining(two_modalities(encoder_sharing="shared"))
    report = _convert(mae_weights, model, depth_encoder_init="random")
    assert not [name for name in report.new if ".shared." in name or "cls_token" in name]
    assert torch.equal(_tensor(model, "encoders.shared.layernorm.bias"), mae_weights["norm.bias"])


def test_decoder_of_another_shape_is_left_out_as_a_whole(mae_weights: dict[str, Tensor]) -> None:
    model = M33DForPreTraining(mae_config(decoder_num_hidden_layers=1))
    report = _convert(mae_weights, model)
    reason = report.ignored["decoder_blocks.0.norm1.weight"]
    assert "decoder_num_hidden_layers 2 (model: 1)" in reason
    assert report.ignored["mask_token"] == report.ignored["decoder_pos_embed"] == reason
    assert {name for name in model.state_dict() if name.startswith("decoder.")} == set(report.new)


def test_init_decoder_false(mae_weights: dict[str, Tensor]) -> None:
    report = _convert(mae_weights, M33DForPreTraining(mae_config()), init_decoder=False)
    assert set(report.new.values()) == {"init_decoder is False"}


def test_task_model_takes_the_encoder(mae_weights: dict[str, Tensor]) -> None:
    config = mae_config(segmentation_head_width=16, segmentation_head_depth=1, num_labels=3)
    model = M33DForSemanticSegmentation(config)
    report = _convert(mae_weights, model)
    assert not [name for name in report.new if name.startswith("m33d.")]
    assert "output of the blocks" in report.ignored["norm.weight"]
    assert report.ignored["decoder_pred.weight"] == "the model has no decoder"


def test_bare_encoder_model(mae_weights: dict[str, Tensor]) -> None:
    assert not _convert(mae_weights, M33DModel(mae_config())).new


def test_image_kernel_in_a_clip_model_only_when_asked_for(mae_weights: dict[str, Tensor]) -> None:
    _refused(mae_weights, M33DForPreTraining(videomae_config()), "inflate='average'")
    kernel = mae_weights["patch_embed.proj.weight"]
    for inflate, expected in (("average", kernel / 2), ("center", kernel)):
        model = M33DForPreTraining(videomae_config())
        report = _convert(mae_weights, model, inflate=inflate)
        inflated = _tensor(model, "embeddings.rgb.projection.weight")
        torch.testing.assert_close(inflated[:, :, 1], expected)
        torch.testing.assert_close(inflated.sum(2), kernel)
        assert "class token" in report.ignored["cls_token"]
        assert "sincos_1d positions instead" in report.ignored["pos_embed"]
        assert "image decoder" in report.ignored["mask_token"]


def test_clip_checkpoint_in_an_image_model(videomae_weights: dict[str, Tensor]) -> None:
    """It fits where positions are of its kind; its decoder, whose heads predict tubelets, stays behind."""
    _refused(videomae_weights, M33DForPreTraining(mae_config()), "position_embedding_type='sincos_1d'")
    model = M33DForPreTraining(mae_config(position_embedding_type="sincos_1d", use_cls_token=False))
    report = _convert(videomae_weights, model)
    kernel = videomae_weights["encoder.patch_embed.proj.weight"]
    torch.testing.assert_close(_tensor(model, "embeddings.rgb.projection.weight"), kernel.sum(2))
    assert report.new and all(key.startswith("decoder.") for key in report.new)
    assert "a clip decoder does not fit an image model" in report.new.values()
    assert any("summed over the tubelet of 2 frames" in note for note in report.notes)


def test_misspelt_option() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sum'"):
        ConversionOptions(depth_patch_init="summ")


def test_summary_names_reasons(mae_weights: dict[str, Tensor]) -> None:
    report = _convert(mae_weights, M33DForPreTraining(two_modalities()))
    text = report.summary()
    assert "MAE (original)" in text and "rebuilt, identical" in text and "predict RGB only" in text
