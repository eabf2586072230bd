"""What no tensor tells: stated, known from a file beside the weights, that of a released model, or refused."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from helpers.foreign import original_mae, original_videomae, tiny_videomae, tiny_vitmae
from m33d_hf.errors import ConfigError, ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.scripts.convert_checkpoint import main
from m33d_hf.weights import ConversionOptions, config_for, convert_state_dict, from_state_dict
from m33d_hf.weights.own import initialise

HEADS, WIDTH, SIDE, FRAMES = 4, 128, 64, 8
STATED: dict[str, Any] = {"num_attention_heads": HEADS, "image_size": SIDE, "num_frames": FRAMES}


@pytest.fixture(scope="module")
def theirs() -> VideoMAEForPreTraining:
    """The VideoMAE of the report: 4 heads of 32, 64 pixels, where 64 channels a head would make 2."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 256}
    small = {
        "decoder_hidden_size": 64,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 96,
    }
    config = VideoMAEConfig(**sizes, **small, image_size=SIDE, num_frames=FRAMES, use_mean_pooling=False)
    config.layer_norm_eps = 1e-6
    model = VideoMAEForPreTraining(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def file(theirs: VideoMAEForPreTraining, tmp_path: Path) -> Path:
    torch.save({"model": original_videomae(theirs)}, tmp_path / "videomae.pth")
    return tmp_path / "videomae.pth"


def _run(file: Path, *more: str) -> int:
    return main(["--input", str(file), "--output", str(file.parent / "out"), *more])


def test_several_readings_are_refused_and_nothing_is_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(file) == 1
    text = capsys.readouterr().err
    assert "4 x 32 or 2 x 64" in text
    for flag in ("--num_attention_heads", "--image_size", "--num_frames", "--decoder_num_attention_heads"):
        assert flag in text
    assert not (file.parent / "out").exists()


def test_stated_facts_give_their_features(
    theirs: VideoMAEForPreTraining, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--num_attention_heads",
        "4",
        "--decoder_num_attention_heads",
        "2",
        "--image_size",
        "64",
        "--num_frames",
        "8",
    ]
    assert _run(file, *flags) == 0
    report = capsys.readouterr().out
    assert "num_attention_heads 4: stated; it cannot be read from the weights" in report
    assert "assumed: hidden_act 'gelu'" in report and "assumed: layer_norm_eps 1e-06" in report
    model = M33DModel.from_pretrained(file.parent / "out").eval()
    assert (model.config.num_attention_heads, model.config.image_size, model.config.num_frames) == (4, 64, 8)
    clip = torch.randn(2, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.videomae(clip, bool_masked_pos=torch.zeros(2, 4 * 16, dtype=torch.bool)).last_hidden_state
        torch.testing.assert_close(model(clip).last_hidden_state, expected, rtol=1e-5, atol=2e-5)


def test_without_the_decoder_its_heads_need_no_statement(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--num_attention_heads", "4", "--image_size", "64", "64", "--num_frames", "8", "--no_decoder"]
    assert _run(file, *flags) == 0
    assert "decoder_num_attention_heads" not in capsys.readouterr().out


def test_config_json_and_saved_arguments_tell_too(theirs: VideoMAEForPreTraining) -> None:
    weights = original_videomae(theirs)
    known = config_for(from_state_dict(weights, config=theirs.config.to_dict()))
    assert (known["num_attention_heads"], known["decoder_num_attention_heads"]) == (4, 2)
    assert (known["image_size"], known["num_frames"], known["layer_norm_eps"]) == (64, 8, 1e-6)
    arguments = argparse.Namespace(input_size=SIDE, num_frames=FRAMES, lr=1.0)
    heads = {"num_attention_heads": HEADS, "decoder_num_attention_heads": 2}
    known = config_for(from_state_dict({"model": weights, "args": arguments}, stated=heads))
    assert (known["image_size"], known["num_frames"]) == (64, 8)


def test_plain_targets_are_told_by_files_and_assumed_normalised_elsewhere(theirs: VideoMAEForPreTraining) -> None:
    weights, stated = original_videomae(theirs), {**STATED, "decoder_num_attention_heads": 2}
    plain, normalised = (argparse.Namespace(normlize_target=value) for value in (False, True))
    cases = [({}, None, "per_channel", "assumed: normalised patches")]
    cases += [({"args": plain}, None, "none", "plain patches: the saved arguments")]
    cases += [({"args": normalised}, None, "per_channel", "normalised patches: the saved arguments")]
    cases += [({}, {"norm_pix_loss": False}, "none", "plain patches: config.json")]
    for more, config, norm, line in cases:
        checkpoint = from_state_dict({"model": weights, **more}, config=config, stated=stated)
        model = M33DForPreTraining(M33DConfig(**config_for(checkpoint)))
        assert model.config.spec("rgb").target_norm == norm
        assert any(text.startswith(line) for text in convert_state_dict(checkpoint, model).facts)


def test_a_statement_goes_before_files_and_a_position_table_before_both() -> None:
    weights = original_mae(tiny_vitmae())
    arguments = argparse.Namespace(input_size=224)  # a wrong word about a table of 4 x 4 patches of 8
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 3}
    checkpoint = from_state_dict({"model": weights, "args": arguments}, config={"num_attention_heads": 2}, stated=heads)
    known = config_for(checkpoint)
    assert (known["image_size"], known["num_attention_heads"]) == (32, 4)
    with pytest.raises(ConversionError, match="image_size is 224, but the position table belongs to 32 pixels"):
        config_for(from_state_dict(weights, stated={**heads, "image_size": 224}))


def test_released_shapes_are_assumed_in_a_line_each() -> None:
    weights = _encoder_of(768, 12)
    checkpoint = from_state_dict(weights)
    known = config_for(checkpoint)
    assert (known["num_attention_heads"], known["image_size"], known["num_frames"]) == (12, 224, 16)
    with torch.device("meta"):
        model = M33DModel(M33DConfig(**known))
    report = convert_state_dict(checkpoint, model.to_empty(device="cpu"))
    for value in ("num_attention_heads 12", "image_size 224", "num_frames 16", "hidden_act 'gelu'"):
        assert any(line.startswith(f"assumed: {value}, that of") for line in report.facts), value
    with pytest.raises(ConversionError, match="num_attention_heads, image_size, num_frames cannot be read"):
        config_for(from_state_dict(_encoder_of(768, 4)))  # as wide as ViT-B, but not that model


def _encoder_of(width: int, layers: int) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 2, 16, 16), "patch_embed.proj.bias": (width,)}
    for n in range(layers):
        own = f"blocks.{n}"
        shapes |= {f"{own}.{leaf}.{part}": (width,) for leaf in ("norm1", "norm2") for part in ("weight", "bias")}
        shapes |= {f"{own}.attn.q_bias": (width,), f"{own}.attn.v_bias": (width,), f"{own}.attn.proj.bias": (width,)}
        shapes |= {f"{own}.attn.qkv.weight": (3 * width, width), f"{own}.attn.proj.weight": (width, width)}
        shapes |= {f"{own}.mlp.fc1.weight": (4 * width, width), f"{own}.mlp.fc2.weight": (width, 4 * width)}
        shapes |= {f"{own}.mlp.fc1.bias": (4 * width,), f"{own}.mlp.fc2.bias": (width,)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_other_heads_than_the_released_ones_must_be_stated_in_a_run_too(tmp_path: Path) -> None:
    torch.save(_encoder_of(384, 12), tmp_path / "small.pth")
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
    with torch.device("meta"):
        model = M33DModel(M33DConfig(num_frames=16, tubelet_size=2, **sizes), modalities=["rgb"])
    model.to_empty(device="cpu")
    with pytest.raises(ConversionError, match=r"6 is that of the released.*init\.num_attention_heads 12"):
        initialise(model, tmp_path / "small.pth")
    report = initialise(model, tmp_path / "small.pth", ConversionOptions(num_attention_heads=12))
    assert "num_attention_heads 12: stated; it cannot be read from the weights" in report.facts


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"heads": 4}, "is not a setting of a checkpoint"),
        ({"num_attention_heads": "4"}, "must be int"),
        ({"num_attention_heads": True}, "must be int"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"image_size": [1, 2, 3]}, "image_size"),
        ({"image_size": -64}, "image_size"),
        ({"num_frames": 0}, "num_frames"),
        ({"hidden_act": "nosuch"}, "hidden_act"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps"),
    ],
)
def test_statements_that_cannot_be_right(stated: dict[str, Any], words: str, theirs: VideoMAEForPreTraining) -> None:
    everything = {**STATED, "decoder_num_attention_heads": 2, **stated}
    with pytest.raises(ConfigError, match=words):
        M33DForPreTraining(M33DConfig(**config_for(from_state_dict(original_videomae(theirs), stated=everything))))


