"""ONNX files of the three task models in onnxruntime, at other sizes than those of the export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.exports import CLASSIFIER, saved
from m33d_hf import M33DForDepthEstimation, M33DForSemanticSegmentation, M33DForVideoClassification
from m33d_hf.errors import ConfigError, ExportError, MissingDependencyError
from m33d_hf.weights.export import ExportOptions, export_model
from m33d_hf.weights.export.onnx_files import write_half
from m33d_hf.weights.export.source import Source

SEGMENTER: dict[str, Any] = {"num_labels": 5, "segmentation_head_width": 16, "segmentation_head_depth": 1}
CASES: list[tuple[type, dict[str, Any], str]] = [
    (M33DForSemanticSegmentation, {**SEGMENTER, "position_embedding_resize": "rebuild"}, "logits"),
    (M33DForDepthEstimation, {"num_hidden_layers": 4, "depth_head_width": 16, "width": 0.02}, "predicted_depth"),
    (
        M33DForDepthEstimation,
        {"num_hidden_layers": 4, "depth_head_width": 16, "width": 0.02, "depth_prior_weight": 0.5},
        "predicted_depth",
    ),
    (M33DForVideoClassification, CLASSIFIER, "logits"),
]


@pytest.mark.extras
@pytest.mark.parametrize(("kind", "overrides", "output"), CASES)
def test_onnxruntime_agrees_at_three_sizes_and_two_batches(
    tmp_path: Path, kind: type, overrides: dict[str, Any], output: str
) -> None:
    import onnxruntime

    own = saved(kind, tmp_path / "own", **overrides)
    export_model(str(tmp_path / "own"), tmp_path / "out", "onnx")
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("pixel_values", told["inputs"][0]["shape"], "tensor(float)")
    assert taken.name == output == told["output"]["name"]
    lead = (4, 3) if kind is M33DForVideoClassification else (3,)
    for batch in (1, 3):
        for height, width in ((32, 32), (24, 64), (56, 40)):
            pixels = torch.randn(batch, *lead, height, width)
            with torch.no_grad():
                expected = own(pixel_values=pixels)[output].numpy()
            found = session.run(None, {"pixel_values": pixels.numpy()})[0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert told["opset"] == 20 and set(told["versions"]) >= {"torch", "onnx", "onnxruntime"}
    half = onnxruntime.InferenceSession(str(tmp_path / "out" / "model_fp16.onnx"))
    assert half.get_inputs()[0].type == half.get_outputs()[0].type == "tensor(float)"
    off = np.abs(half.run(None, {"pixel_values": pixels.numpy()})[0] - expected).max() / np.abs(expected).max()
    assert 1e-5 < off < 0.05
    for measured in ("differences", "activations"):
        assert 1e-5 < max(each["relative"] for each in told["float16"][measured]) < 0.05
    sizes = [(tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model_fp16.onnx")]
    assert sizes[1] < 0.8 * sizes[0]
    for name in ("model.onnx", "model_fp16.onnx"):  # says nothing of this machine
        assert b".py" not in (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1e6, "projection.weight holds values that are too large"), (3e4, "in float16: .*NaN or infinity")],
)
def test_what_float16_cannot_hold_is_refused(tmp_path: Path, factor: float, words: str) -> None:
    own = saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER, num_hidden_layers=1)
    with torch.no_grad():
        own.m33d.embeddings["rgb"].projection.weight *= factor
    source = Source("the model", tmp_path / "own", "M33DForVideoClassification", own)
    with pytest.raises(ExportError, match=f"{words}.*--no_fp16"):
        write_half(source, None, tmp_path, apart=False)


def test_without_the_packages_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"m33d-hf\[export\]"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_an_opset_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="opset is 12; it must be from 18 to 23"):
        export_model(str(tmp_path), tmp_path / "out", "onnx", ExportOptions(opset=12))
