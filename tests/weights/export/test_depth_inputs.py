"""Graphs of models that see RGB and depth: both by name, holes and missing depth as in the model, and one alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.exports import CLASSIFIER, saved
from m33d_hf import M33DForDepthEstimation, M33DForSemanticSegmentation, M33DForVideoClassification, M33DModel
from m33d_hf.errors import ConfigError, ExportError
from m33d_hf.modeling.modalities_m33d import depth_modality
from m33d_hf.scripts.export_model import main
from m33d_hf.weights.export import ExportOptions, export_model
from m33d_hf.weights.export.graphs import build_program
from m33d_hf.weights.export.source import load_source

SEGMENTER: dict[str, Any] = {"num_labels": 5, "segmentation_head_width": 16, "segmentation_head_depth": 1}
KINDS: dict[type, dict[str, Any]] = {M33DForSemanticSegmentation: SEGMENTER, M33DForVideoClassification: CLASSIFIER}
RGBD = {"task_inputs": ["rgb", "depth"]}
WAYS: list[dict[str, Any]] = [
    {"task_fusion": "sum"},
    {"task_fusion": "concatenation"},
    {"task_fusion": "cross_attention"},
    {"encoder_sharing": "shared", "num_register_tokens": 2},
]


def pictures(kind: type, batch: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """RGB and depth with a hole; the depth of the second sample is missing."""
    frames = (4,) if kind is M33DForVideoClassification else ()
    depth = torch.randn(batch, *frames, 1, height, width)
    depth[..., 3:21, : width // 2] = math.nan
    depth[1:2] = math.nan
    return {"pixel_values": torch.randn(batch, *frames, 3, height, width), "depth_values": depth}


def masked(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same depth as a processor gives it: zeros in holes, and a mask."""
    depth = given["depth_values"]
    return {**given, "depth_values": depth.nan_to_num(0.0), "depth_mask": depth.isfinite()}


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (M33DForSemanticSegmentation, WAYS[0]),
        (M33DForVideoClassification, WAYS[3]),
        *(pytest.param(kind, way, marks=pytest.mark.slow) for kind in KINDS for way in WAYS[1:3]),
    ],
)
def test_a_program_takes_both_at_other_sizes(kind: type, way: dict[str, Any], tmp_path: Path) -> None:
    own = saved(kind, tmp_path / "own", **KINDS[kind], **RGBD, **way)
    module = build_program(load_source(str(tmp_path / "own"))).module()
    for batch, height, width in ((1, 32, 32), (3, 24, 64)):
        given = pictures(kind, batch, height, width)
        with torch.no_grad():
            expected = own(**masked(given)).logits
            found = module(**given)["logits"]
            alone = own(pixel_values=given["pixel_values"]).logits
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found[0], alone[0], atol=1e-2), "depth counts"
        torch.testing.assert_close(found[1:2], alone[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.extras
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(next(iter(way.values()))))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_onnxruntime_takes_both(kind: type, way: dict[str, Any], tmp_path: Path) -> None:
    import onnxruntime

    own = saved(kind, tmp_path / "own", **KINDS[kind], **RGBD, **way)
    export_model(str(tmp_path / "own"), tmp_path / "out", "onnx")
    told = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    inputs = {each.name: each.shape for each in session.get_inputs()}
    assert inputs == {each["name"]: each["shape"] for each in told["inputs"]}
    lead = ["batch", 4] if kind is M33DForVideoClassification else ["batch"]
    assert inputs == {"pixel_values": [*lead, 3, "height", "width"], "depth_values": [*lead, 1, "height", "width"]}
    half = onnxruntime.InferenceSession(str(tmp_path / "out" / "model_fp16.onnx"))
    for batch, height, width in ((1, 32, 32), (3, 24, 64)):
        given = pictures(kind, batch, height, width)
        arrays = {name: each.numpy() for name, each in given.items()}
        with torch.no_grad():
            expected = own(**masked(given)).logits.numpy()
        np.testing.assert_allclose(session.run(None, arrays)[0], expected, rtol=1e-4, atol=1e-4)
        assert 1e-5 < np.abs(half.run(None, arrays)[0] - expected).max() / np.abs(expected).max() < 0.05
    assert told["inputs"][1]["standardization"] == "trimmed" and "NaN" in told["inputs"][1]["meaning"]


@pytest.mark.parametrize("name", ["rgb", "depth"])
def test_one_of_the_two_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = saved(M33DForSemanticSegmentation, tmp_path / "own", **SEGMENTER, **RGBD)
    words = ["--input", str(tmp_path / "own"), "--output", str(tmp_path / "out"), "--to", "torch_export"]
    assert main([*words, "--inputs", name]) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    argument = {"rgb": "pixel_values", "depth": "depth_values"}[name]
    assert [each["name"] for each in told["inputs"]] == [argument]
    given = {argument: pictures(M33DForSemanticSegmentation, 2, 24, 40)[argument]}
    module = torch.export.load(tmp_path / "out" / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(module(**given)["logits"], own(**given).logits, rtol=1e-5, atol=1e-5)


def test_a_model_of_depth_alone_is_a_graph_of_depth(tmp_path: Path) -> None:
    own = saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER, task_inputs=["depth"])
    module = build_program(load_source(str(tmp_path / "own"))).module()
    given = {"depth_values": pictures(M33DForVideoClassification, 3, 24, 40)["depth_values"]}
    with torch.no_grad():
        torch.testing.assert_close(module(**given)["logits"], own(**given).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(ExportError, match=r"sees depth alone .*, but stock classes see RGB; --to onnx and"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")


@pytest.mark.parametrize(
    ("kind", "fields", "form", "inputs", "message"),
    [
        (M33DForSemanticSegmentation, SEGMENTER, "onnx", ["depth"], r"must be among those of the model, \['rgb'\]"),
        (M33DForDepthEstimation, {"num_hidden_layers": 4}, "onnx", ["rgb", "depth"], r"among those .* \['rgb'\]"),
        (M33DForSemanticSegmentation, {**SEGMENTER, **RGBD}, "onnx", ["rgb", "rgb"], "each once"),
        (M33DForSemanticSegmentation, {**SEGMENTER, **RGBD}, "timm", ["rgb"], "timm takes RGB alone: leave them out"),
        (
            M33DForSemanticSegmentation,
            {**SEGMENTER, **RGBD, "task_fusion": "cross_attention"},
            "torch_export",
            ["depth"],
            "RGB asks the questions",
        ),
    ],
)
def test_inputs_that_cannot_be_are_refused(
    kind: type, fields: dict[str, Any], form: str, inputs: list[str], message: str, tmp_path: Path
) -> None:
    saved(kind, tmp_path / "own", **fields)
    with pytest.raises(ConfigError, match=message):
        export_model(str(tmp_path / "own"), tmp_path / "out", form, ExportOptions(inputs=inputs))
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_rgb_is_refused(tmp_path: Path) -> None:
    saved(M33DModel, tmp_path / "own", modalities=[depth_modality()])
    with pytest.raises(ExportError, match="has no RGB encoder"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "timm")


def test_a_stock_classifier_has_no_layer_that_concatenates(tmp_path: Path) -> None:
    clips = {**CLASSIFIER, **RGBD}
    saved(M33DForVideoClassification, tmp_path / "own", **clips, task_fusion="concatenation")
    with pytest.raises(ExportError, match=r"task_fusion is 'concatenation', whose linear layer .* --to onnx"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    saved(M33DForVideoClassification, tmp_path / "sum", **clips, task_fusion="sum", layer_norm_eps=1e-5)
    report = export_model(str(tmp_path / "sum"), tmp_path / "stock", "transformers")
    assert "task_fusion.scale" in report["left_out"] and max(each["relative"] for each in report["differences"]) < 1e-5
