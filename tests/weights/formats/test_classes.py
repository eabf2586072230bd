"""Fine-tuned VideoMAE classifiers -> M33DForVideoClassification: the same logits, or a fresh head and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from helpers.foreign import CLIP_SIZES, original_videomae_finetuned, tiny_videomae, videomae_config
from m33d_hf.errors import ConversionError
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.weights import convert_state_dict, from_state_dict, load_foreign
from m33d_hf.weights.formats.classes import class_names, class_obstacle

NAMES = ["cut", "knot", "suture", "grasp", "rest"]
HEAD = {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}


def _labels(names: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _theirs(**changes: Any) -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    sizes = {key: value for key, value in CLIP_SIZES.items() if not key.startswith("decoder_")}
    model = VideoMAEForVideoClassification(VideoMAEConfig(**(sizes | {"layer_norm_eps": 1e-6} | changes))).eval()
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.15 * noise)
    if model.fc_norm is not None:
        model.fc_norm.eps = 1e-6  # transformers leaves torch's default, the original repository uses 1e-6 throughout
    return model


def _ours(**changes: Any) -> M33DForVideoClassification:
    torch.manual_seed(1)
    return M33DForVideoClassification(videomae_config(**changes)).eval()


def _clips() -> Tensor:
    return torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("named", [True, False])
def test_logits_of_transformers(tmp_path: Path, named: bool) -> None:
    theirs = _theirs(**(_labels(NAMES) if named else {"num_labels": 5}))
    theirs.save_pretrained(tmp_path)
    model = _ours(**_labels(NAMES))
    report = convert_state_dict(load_foreign(tmp_path), model)
    assert not report.new and not report.ignored
    assert set(report.filled) == set(model.state_dict())
    with torch.no_grad():
        expected, found = theirs(_clips()).logits, model(_clips()).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _names_of(theirs: VideoMAEForVideoClassification, names: str, folder: Path) -> dict[str, Tensor]:
    """Its weights under the names of a version: on disk q_bias and v_bias, in the memory of 5 query.bias."""
    if names == "5 in memory":
        weights = dict(theirs.state_dict())
        assert any(key.endswith("query.bias") for key in weights)
        return weights
    theirs.save_pretrained(folder)
    weights = load_foreign(folder).tensors
    assert any(key.endswith("q_bias") for key in weights)
    if names == "with key biases":  # a third party's split of the fused bias: zeros, as the original has none
        for n in range(3):
            weights[f"videomae.encoder.layer.{n}.attention.attention.key.bias"] = torch.zeros(32)
    if names == "as an encoder alone":
        weights = {key.removeprefix("videomae."): tensor for key, tensor in weights.items()}
    return weights


@pytest.mark.parametrize("names", ["4 and 5 on disk", "5 in memory", "with key biases", "as an encoder alone"])
@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
def test_logits_under_all_names(tmp_path: Path, names: str, wrapper: str | None) -> None:
    theirs = _theirs(num_labels=5)
    weights = _names_of(theirs, names, tmp_path)
    checkpoint = from_state_dict({wrapper: weights} if wrapper else weights, config=theirs.config.to_dict())
    model = _ours(num_labels=5)
    report = convert_state_dict(checkpoint, model)
    assert not report.new and not report.ignored and set(report.used) == set(weights)
    with torch.no_grad():
        expected, found = theirs(_clips()).logits, model(_clips()).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videomae.encoder.layer.1.attention.attention.v_bias": None}, "k and v is missing"),
        ({"fc_norm.scale": torch.ones(32)}, r"1 of \d+ keys cannot be explained: 'fc_norm\.scale'"),
        ({"fc_norm.bias": torch.ones(31)}, r"'fc_norm\.bias' is \(32,\) in the model but \(31,\)"),
        ({"videomae.encoder.layer.2.output.dense.weight": None}, "1 weight of the model is not in"),
    ],
)
def test_missing_surplus_and_misshapen_keys(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    theirs = _theirs(num_labels=5)
    weights = {**_names_of(theirs, "4 and 5 on disk", tmp_path), **change}
    checkpoint = from_state_dict({key: tensor for key, tensor in weights.items() if tensor is not None})
    with pytest.raises(ConversionError, match=message):
        convert_state_dict(checkpoint, _ours(num_labels=5))


@pytest.mark.parametrize("wrapper", ["model", "module", None])
def test_the_original_layout_gives_the_logits_of_transformers(wrapper: str | None) -> None:
    """The same model under both names: the original's are written out in the helper, layer by layer."""
    base = tiny_videomae(use_mean_pooling=True)
    theirs = _theirs(num_labels=5)
    theirs.videomae.load_state_dict(base.videomae.state_dict())
    weights = original_videomae_finetuned(tiny_videomae(), 5)
    head = {"fc_norm.weight": theirs.fc_norm.weight, "fc_norm.bias": theirs.fc_norm.bias}
    head |= {"head.weight": theirs.classifier.weight, "head.bias": theirs.classifier.bias}
    weights |= {key: tensor.detach() for key, tensor in head.items()}
    model = _ours(num_labels=5)
    report = convert_state_dict(from_state_dict({wrapper: weights, "epoch": 99} if wrapper else weights), model)
    assert not report.new and set(report.ignored) == ({"epoch"} if wrapper else set())
    inner = theirs.videomae.encoder.layer[1].attention.attention.query.bias
    key = next(key for key in weights if key.endswith("blocks.1.attn.q_bias"))
    torch.testing.assert_close(weights[key], inner.detach())
    with torch.no_grad():
        expected, found = theirs(_clips()).logits, model(_clips()).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _original(classes: int = 5) -> dict[str, Tensor]:
    """The original layout with a head that is not zero."""
    weights = original_videomae_finetuned(tiny_videomae(), classes)
    generator = torch.Generator().manual_seed(5)
    for key in ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"):
        weights[key] = torch.randn(weights[key].shape, generator=generator)
    return weights


