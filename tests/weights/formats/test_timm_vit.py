"""ViTs of timm's names with learned positions -> our models: the same tokens and logits as written-out formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.foreign import mae_table
from helpers.plain_vit import draw, image_tokens, layer_norm, linear, norm_weights, random_vit
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.weights import (
    ConversionOptions,
    ConversionReport,
    config_for,
    convert_state_dict,
    from_state_dict,
    load_foreign,
)

HEADS, CLASSES = 4, 5
STATED: dict[str, Any] = {"num_attention_heads": HEADS}


def _pixels(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def _converted(
    weights: dict[str, Tensor], kind: Any = M33DModel, stated: dict[str, Any] = STATED, **overrides: Any
) -> tuple[Any, ConversionReport]:
    torch.manual_seed(1)
    checkpoint = from_state_dict(weights, stated=stated)
    model = kind(M33DConfig(**{**config_for(checkpoint), **overrides})).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) == set(weights)
    assert not set(report.used) & set(report.ignored)
    assert set(report.filled) | set(report.new) == set(model.state_dict())
    return model, report


def _head(weights: dict[str, Tensor], norm: str = "fc_norm") -> dict[str, Tensor]:
    """Fine-tuned by MAE's repository: pooled tokens are normed, the final norm is gone."""
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith("norm.")}
    head = draw({"head.weight": (CLASSES, 32), "head.bias": (CLASSES,)}, 9)
    return kept | norm_weights(norm, 32, 8) | head


@pytest.mark.parametrize("case", ["class row", "no_embed_class", "no class token"])
def test_tokens_are_those_of_the_formulas(case: str) -> None:
    token = case != "no class token"
    weights = random_vit(rows=17 if case == "class row" else 16, class_token=token)
    assert from_state_dict(weights).format == "timm_vit"
    model, report = _converted(weights)
    assert not report.new and not report.ignored
    assert model.config.use_cls_token == token and model.config.position_grid == [1, 4, 4]
    assert (model.config.image_size, model.config.position_embedding_type) == (32, "learned")
    with torch.no_grad():
        found = model(_pixels()).last_hidden_state.double()
    expected = layer_norm(image_tokens(_pixels(), weights, HEADS), weights, "norm")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_mae_fine_tuned_gives_its_logits(frozen: bool) -> None:
    """Positions near the fixed table: they were trained on, or frozen. Global pooling leaves the class token out."""
    weights = _head(random_vit())
    weights["pos_embed"] = mae_table(4, 4, 32) + (0.0 if frozen else 0.05) * weights["pos_embed"]
    model, report = _converted(weights, M33DForVideoClassification, num_labels=CLASSES)
    assert report.format == ("MAE (original)" if frozen else "ViT (timm's names: timm, DINO, MAE fine-tuned)")
    assert not report.new and set(report.ignored) == ({"pos_embed"} if frozen else set())
    pooled = image_tokens(_pixels(), weights, HEADS)[:, 1:].mean(1)
    expected = linear(layer_norm(pooled, weights, "fc_norm"), weights, "head")
    with torch.no_grad():
        found = model(_pixels()).logits.double()
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_fine_tuned_mae_continues_its_pretraining() -> None:
    model, report = _converted(_head(random_vit()), M33DForPreTraining)
    assert {key for key in report.ignored} == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    norms = {key for key in report.new if ".layernorm." in key and not key.startswith("decoder.")}
    assert len(norms) == 2 and any("normalises after pooling" in note for note in report.notes)
    assert all(key in norms or key.startswith("decoder.") for key in report.new)
    assert torch.isfinite(model(_pixels()).loss)


@pytest.mark.parametrize("probe", [True, False])
def test_heads_on_the_class_token_are_left_out(probe: bool) -> None:
    """MAE's linear probe (a batch norm without weights, then linear) and timm's supervised models."""
    weights = random_vit()
    head = draw({"head.weight": (CLASSES, 32), "head.bias": (CLASSES,)}, 9)
    if probe:
        head = {key.replace("head.", "head.1."): tensor for key, tensor in head.items()}
        head |= {"head.0.running_mean": torch.zeros(32), "head.0.running_var": torch.ones(32)}
        head["head.0.num_batches_tracked"] = torch.tensor(7)
    _, report = _converted(weights | head, M33DForVideoClassification, num_labels=CLASSES)
    assert set(head) < set(report.ignored)
    assert {key for key in report.new} == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    if not probe:
        assert "reads one token" in report.ignored["head.weight"]


