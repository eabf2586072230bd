"""MultiMAE's files -> our models: predictions, gradients and features are those of an independently written twin."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.foreign import mae_config, original_mae, tiny_vitmae
from helpers.multimae_twin import MultiMAETwin, fine_tuned, timm_layout
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.patches_m33d import unpatchify
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.building import starting_config
from m33d_hf.weights import ConversionReport, config_for, convert_state_dict, from_state_dict, load_foreign
from m33d_hf.weights.own import initialise

SIDE, PATCH = 3, 4
KEEP = [0, 2, 5, 9 + 1, 9 + 8]
STATED: dict[str, Any] = {"num_attention_heads": 4, "decoder_num_attention_heads": 6}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def twin() -> MultiMAETwin:
    return MultiMAETwin(semseg=True).eval()


@pytest.fixture(scope="module")
def file(twin: MultiMAETwin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multimae") / "multimae-b.pth"
    torch.save({"model": twin.state_dict(), "epoch": 1599}, path)
    return path


def _images(side: int = SIDE * PATCH, samples: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(samples, c, side, side, generator=generator) for name, c in (("rgb", 3), ("depth", 1))}


def _converted(checkpoint: Any, **overrides: Any) -> tuple[M33DForPreTraining, ConversionReport]:
    torch.manual_seed(1)
    model = M33DForPreTraining(M33DConfig(**{**config_for(checkpoint), **overrides})).eval()
    return model, convert_state_dict(checkpoint, model)


def _ours(model: M33DForPreTraining, images: dict[str, Tensor], keep: list[int]) -> dict[str, Tensor]:
    """Predictions as pictures (B, C, H, W)."""
    samples, side = len(images["rgb"]), images["rgb"].shape[-1] // PATCH
    joint = torch.tensor([keep] * samples)
    inputs = {"pixel_values": images["rgb"], "depth_values": images["depth"]}
    found = model(**inputs, keep={"joint": joint}, output_reconstruction=True).reconstructions
    return {name: unpatchify(values, (1, side, side), 1, (PATCH, PATCH))[:, 0] for name, values in found.items()}


def _exchanged(features: Tensor) -> Tensor:
    first, second = features.chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1)


def test_the_names_of_a_pretraining_file(twin: MultiMAETwin) -> None:
    """As the original repository has them: one linear layer per decoder, not a dictionary of them."""
    names = set(twin.state_dict())
    assert {"output_adapters.rgb.out_proj.weight", "output_adapters.norm_rgb.out_proj.bias"} <= names
    assert {
        "output_adapters.depth.task_embeddings.semseg",
        "input_adapters.rgb.pos_emb",
        "encoder.1.attn.qkv.bias",
    } <= names


def test_predictions_gradients_and_features_are_theirs(twin: MultiMAETwin, file: Path) -> None:
    checkpoint = load_foreign(file, STATED)
    assert checkpoint.format == "multimae"
    model, report = _converted(checkpoint)
    assert not report.new
    assert set(report.filled) == set(model.state_dict())
    assert set(report.used) | set(report.ignored) == set(twin.state_dict()) | {"epoch"}
    assert all("semseg" in k or "pos_emb" in k or k == "epoch" for k in report.ignored)
    theirs_in, ours_in = ({n: t.clone().requires_grad_() for n, t in _images().items()} for _ in range(2))
    theirs, ours = twin.predict(theirs_in, KEEP), _ours(model, ours_in, KEEP)
    assert set(ours) == set(theirs) == {"rgb", "depth", "norm_rgb"}
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=TOLERANCE, atol=TOLERANCE)
    for values in (theirs, ours):
        torch.stack([value.square().mean() for value in values.values()]).sum().backward()
    for name in theirs_in:
        torch.testing.assert_close(ours_in[name].grad, theirs_in[name].grad, rtol=1e-4, atol=TOLERANCE)
    with torch.no_grad():
        keep = {"joint": torch.tensor([KEEP] * 2)}
        states = model.m33d.encode({n: t[:, None] for n, t in _images().items()}, keep)
        expected = twin.encode(_images(), KEEP)
    found = torch.cat([states["joint"], states["global"]], dim=1)
    torch.testing.assert_close(found, _exchanged(expected), rtol=1e-4, atol=5e-5)
    assert any("halves of their channels exchanged" in note for note in report.notes)


def test_another_size_interpolates_the_encoder_bicubically_and_decoders_bilinearly(
    twin: MultiMAETwin, file: Path
) -> None:
    model, _ = _converted(load_foreign(file, STATED))
    images, keep = _images(side=5 * PATCH), [0, 7, 24, 25 + 3, 25 + 12]
    with torch.no_grad():
        theirs, ours = twin.predict(images, keep), _ours(model, images, keep)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=TOLERANCE, atol=2e-5)


def test_an_encoder_alone_gets_new_decoders_for_what_it_encodes() -> None:
    twin = MultiMAETwin(targets=()).eval()
    checkpoint = from_state_dict(twin.state_dict(), stated={"num_attention_heads": 4})
    arguments = config_for(checkpoint)
    assert [(entry["name"], entry["weight"]) for entry in arguments["modalities"]] == [("rgb", 1.0), ("depth", 1.0)]
    assert arguments["decoder_hidden_size"] == 256 and arguments["decoder_num_attention_heads"] == 8
    model, report = _converted(checkpoint)
    assert report.new and all(name.startswith("decoder.targets.") for name in report.new)
    with torch.no_grad():
        found = model.m33d(_images()["rgb"]).last_hidden_state
        expected = twin.encode({"rgb": _images()["rgb"]})
    torch.testing.assert_close(found, _exchanged(expected), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("task", ["cls", "semseg", "depth"])
@pytest.mark.parametrize("side", [None, 5])
def test_a_fine_tuned_model_gives_its_encoder(twin: MultiMAETwin, task: str, side: int | None) -> None:
    weights = fine_tuned(twin, task, side)
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    arguments = config_for(checkpoint)
    assert arguments["image_size"] == (side or SIDE) * PATCH
    assert arguments.get("position_grid") == (None if side is None else [1, SIDE, SIDE])
    model, report = _converted(checkpoint)
    heads = [key for key in weights if key.startswith(f"output_adapters.{task}.")]
    reasons = ("head of a fine-tuned model", "under a second name")
    assert heads and all(any(text in report.ignored[key] for text in reasons) for key in heads)
    with torch.no_grad():
        images = _images(side=(side or SIDE) * PATCH)
        found = model.m33d(images["rgb"]).last_hidden_state
        expected = twin.encode({"rgb": images["rgb"]})
    torch.testing.assert_close(found, _exchanged(expected), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("global_row", [True, False])
def test_the_released_timm_layout_is_the_fixed_table_with_exchanged_axes(twin: MultiMAETwin, global_row: bool) -> None:
    weights = timm_layout(twin)
    if not global_row:  # as written for several global tokens
        weights["global_tokens"], weights["pos_embed"] = weights.pop("cls_token"), weights["pos_embed"][:, 1:]
    checkpoint = from_state_dict(weights, stated={"num_attention_heads": 4})
    assert checkpoint.format == "multimae_timm"
    model, report = _converted(checkpoint)
    assert all(name.startswith("decoder.") for name in report.new)
    assert set(report.used) | set(report.ignored) == set(weights)
    with torch.no_grad():
        found = model.m33d(_images()["rgb"]).last_hidden_state
        expected = _exchanged(twin.encode({"rgb": _images()["rgb"]}))
    torch.testing.assert_close(found[:, 1:], expected[:, :-1], rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(found[:, 0], expected[:, -1], rtol=1e-4, atol=5e-5)


def test_other_position_tables_of_a_vit_are_no_multimae() -> None:
    """The same names with MAE's table are MAE's, with learned positions timm's, which fixed ones are no place for."""
    original = original_mae(tiny_vitmae(), decoder=False)
    assert from_state_dict(original).format == "mae"
    trained = {**original, "pos_embed": torch.randn_like(original["pos_embed"])}
    checkpoint = from_state_dict(trained)
    assert checkpoint.format == "timm_vit"
    with pytest.raises(ConversionError, match="learned positions, but the model has sincos_2d"):
        convert_state_dict(checkpoint, M33DForPreTraining(mae_config()))