def test_the_original_layout_in_float64_written_out() -> None:
    weights = _original()
    model = _ours(num_labels=5)
    report = convert_state_dict(from_state_dict({"module": weights}), model)
    assert not report.new and not report.ignored
    with torch.no_grad():
        tokens = model.m33d.extract_features(_clips())["rgb"].double()
        found = model(_clips()).logits
    pooled = tokens.mean(1)
    normed = (pooled - pooled.mean(1, keepdim=True)) / (pooled.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    features = normed * weights["fc_norm.weight"].double() + weights["fc_norm.bias"].double()
    expected = features @ weights["head.weight"].double().T + weights["head.bias"].double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (NAMES[:4], "has 5 classes, but the model has 4"),
        (NAMES[::-1], "the same classes in another order"),
        ([*NAMES[:4], "other"], "class 4 is 'rest' in the checkpoint and 'other' in the model"),
    ],
)
def test_other_classes_leave_the_classifier_fresh(tmp_path: Path, names: list[str], reason: str) -> None:
    _theirs(**_labels(NAMES)).save_pretrained(tmp_path)
    model = _ours(**_labels(names))
    before = model.classifier.weight.clone()
    report = convert_state_dict(load_foreign(tmp_path), model)
    assert set(report.new) == {"classifier.weight", "classifier.bias"} == set(report.ignored)
    assert all(reason in text for text in (*report.new.values(), *report.ignored.values()))
    assert torch.equal(model.classifier.weight, before)
    assert {"fc_norm.weight", "fc_norm.bias"} <= set(report.filled)


def test_a_classifier_of_one_token_is_not_ours(tmp_path: Path) -> None:
    _theirs(num_labels=5, use_mean_pooling=False).save_pretrained(tmp_path)
    report = convert_state_dict(load_foreign(tmp_path), _ours(num_labels=5))
    assert set(report.new) == HEAD
    assert "reads one token" in report.new["classifier.weight"]
    assert {"classifier.weight", "videomae.layernorm.weight"} <= set(report.ignored)


def test_a_pretraining_gives_the_encoder_and_the_norm_starts_fresh(tmp_path: Path) -> None:
    tiny_videomae().save_pretrained(tmp_path)
    model = _ours(num_labels=5)
    report = convert_state_dict(load_foreign(tmp_path), model)
    assert set(report.new) == HEAD
    assert {"videomae.layernorm.weight", "videomae.layernorm.bias"} <= set(report.ignored)
    assert bool((model.fc_norm.weight == 1).all()) and bool((model.fc_norm.bias == 0).all())


def test_detection_takes_the_clip_classifier(tmp_path: Path) -> None:
    _theirs(**_labels(NAMES)).save_pretrained(tmp_path)
    model = M33DForVideoActionDetection(videomae_config(**_labels(NAMES), temporal_hidden_size=4))
    report = convert_state_dict(load_foreign(tmp_path), model)
    assert set(report.filled) >= HEAD
    assert report.new and all(key.startswith(("gru.", "temporal_classifier.")) for key in report.new)


def test_names_that_say_nothing_settle_nothing() -> None:
    assert class_names({"0": "LABEL_0", "1": "LABEL_1"}) is None
    assert class_names({"1": "b", "0": "a"}) == ["a", "b"]
    assert class_names({"0": "a", "2": "b"}) is None
    assert class_names({"x": "a"}) is None and class_names({}) is None and class_names(None) is None
    assert class_obstacle(2, {"0": "LABEL_0", "1": "LABEL_1"}, 2, {0: "a", 1: "b"}) is None
    assert class_obstacle(2, None, 3, None) == "the checkpoint's classifier has 2 classes, but the model has 3"