def test_other_sizes_interpolate_the_positions_with_antialiasing() -> None:
    weights = random_vit()
    model, _ = _converted(weights, image_size=[40, 16])
    assert model.config.position_grid == [1, 4, 4]
    pixels = torch.randn(1, 3, 40, 16, generator=torch.Generator().manual_seed(5))
    maps = weights["pos_embed"][:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    maps = torch.nn.functional.interpolate(maps, size=(5, 2), mode="bicubic", align_corners=False, antialias=True)
    table = torch.cat([weights["pos_embed"][:, :1], maps.flatten(2).mT], dim=1)
    expected = layer_norm(image_tokens(pixels, weights | {"pos_embed": table}, HEADS), weights, "norm")
    with torch.no_grad():
        found = model(pixels).last_hidden_state.double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_grid_that_is_no_square_is_stated() -> None:
    weights = random_vit(rows=16)  # 3 x 5 and the class token
    weights["pos_embed"] = random_vit(rows=16, seed=4)["pos_embed"]
    with pytest.raises(ConversionError, match=r"positions.*--image_size HEIGHT WIDTH"):
        _converted({**weights, "pos_embed": torch.cat([weights["pos_embed"], weights["pos_embed"][:, :4]], dim=1)})
    wide = {**weights, "pos_embed": torch.cat([weights["pos_embed"], weights["pos_embed"][:, :3]], dim=1)}
    model, _ = _converted(wide, stated={**STATED, "image_size": [24, 48]})
    assert model.config.position_grid == [1, 3, 6]
    for size in (32, [24, 40]):
        with pytest.raises(ConversionError, match="do not match the image_size"):
            _converted(random_vit(rows=26), stated={**STATED, "image_size": size})


def test_dino_keeps_the_teacher(tmp_path: Any) -> None:
    weights = random_vit()
    head = draw({"mlp.0.weight": (8, 32), "mlp.0.bias": (8,), "last_layer.weight_v": (6, 8)}, 2)
    projection = {f"head.{key}": tensor for key, tensor in head.items()}
    teacher = {f"backbone.{key}": tensor for key, tensor in weights.items()} | projection
    student = {f"module.{key}": tensor + 1 for key, tensor in teacher.items()}
    checkpoint = from_state_dict({"student": student, "teacher": teacher, "epoch": 99}, stated=STATED)
    assert checkpoint.format == "timm_vit" and any("'teacher'" in note for note in checkpoint.notes)
    assert "teacher's" in checkpoint.ignored["student"]
    model = M33DModel(M33DConfig(**config_for(checkpoint))).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(projection) == {key for key in report.ignored if key.startswith("head.")}
    expected = layer_norm(image_tokens(_pixels(), weights, HEADS), weights, "norm")
    with torch.no_grad():
        found = model(_pixels()).last_hidden_state.double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_layer_scales_go_into_the_projections() -> None:
    weights = random_vit(rows=16)
    weights |= draw({f"blocks.{n}.ls{k}.gamma": (32,) for n in (0, 1) for k in (1, 2)}, 6)
    model, report = _converted(weights)
    assert len(report.ignored) == 4 and all("multiplied into" in reason for reason in report.ignored.values())
    expected = layer_norm(image_tokens(_pixels(), weights, HEADS), weights, "norm")
    with torch.no_grad():
        found = model(_pixels()).last_hidden_state.double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights["blocks.0.ls1.gamma"] = torch.ones(31)
    with pytest.raises(ConversionError, match=r"ls1\.gamma.*\(31,\).*cannot scale"):
        _converted(weights)


def test_dense_models_and_depth_start_from_it() -> None:
    weights = random_vit()
    config = {"segmentation_head_width": 8, "segmentation_head_depth": 1, "num_labels": 3}
    model, report = _converted(weights, M33DForSemanticSegmentation, **config)
    assert all(key.startswith("segmentation_head.") for key in report.new)
    with torch.no_grad():
        found = model.extract_features(_pixels())["rgb"].double()
    torch.testing.assert_close(found, image_tokens(_pixels(), weights, HEADS)[:, 1:], rtol=1e-5, atol=1e-5)


def test_positions_of_another_grid_are_refused_with_the_field() -> None:
    weights = random_vit()
    checkpoint = from_state_dict(weights, stated=STATED)
    config = M33DConfig(**{**config_for(checkpoint), "image_size": 48, "position_grid": None})
    with pytest.raises(ConversionError, match=r"grid of \[1, 4, 4\], but the model's are on \[1, 6, 6\].*_grid"):
        convert_state_dict(checkpoint, M33DModel(config))
    fixed = M33DConfig(**{**config_for(checkpoint), "position_embedding_type": "sincos_2d"})
    with pytest.raises(ConversionError, match="Set position_embedding_type='learned'"):
        convert_state_dict(checkpoint, M33DModel(fixed))


@pytest.mark.parametrize("inflate", ["average", "center"])
def test_an_image_kernel_in_a_clip_model(inflate: str) -> None:
    """Places keep their positions, moments start at zero: a still clip gives the tokens of its image in every slot."""
    weights = random_vit(layers=1, class_token=False, rows=16)
    checkpoint = from_state_dict(weights, stated=STATED)
    clip = {"num_frames": 4, "tubelet_size": 2, "position_grid": [2, 4, 4]}
    model = M33DModel(M33DConfig(**{**config_for(checkpoint), **clip})).eval()
    report = convert_state_dict(checkpoint, model, ConversionOptions(inflate=inflate))  # type: ignore[arg-type]
    assert not report.new and "have no time axis" in report.filled["positions.temporal"]
    with torch.no_grad():
        tokens = model(_pixels()[:, None].expand(-1, 4, -1, -1, -1)).last_hidden_state
    torch.testing.assert_close(tokens[:, :16], tokens[:, 16:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.positions.spatial.detach(), weights["pos_embed"][0])


def _timm_model(name: str, **changes: Any) -> Any:
    timm = pytest.importorskip("timm")
    torch.manual_seed(4)
    sizes = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": HEADS, "patch_size": 8, "num_classes": CLASSES}
    model = timm.create_model(name, pretrained=False, **{**sizes, **changes}).eval()
    generator = torch.Generator().manual_seed(5)
    for key, parameter in model.named_parameters():
        noise = 0.2 * torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(1 + noise if "norm" in key and key.endswith("weight") else noise)
    return model


@pytest.mark.extras
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", {}),
        ("vit_base_patch16_224.mae", {"num_classes": 0}),
        ("vit_small_patch16_224.dino", {"num_classes": 0}),
        ("deit_base_patch16_224.fb_in1k", {}),
        ("vit_base_patch16_224", {"global_pool": "avg", "class_token": True, "fc_norm": True}),
        ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
        ("vit_base_patch16_224", {"no_embed_class": True, "init_values": 0.1}),
        ("vit_base_patch16_224", {"qkv_bias": False}),
    ],
)
def test_timm_itself(name: str, changes: dict[str, Any]) -> None:
    """timm's own forward, also at a size where it resamples the positions."""
    theirs = _timm_model(name, dynamic_img_size=True, **changes)
    pooled = bool(changes.get("fc_norm"))
    kind = M33DForVideoClassification if pooled else M33DModel
    model, report = _converted(dict(theirs.state_dict()), kind, num_labels=CLASSES)
    assert not report.new
    for side in (32, 48, 24):
        with torch.no_grad():
            pixels = _pixels(side)
            found = model(pixels).logits if pooled else model(pixels).last_hidden_state
            expected = theirs(pixels) if pooled else theirs.forward_features(pixels)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.extras