def test_a_norm_that_a_fine_tuned_model_did_not_have_is_said() -> None:
    weights = original_mae(tiny_vitmae(), decoder=False)
    for part in ("weight", "bias"):  # MAE's fine-tuning norms after pooling
        weights[f"fc_norm.{part}"] = weights.pop(f"norm.{part}")
    weights |= {"head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)}
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    for encoder_norm in (True, False):
        fields = {**config_for(checkpoint), "encoder_norm": encoder_norm}
        report = convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**fields)))
        assert any("norm that the checkpoint does not have" in note for note in report.notes) == encoder_norm


def test_what_transformers_trains_by_default_has_no_final_norm_and_predicts_alike() -> None:
    theirs = tiny_videomae(use_mean_pooling=True)
    checkpoint = from_state_dict(dict(theirs.state_dict()), config=theirs.config.to_dict())
    model = M33DForPreTraining(M33DConfig(**config_for(checkpoint))).eval()
    report = convert_state_dict(checkpoint, model)
    assert not report.new and not any("norm that" in note for note in report.notes)
    pixels, masked = torch.randn(2, 4, 3, 32, 32), torch.arange(32).expand(2, -1) % 4 > 0
    keep = (~masked).nonzero()[:, 1].reshape(2, -1)
    with torch.no_grad():
        found = model(pixels, keep={"rgb": keep}, output_reconstruction=True).reconstructions["rgb"]
        torch.testing.assert_close(found, theirs(pixels, bool_masked_pos=masked).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stated", [True, False])
def test_whether_patches_were_normalised_can_be_stated(stated: bool, theirs: VideoMAEForPreTraining) -> None:
    facts = {**STATED, "decoder_num_attention_heads": 2, "norm_pix_loss": stated}
    checkpoint = from_state_dict(original_videomae(theirs), stated=facts)
    fields = config_for(checkpoint)
    report = convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**fields)))
    assert (fields["modalities"][0]["target_norm"] != "none") == stated
    assert f"{'normalised' if stated else 'plain'} patches: stated (norm_pix_loss)" in report.facts
    opposite = replace(checkpoint, stated={**facts, "norm_pix_loss": not stated})
    other = M33DForPreTraining(M33DConfig(**config_for(opposite)))
    lines = convert_state_dict(checkpoint, other).facts
    assert any("patches in the checkpoint (stated (norm_pix_loss))" in line for line in lines)