def test_fine_tuning_starts_from_their_rgb_encoder(twin: MultiMAETwin, file: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 96, "image_size": SIDE * PATCH, "patch_size": PATCH}
    words = ["--train.max_steps", "1", "--init_from", str(file)]
    words += [word for name, value in sizes.items() for word in (f"--model.{name}", str(value))]
    config = starting_config(parse_arguments(words, "semantic_segmentation"), num_labels=3)
    assert config.global_token and not config.use_cls_token
    model = M33DForSemanticSegmentation(config).eval()
    report = initialise(model, file)
    assert all(name.startswith("segmentation_head.") for name in report.new)
    assert any(note.startswith("assumed: num_attention_heads 4, as in the model") for note in report.facts)
    pixels = _images()["rgb"]
    with torch.no_grad():
        ours, theirs = model.extract_features(pixels)["rgb"], twin.encode({"rgb": pixels})[:, :-1]
    torch.testing.assert_close(ours, _exchanged(theirs), rtol=1e-4, atol=5e-5)


def test_positions_that_were_trained_are_refused(twin: MultiMAETwin) -> None:
    weights = {**twin.state_dict(), "input_adapters.rgb.pos_emb": torch.randn(1, 64, SIDE, SIDE)}
    checkpoint = from_state_dict(weights, stated={**STATED, "image_size": SIDE * PATCH})
    with pytest.raises(ConversionError, match="is not the fixed sincos_2d table"):
        convert_state_dict(checkpoint, M33DForPreTraining(M33DConfig(**config_for(checkpoint))))