@pytest.mark.parametrize("changes", [{}, {"class_token": False, "global_pool": "avg", "fc_norm": False}])
def test_timms_registers(changes: dict[str, Any]) -> None:
    """As in timm's DINOv2 with registers: positions have no row for the class token."""
    theirs = _timm_model("vit_base_patch16_224", no_embed_class=True, reg_tokens=3, dynamic_img_size=True, **changes)
    model, report = _converted(dict(theirs.state_dict()), num_labels=CLASSES)
    assert not report.new and model.config.num_register_tokens == 3
    first = int(model.config.use_cls_token)
    for side in (32, 48, 24):
        with torch.no_grad():
            pixels = _pixels(side)
            found, expected = model(pixels).last_hidden_state, theirs.forward_features(pixels)
        expected = torch.cat([expected[:, :first], expected[:, first + 3 :]], dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"pre_norm": True}, "norm before the first block"),
        ({"qk_norm": True}, "normalises queries and keys"),
    ],
)
def test_other_vits_of_timm_are_refused(changes: dict[str, Any], needed: str) -> None:
    with pytest.raises(ConversionError, match=needed):
        from_state_dict(dict(_timm_model("vit_base_patch16_224", **changes).state_dict()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.norm2.bias": None}, "1 weight of the model is not in"),
        ({"pos_embed": None}, "has no position table"),
        ({"blocks.1.attn.gate.weight": torch.zeros(3)}, r"1 of \d+ keys cannot be explained.*gate"),
        ({"blocks.1.mlp.fc2.bias": torch.zeros(31)}, r"\(32,\) in the model but \(31,\)"),
        ({"pos_embed": torch.ones(1, 17, 31)}, r"31 wide, but the class token has shape \(1, 1, 32\)"),
    ],
)
def test_missing_surplus_and_misshapen_keys(change: dict[str, Tensor | None], message: str) -> None:
    weights = {key: tensor for key, tensor in {**random_vit(), **change}.items() if tensor is not None}
    with pytest.raises(ConversionError, match=message):
        _converted(weights, stated={**STATED, "image_size": 32})


@pytest.mark.extras
@pytest.mark.parametrize("fixed", [True, False])
def test_a_folder_as_timm_publishes_it(fixed: bool, tmp_path: Path) -> None:
    """Weights beside timm's own config.json, which knows no heads; MAE's positions in it stay the fixed table."""
    hub = pytest.importorskip("timm.models")
    theirs = _timm_model("vit_base_patch16_224.mae", num_classes=0, pos_embed="learn")
    if fixed:
        theirs.pos_embed.data.copy_(mae_table(4, 4, 32))
    hub.save_for_hf(theirs, tmp_path)
    checkpoint = load_foreign(tmp_path, STATED)
    assert checkpoint.format == ("mae" if fixed else "timm_vit")
    model = M33DModel(M33DConfig(**config_for(checkpoint))).eval()
    report = convert_state_dict(checkpoint, model)
    assert not report.new and set(report.ignored) == ({"pos_embed"} if fixed else set())
    with torch.no_grad():
        found, expected = model(_pixels()).last_hidden_state, theirs.forward_features(_pixels())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
