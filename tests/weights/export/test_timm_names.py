"""Exports under timm's names, against timm's own model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.exports import CLASSIFIER, saved
from helpers.tiny import MULTIMAE
from m33d_hf import M33DForDepthEstimation, M33DForPreTraining, M33DForSemanticSegmentation, M33DForVideoClassification
from m33d_hf.errors import ExportError, MissingDependencyError
from m33d_hf.weights.export import export_model
from m33d_hf.weights.export.timm_names import build_timm, mlp_ratio

CASES: list[tuple[type, dict[str, Any]]] = [
    (M33DForSemanticSegmentation, {"num_labels": 5}),
    (M33DForDepthEstimation, {"num_hidden_layers": 4, "head_norm": True, "use_cls_token": False}),
    (M33DForSemanticSegmentation, {**MULTIMAE, "num_labels": 5, "qkv_bias": False, "layer_norm_eps": 1e-5}),
    (M33DForPreTraining, {"num_register_tokens": 3, "position_embedding_type": "learned", "image_size": [32, 48]}),
]


@pytest.mark.extras
@pytest.mark.parametrize(("kind", "overrides"), CASES)
def test_timm_computes_the_same(tmp_path: Path, kind: type, overrides: dict[str, Any]) -> None:
    own = saved(kind, tmp_path / "own", **overrides)
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "timm")
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    theirs = build_timm(told["arguments"], told["layer_norm_eps"])
    theirs.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    picture = torch.randn(2, 3, *own.config.image_height_width)
    last = own.config.num_hidden_layers - 1
    with torch.no_grad():
        states, _ = own.m33d.forward_intermediates(picture, [last])
        expected = own.m33d.encoders[own.config.encoder_name(own.config.spec("rgb"))].normed(states[0])
        found = theirs.forward_features(picture)[:, -expected.shape[1] :]  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert max(each["relative"] for each in report["differences"]) <= 1e-5
    heads = {M33DForSemanticSegmentation: "segmentation_head.", M33DForDepthEstimation: "depth_head."}
    head = heads.get(kind, "decoder.")
    assert any(part.startswith(head) for part in report["left_out"])


@pytest.mark.extras
def test_a_plain_encoder_fits_a_model_that_timm_knows_by_name(tmp_path: Path) -> None:
    import timm

    sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_hidden_layers": 12}
    own = saved(M33DForPreTraining, tmp_path / "own", **{**sizes, "image_size": 224, "patch_size": 16})
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "timm")
    assert max(each["relative"] for each in report["differences"]) < 1e-12
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="").eval()
    theirs.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    picture = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found, expected = theirs(picture), own.m33d(pixel_values=picture).last_hidden_state
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_timm_gets_every_inner_width_back() -> None:
    """It computes int(hidden * ratio), and 28 * (244 / 28) is a little less than 244."""
    assert int(28 * (244 / 28)) == 243
    for hidden in range(4, 200, 4):
        for inner in range(1, 1000, 3):
            assert int(hidden * mlp_ratio(hidden, inner)) == inner
    assert mlp_ratio(192, 768) == 4.0


@pytest.mark.parametrize(
    ("kind", "overrides", "words"),
    [
        (M33DForVideoClassification, CLASSIFIER, "num_frames is 4 and tubelet_size 2"),
        (M33DForSemanticSegmentation, {"num_labels": 5, "hidden_act": "silu"}, "hidden_act is 'silu'"),
    ],
)
def test_what_timm_cannot_hold_is_named(tmp_path: Path, kind: type, overrides: dict[str, Any], words: str) -> None:
    saved(kind, tmp_path / "own", **overrides)
    with pytest.raises(ExportError, match=words):
        export_model(str(tmp_path / "own"), tmp_path / "out", "timm")


def test_without_timm_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    saved(M33DForSemanticSegmentation, tmp_path / "own", num_labels=5)
    monkeypatch.setitem(sys.modules, "timm.models.vision_transformer", None)
    with pytest.raises(MissingDependencyError, match=r"m33d-hf\[export\]"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "timm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]