def test_a_mistyped_decoder_weight_is_no_task_head(twin: MultiMAETwin) -> None:
    weights = twin.state_dict()
    weights["output_adapters.rgb.out_project.weight"] = weights.pop("output_adapters.rgb.out_proj.weight")
    with pytest.raises(ConversionError, match="out_project"):
        config_for(from_state_dict(weights, stated=STATED))


def test_decoders_of_another_shape_start_anew(file: Path) -> None:
    _, report = _converted(load_foreign(file, STATED), decoder_hidden_size=32, decoder_num_attention_heads=4)
    assert report.new and all(name.startswith("decoder.") for name in report.new)
    assert any("decoder_hidden_size 48 (model: 32)" in reason for reason in report.new.values())


@pytest.mark.parametrize("told", [None, True, False])
def test_decoders_without_task_queries_are_not_taken_for_ours(twin: MultiMAETwin, told: bool | None) -> None:
    arguments = argparse.Namespace(**({} if told is None else {"decoder_use_task_queries": told}))
    _, report = _converted(from_state_dict({"model": twin.state_dict(), "args": arguments}, stated=STATED))
    assert bool(report.new) == (told is False)
    assert all("decoder_use_task_queries False" in reason for reason in report.new.values())
    assert any(line.startswith("assumed: decoder_use_task_queries") for line in report.facts) == (told is None)


def test_decoders_without_self_attention_start_anew(twin: MultiMAETwin) -> None:
    weights = {key: tensor for key, tensor in twin.state_dict().items() if ".decoder_transformer." not in key}
    _, report = _converted(from_state_dict(weights, stated=STATED))
    assert report.new and all("decoder_num_hidden_layers 0" in reason for reason in report.new.values())


def test_multimae_starts_from_mae_weights() -> None:
    """As MultiMAE's converter: the global token is class token plus position; final norm and decoder are left out."""
    original = original_mae(tiny_vitmae())
    checkpoint = from_state_dict(original)
    fields = mae_config().to_dict() | {"use_cls_token": False, "global_token": True, "encoder_norm": False}
    fields |= {"joint_encoding": True, "token_budget": 0.25, "decoder_kind": "per_target", "encoder_sharing": "shared"}
    known = {k: v for k, v in fields.items() if k in M33DConfig.__dataclass_fields__ and k != "transformers_version"}
    model = M33DForPreTraining(M33DConfig(**{**known, "modalities": None}))
    report = convert_state_dict(checkpoint, model)
    expected = original["cls_token"] + original["pos_embed"][:, :1]
    torch.testing.assert_close(model.m33d.global_token.detach(), expected)
    kernel = model.m33d.embeddings["depth"].projection.weight.detach()
    torch.testing.assert_close(kernel, original["patch_embed.proj.weight"].sum(dim=1, keepdim=True))
    assert all(name.startswith("decoder.targets.") for name in report.new)
    assert report.ignored["norm.weight"] == "the model's head reads the output of the blocks, before any final norm"
