"""Fine-tuned MultiMAE -> our dense models, heads included: predictions are those of an independently written twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.multimae_heads_twin import MultiMAEHeadsTwin
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.weights import ConversionReport, config_for, convert_state_dict, from_state_dict
from m33d_hf.weights.formats.layout import translate
from m33d_hf.weights.formats.multimae import TABLE
from m33d_hf.weights.formats.multimae_heads import head_fields

STATED: dict[str, Any] = {"num_attention_heads": 4}


def _twin(task: str, **changes: Any) -> MultiMAEHeadsTwin:
    return MultiMAEHeadsTwin(task, **changes).eval()


def _pixels(side: int = 64) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def _converted(weights: dict[str, Tensor], kind: Any, **overrides: Any) -> tuple[Any, ConversionReport]:
    torch.manual_seed(1)
    checkpoint = from_state_dict({"model": weights}, stated=STATED)
    fields = {**config_for(checkpoint), **head_fields(translate(weights, TABLE)), **overrides}
    model = kind(M33DConfig(**fields)).eval()
    report = convert_state_dict(checkpoint, model)
    assert set(report.used) | set(report.ignored) == set(weights)
    assert not set(report.used) & set(report.ignored)
    assert set(report.filled) | set(report.new) == set(model.state_dict())
    return model, report


@pytest.mark.parametrize("side", [64, 96])
def test_segmentation_logits_are_theirs(side: int) -> None:
    twin = _twin("semseg")
    model, report = _converted(twin.weights(), M33DForSemanticSegmentation)
    assert not report.new
    assert all(key.endswith("pos_emb") for key in report.ignored)
    assert (model.config.segmentation_head_width, model.config.segmentation_head_depth) == (6, 2)
    assert (model.config.segmentation_head_upscale, model.config.num_labels) == (4, 5)
    with torch.no_grad():
        found, expected = model(_pixels(side)).logits, twin(_pixels(side))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("side", [64, 96])
def test_depth_is_theirs(side: int) -> None:
    twin = _twin("depth")
    model, report = _converted(twin.weights(), M33DForDepthEstimation)
    assert not report.new
    twice = {key for key in report.ignored if "act_postprocess" in key or "layer_rn" in key}
    idle = {key for key in report.ignored if "refinenet4.resConfUnit1" in key}
    assert len(twice) == 18 and len(idle) == 4
    assert all(key.endswith("pos_emb") for key in set(report.ignored) - twice - idle)
    assert (model.config.depth_head_width, model.config.depth_head_stem_channels) == (256, [4, 6, 10, 12])
    with torch.no_grad():
        found, expected = model(_pixels(side)).standardized_depth, twin(_pixels(side))
    assert expected.std() > 0.1
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-5, atol=1e-5)


def test_other_classes_leave_the_last_layer_fresh() -> None:
    twin = _twin("semseg")
    _, report = _converted(twin.weights(), M33DForSemanticSegmentation, num_labels=7)
    assert set(report.new) == {"segmentation_head.classifier.weight", "segmentation_head.classifier.bias"}
    assert all("has 5 classes, but the model has 7" in reason for reason in report.new.values())
    assert {"output_adapters.semseg.final_layer.weight", "output_adapters.semseg.final_layer.bias"} <= set(
        report.ignored
    )


@pytest.mark.parametrize("key", ["blocks.0.gamma", "width"])
def test_a_head_that_computes_something_else_is_left_out_whole(key: str) -> None:
    weights = _twin("semseg").weights()
    if key == "width":
        _, report = _converted(weights, M33DForSemanticSegmentation, segmentation_head_width=8)
    else:
        weights[f"output_adapters.semseg.{key}"] = torch.ones(6)
        _, report = _converted(weights, M33DForSemanticSegmentation)
    assert report.new and all(name.startswith("segmentation_head.") for name in report.new)
    assert "a head of a different shape" in report.ignored["output_adapters.semseg.proj_dec.weight"]


def test_batch_norms_make_another_depth_head() -> None:
    weights = _twin("depth").weights()
    names = [f"output_adapters.depth.scratch.refinenet2.resConfUnit2.bn1.{leaf}" for leaf in ("weight", "bias")]
    weights |= {name: torch.ones(256) for name in names}
    _, report = _converted(weights, M33DForDepthEstimation)
    assert report.new and all(name.startswith("depth_head.") for name in report.new)


def test_the_head_of_another_task_is_left_out() -> None:
    _, report = _converted(_twin("semseg").weights(), M33DForDepthEstimation)
    assert all(reason == "the checkpoint has no depth_head" for reason in report.new.values())
    assert "this model has no segmentation_head" in report.ignored["output_adapters.semseg.proj_dec.weight"]


def test_a_head_trained_beside_depth_is_taken_with_a_note() -> None:
    _, report = _converted(_twin("semseg", depth_input=True).weights(), M33DForSemanticSegmentation)
    assert not report.new and any("also attended to depth" in note for note in report.notes)


def test_a_missing_weight_of_the_encoder_still_fails() -> None:
    weights = _twin("semseg").weights()
    weights.pop("encoder.1.norm2.bias")
    with pytest.raises(ConversionError, match="1 weight of the model is not in"):
        _converted(weights, M33DForSemanticSegmentation)
