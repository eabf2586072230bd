"""torch.export of the task models for any batch, height and width, and positions that a graph computes itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.exports import CLASSIFIER, saved
from helpers.tiny import MULTIMAE
from m33d_hf import (
    M33DForDepthEstimation,
    M33DForPreTraining,
    M33DForSemanticSegmentation,
    M33DForVideoActionDetection,
    M33DForVideoClassification,
)
from m33d_hf.acceleration import accelerate_cpu
from m33d_hf.acceleration.linear import CPULinear
from m33d_hf.errors import ExportError
from m33d_hf.modeling.patches_m33d import position_table, position_table_of_symbols
from m33d_hf.weights.export import export_model
from m33d_hf.weights.export.graphs import build_program, input_shape, tried_shapes
from m33d_hf.weights.export.source import load_source

SEGMENTER: dict[str, Any] = {"num_labels": 5, "segmentation_head_width": 16, "segmentation_head_depth": 1}


@pytest.mark.parametrize("kind", ["sincos_2d", "sincos_1d"])
def test_positions_in_a_graph_are_those_of_eager(kind: str) -> None:
    for grid in ((1, 2, 3), (1, 14, 14), (8, 14, 14) if kind == "sincos_1d" else (1, 37, 5)):
        found = position_table_of_symbols(kind, grid, 96)
        torch.testing.assert_close(found, position_table(kind, grid, 96), rtol=0, atol=1e-7)


@pytest.mark.slow
def test_a_program_is_reloaded_at_other_sizes(tmp_path: Path) -> None:
    own = saved(M33DForSemanticSegmentation, tmp_path / "own", **SEGMENTER, position_embedding_resize="rebuild")
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "torch_export")
    module = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for size in ((1, 3, 32, 32), (3, 3, 64, 24), (2, 3, 16, 40)):
        picture = torch.randn(size)
        with torch.no_grad():
            expected = own(pixel_values=picture).logits
        torch.testing.assert_close(module(pixel_values=picture)["logits"], expected, rtol=1e-5, atol=1e-5)
    assert b"_m33d.py" not in (tmp_path / "out" / "model.pt2").read_bytes()  # lines of files on this machine
    with pytest.raises(AssertionError):
        module(pixel_values=torch.randn(1, 3, 36, 32))  # no multiple of the patch
    sizes = {tuple(each["input"]) for each in report["differences"]}
    assert len({size[-2:] for size in sizes}) == 3 and {size[0] for size in sizes} == {1, 3}
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    (given,) = told["inputs"]
    assert given["name"] == "pixel_values" and given["shape"] == ["batch", 3, "height", "width"]
    assert given["height"] == {"multiple_of": 8, "at_least": 16, "trained": 32}
    assert told["output"]["unit"] == "logits" and len(told["classes"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{**MULTIMAE}, {"position_embedding_type": "learned", "num_register_tokens": 2}])
def test_other_tokens_and_positions_export(tmp_path: Path, overrides: dict[str, Any]) -> None:
    own = saved(M33DForSemanticSegmentation, tmp_path / "own", **SEGMENTER, **overrides)
    module = build_program(load_source(str(tmp_path / "own"))).module()
    for shape in ((2, 3, 32, 32), (1, 3, 16, 48)):
        picture = torch.randn(shape)
        with torch.no_grad():
            expected = own(pixel_values=picture).logits
        torch.testing.assert_close(module(pixel_values=picture)["logits"], expected, rtol=1e-5, atol=1e-5)


def test_kernels_of_a_run_do_not_reach_exports(tmp_path: Path) -> None:
    own = accelerate_cpu(saved(M33DForVideoClassification, tmp_path / "first", **CLASSIFIER))
    assert any(type(module) is CPULinear for module in own.modules())
    own.save_pretrained(tmp_path / "own")
    model = load_source(str(tmp_path / "own")).model
    assert model.config._attn_implementation == "sdpa"
    assert not [module for module in model.modules() if isinstance(module, CPULinear)]
    linear = [module.linear for module in model.modules() if hasattr(module, "linear")]
    assert linear and all(function is torch.nn.functional.linear for function in linear)


def test_tried_sizes_differ_where_the_model_allows(tmp_path: Path) -> None:
    saved(M33DForDepthEstimation, tmp_path / "own", num_hidden_layers=4)
    source = load_source(str(tmp_path / "own"))
    sizes = {tuple(shape[-2:]) for shape in tried_shapes(source)}
    assert len(sizes) == 3 and min(min(size) for size in sizes) == 24
    assert input_shape(source, 1, 3, 4) == [1, 3, 24, 32]


@pytest.mark.parametrize("form", ["torch_export", "onnx"])
@pytest.mark.parametrize(
    ("kind", "overrides", "words"),
    [
        (M33DForPreTraining, {}, "pre-training draws random masks and sorts by them"),
        (M33DForVideoActionDetection, CLASSIFIER, "load it with M33DForVideoClassification"),
    ],
)
def test_what_is_no_task_model_is_refused(
    tmp_path: Path, form: str, kind: type, overrides: dict[str, Any], words: str
) -> None:
    saved(kind, tmp_path / "own", **overrides)
    with pytest.raises(ExportError, match=words):
        export_model(str(tmp_path / "own"), tmp_path / "deep" / "out", form)
    assert not (tmp_path / "deep").exists()


@pytest.mark.slow
def test_a_program_runs_without_this_package(tmp_path: Path) -> None:
    saved(M33DForDepthEstimation, tmp_path / "own", num_hidden_layers=4, depth_head_width=16)
    export_model(str(tmp_path / "own"), tmp_path / "out", "torch_export")
    code = (
        "import sys; sys.modules['m33d_hf'] = None; sys.modules['transformers'] = None; import torch;"
        f"m = torch.export.load({str(tmp_path / 'out' / 'model.pt2')!r}).module();"
        "print(tuple(m(pixel_values=torch.zeros(1, 3, 40, 24))['predicted_depth'].shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 40, 24)", done.stderr[-2000:]


@pytest.mark.slow
def test_a_program_draws_predictions_towards_the_mean_depth_at_any_size(tmp_path: Path) -> None:
    own = saved(M33DForDepthEstimation, tmp_path / "own", num_hidden_layers=4, depth_head_width=16, width=0.02,
                depth_prior_weight=0.5)  # fmt: skip
    own.depth_prior.fill(1 + torch.rand(32, 32))
    own.save_pretrained(tmp_path / "own")
    module = build_program(load_source(str(tmp_path / "own"))).module()
    for size in ((1, 3, 32, 32), (3, 3, 64, 24), (2, 3, 24, 40)):
        picture = torch.randn(size)
        with torch.no_grad():
            expected = own(pixel_values=picture).predicted_depth
        torch.testing.assert_close(module(pixel_values=picture)["predicted_depth"], expected, rtol=1e-5, atol=1e-5)