def test_models_without_query_biases_convert(theirs: VideoMAEForPreTraining) -> None:
    weights = {k: v for k, v in original_videomae(theirs).items() if not k.endswith(("q_bias", "v_bias"))}
    checkpoint = from_state_dict(weights, stated={**STATED, "decoder_num_attention_heads": 2})
    fields = config_for(checkpoint)
    assert fields["qkv_bias"] is False
    assert not convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**fields))).new


def test_frames_of_several_segments_are_counted_together(theirs: VideoMAEForPreTraining) -> None:
    arguments = argparse.Namespace(input_size=64, num_frames=2, num_segments=2)
    content = {"model": original_videomae(theirs), "args": arguments}
    checkpoint = from_state_dict(content, stated={"num_attention_heads": 4, "decoder_num_attention_heads": 2})
    assert config_for(checkpoint)["num_frames"] == 4


@pytest.mark.parametrize("key", ["encoder.pos_embed", "pos_embed"])
def test_learned_positions_of_clips_are_refused_as_such(key: str, theirs: VideoMAEForPreTraining) -> None:
    weights = original_videomae(theirs) | {key: torch.zeros(1, 32, 128)}
    with pytest.raises(ConversionError, match="learned positions"):
        config_for(from_state_dict(weights, stated=STATED))


def test_learned_positions_of_images_are_no_question_about_the_size() -> None:
    weights = original_mae(tiny_vitmae())
    weights["pos_embed"] = weights["pos_embed"] + 0.01
    with pytest.raises(ConversionError, match=r"'pos_embed' is not the fixed .* --image_size HEIGHT WIDTH"):
        config_for(from_state_dict(weights, stated={"num_attention_heads": 4, "decoder_num_attention_heads": 2}))


def test_the_head_of_a_linear_probe_is_left_out() -> None:
    weights = original_mae(tiny_vitmae(), decoder=False)
    width = weights["cls_token"].shape[-1]
    statistics = {f"head.0.running_{name}": torch.zeros(width) for name in ("mean", "var")}
    weights |= statistics | {"head.0.num_batches_tracked": torch.tensor(3), "head.1.bias": torch.zeros(5)}
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    report = convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**config_for(checkpoint))))
    assert {key for key in report.ignored if key.startswith("head.")} == {key for key in weights if "head." in key}
