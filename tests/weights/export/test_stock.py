"""Exports to stock transformers classes: what is written is loaded by transformers alone and compared with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForVideoClassification,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    ViTModel,
)

from helpers.exports import CLASSIFIER, saved
from helpers.tiny import CLIP, MULTIMAE
from m33d_hf import (
    M33DForDepthEstimation,
    M33DForPreTraining,
    M33DForSemanticSegmentation,
    M33DForVideoActionDetection,
    M33DForVideoClassification,
    M33DModel,
)
from m33d_hf.errors import ExportError
from m33d_hf.weights.export import export_model


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


def test_a_clip_classifier_is_a_videomae_classifier(tmp_path: Path) -> None:
    labels = {0: "cut", 1: "sew", 2: "rinse"}
    own = saved(M33DForVideoClassification, tmp_path / "own", **CLIP, id2label=labels, layer_norm_eps=1e-5)
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    theirs = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").eval()
    assert type(theirs) is VideoMAEForVideoClassification and theirs.config.id2label == labels
    clip = pixels(2, 4, 3, 32, 32)
    with torch.no_grad():
        expected, found = own(pixel_values=clip).logits, theirs(pixel_values=clip).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert report["key_biases_dropped"] == 2 and report["left_out"] == []
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == json.loads(json.dumps(report))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_the_key_bias_that_is_dropped_was_there(tmp_path: Path) -> None:
    own = saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER, layer_norm_eps=1e-5)
    export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert not [name for name in names if "key" in name and name.endswith("bias")]
    biases = own.m33d.encoders["rgb"].layers[0].attention.qkv.bias.detach()
    assert float(biases[32:64].abs().min()) > 0  # the key's third
    clip = pixels(2, 4, 3, 32, 32)
    with torch.no_grad():
        before = own(pixel_values=clip).logits
        biases[32:64] = 0
        torch.testing.assert_close(own(pixel_values=clip).logits, before, rtol=1e-5, atol=1e-5)
        biases[:32] = 0  # the query's matters, so the comparison could have failed
        assert float((own(pixel_values=clip).logits - before).abs().max()) > 1e-3


def test_another_epsilon_of_the_pooled_norm_is_refused_by_name_where_it_shows(tmp_path: Path) -> None:
    own = M33DForVideoClassification.from_pretrained
    saved(M33DForVideoClassification, tmp_path / "own", **CLASSIFIER, layer_norm_eps=1e-1)
    assert own(tmp_path / "own").config.layer_norm_eps == 1e-1
    with pytest.raises(ExportError, match="epsilon of 1e-05, which no field changes; this model has layer_norm_eps"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


@pytest.mark.parametrize("kind", [M33DForPreTraining, M33DModel])
def test_the_rgb_encoder_of_clips_is_a_videomae_model(tmp_path: Path, kind: type) -> None:
    own = saved(kind, tmp_path / "own", **CLIP, qkv_bias=kind is M33DModel)
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    theirs = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert type(theirs) is VideoMAEModel
    clip = pixels(2, 4, 3, 32, 32)
    with torch.no_grad():
        encoders = own.m33d if kind is M33DForPreTraining else own
        expected = encoders(pixel_values=clip).last_hidden_state
        found = theirs(pixel_values=clip).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    left = ["embeddings.depth", "encoders.depth"]
    assert [part for part in report["left_out"] if part in left] == (left if kind is M33DForPreTraining else [])


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (M33DForPreTraining, {}),
        (M33DForPreTraining, {"encoder_sharing": "shared", "image_size": [32, 48], "position_grid": [1, 6, 6]}),
        (M33DForSemanticSegmentation, {"head_norm": True, "num_labels": 5}),
        (M33DForDepthEstimation, {"head_norm": True, "num_hidden_layers": 4, "position_embedding_type": "learned"}),
        (M33DForPreTraining, MULTIMAE | {"encoder_norm": True}),
    ],
)
def test_image_encoders_are_vit_models(tmp_path: Path, kind: type, overrides: dict[str, Any]) -> None:
    own = saved(kind, tmp_path / "own", **overrides)
    export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    theirs = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    assert theirs.config.layer_norm_eps == 1e-6
    picture = pixels(2, 3, *own.config.image_height_width)
    with torch.no_grad():
        expected = own.m33d.extract_features(picture)["rgb"]
        found = theirs(pixel_values=picture).last_hidden_state[:, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "overrides", "words"),
    [
        (M33DForVideoClassification, {**CLASSIFIER, "use_cls_token": True}, "use_cls_token is True"),
        (M33DForVideoClassification, {**CLASSIFIER, "position_grid": [2, 2, 2]}, r"position_grid is \[2, 2, 2\] at a"),
        (M33DForVideoClassification, {**CLASSIFIER, "position_embedding_type": "learned"}, "is 'learned', but Video"),
        (M33DForVideoClassification, {**CLASSIFIER, "global_token": True}, "global_token is True"),
        (M33DForVideoClassification, {**CLASSIFIER, "num_register_tokens": 2}, "num_register_tokens is 2"),
        (M33DForVideoActionDetection, CLASSIFIER, "load the folder with M33DForVideoClassification"),
        (M33DForSemanticSegmentation, {"num_labels": 5}, "head_norm is False.*--to timm supports"),
        (M33DForPreTraining, {"use_cls_token": False}, "use_cls_token is False.*--to timm does not require"),
        (M33DForPreTraining, {"num_register_tokens": 2}, "num_register_tokens is 2, but ViTModel has none"),
    ],
)
def test_what_the_stock_class_cannot_hold_is_named(
    tmp_path: Path, kind: type, overrides: dict[str, Any], words: str
) -> None:
    saved(kind, tmp_path / "own", **overrides)
    with pytest.raises(ExportError, match=words):
        export_model(str(tmp_path / "own"), tmp_path / "deep" / "out", "transformers")
    assert not (tmp_path / "deep").exists()


def test_positions_that_are_rebuilt_are_those_of_videomae(tmp_path: Path) -> None:
    fields = {**CLASSIFIER, "position_grid": [2, 2, 2], "position_embedding_resize": "rebuild", "layer_norm_eps": 1e-5}
    saved(M33DForVideoClassification, tmp_path / "own", **fields)
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    assert max(each["relative"] for each in report["differences"]) <= 1e-5


def test_a_written_model_that_differs_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m33d_hf.weights.export import encoder_weights, stock

    saved(M33DForPreTraining, tmp_path / "own")

    def swapped(*arguments: Any) -> dict[str, torch.Tensor]:
        weights = encoder_weights.transformers_encoder(*arguments)
        first, second = (f"encoder.layer.{n}.attention.attention.key.weight" for n in (0, 1))
        return weights | {first: weights[second], second: weights[first]}

    monkeypatch.setattr(stock, "transformers_encoder", swapped)
    with pytest.raises(ExportError, match="does not agree with the model"):
        export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_half_precision_weights_go_out_as_they_are_in_float32(tmp_path: Path) -> None:
    saved(M33DForPreTraining, tmp_path / "first").to(torch.bfloat16).save_pretrained(tmp_path / "own")
    report = export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert max(each["relative"] for each in report["differences"]) <= 1e-5


def test_the_processor_is_found_by_transformers(tmp_path: Path) -> None:
    saved(M33DForPreTraining, tmp_path / "own")
    export_model(str(tmp_path / "own"), tmp_path / "out", "transformers")
    assert "ViTImageProcessor" in type(AutoImageProcessor.from_pretrained(tmp_path / "out")).__name__
