"""Tensors of one batch that do not belong together: refused by name, where they broadcast before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.tiny import CLIP, MULTIMAE, VARIANTS, tiny_config
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.modeling.backbone_m33d import M33DBackbone
from m33d_hf.modeling.configuration_m33d import depth_modality, rgb_modality
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

BATCH, TOKENS = 3, 16


def _model(cls: type[Any], **overrides: Any) -> Any:
    torch.manual_seed(0)
    return cls(tiny_config(**overrides)).eval()


def _batch(rows: int = BATCH, size: int = 32) -> dict[str, Any]:
    return {
        "pixel_values": torch.randn(rows, 3, size, size),
        "depth_values": torch.randn(rows, 1, size, size),
        "depth_mask": torch.ones(rows, 1, size, size, dtype=torch.bool),
    }


def _keep(rows: int = BATCH) -> torch.Tensor:
    return torch.arange(4).repeat(rows, 1)


@pytest.mark.parametrize("cls", [M33DModel, M33DForPreTraining])
@pytest.mark.parametrize("name", ["depth_values", "depth_mask"])
@pytest.mark.parametrize("other", [_batch(1), _batch(2), _batch(size=40), _batch(1, 8)])
def test_inputs_and_masks_of_another_batch_or_size(cls: type[Any], name: str, other: dict[str, Any]) -> None:
    model = _model(cls)
    with pytest.raises(DataError, match=r"depth.* has shape .* rgb has \(3, 1, 3, 32, 32\)"):
        model(**{**_batch(), name: other[name]})


def test_depth_of_another_number_of_frames() -> None:
    model = _model(M33DModel, **CLIP)
    clips = {"pixel_values": torch.randn(2, 4, 3, 32, 32), "depth_values": torch.randn(2, 2, 1, 32, 32)}
    with pytest.raises(DataError, match="same samples, frames"):
        model(**clips)


def test_one_mask_frame_stands_for_a_tubelet_as_one_image_does() -> None:
    model = _model(M33DForPreTraining, **CLIP)
    keep = {name: torch.tensor([[0, 5, 9]]) for name in ("rgb", "depth")}
    batch = {name: value[:1] for name, value in _batch().items()}
    batch["depth_mask"][:, :, :8] = False
    still = {**batch, "depth_mask": batch["depth_mask"][:, None]}
    with torch.no_grad():
        assert torch.equal(model(**batch, keep=keep).loss, model(**still, keep=keep).loss)


@pytest.mark.parametrize("cls", [M33DModel, M33DForPreTraining])
@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (_keep(1), DataError, r"keep of 'depth' has shape \(1, 4\).*B = 3"),
        (_keep(4), DataError, r"keep of 'depth' has shape \(4, 4\).*B = 3"),
        (_keep()[0], DataError, r"has shape \(4,\)"),
        (_keep()[:, :0], DataError, r"V from 1 to the 16 tokens"),
        (torch.arange(17).repeat(BATCH, 1), DataError, r"V from 1 to the 16 tokens"),
        (_keep().int(), DataError, "int32, expected int64"),
        (torch.tensor([[0, 1], [2, 2], [0, 1]]), DataError, "position 2 twice in row 1"),
        (torch.tensor([[0, 1], [9, 2], [3, 16]]), DataError, "positions from 0 to 16, expected 0 to 15"),
        (torch.tensor([[0, 1], [9, -1], [3, 5]]), DataError, "positions from -1 to 9"),
    ],
)
def test_visible_positions_that_do_not_fit(
    cls: type[Any], wrong: torch.Tensor, error: type[Exception], words: str
) -> None:
    model = _model(cls)
    with pytest.raises(error, match=words):
        model(**_batch(), keep={"rgb": _keep(), "depth": wrong})


@pytest.mark.parametrize("cls", [M33DModel, M33DForPreTraining])
def test_names_in_keep(cls: type[Any]) -> None:
    model = _model(cls)
    with pytest.raises(ConfigError, match=r"keep has no visible tokens of \['depth'\]"):
        model(**_batch(), keep={"rgb": _keep()})
    with pytest.raises(ConfigError, match=r"keep names 'dpeth'.*'depth'"):
        model(**_batch(), keep={"rgb": _keep(), "depth": _keep(), "dpeth": _keep()})


def test_the_order_of_visible_tokens_is_free_for_the_encoder() -> None:
    model, batch = _model(M33DModel), _batch()
    swapped = torch.tensor([[9, 2, 4]] * BATCH)
    found = model.extract_features(batch["pixel_values"], keep={"rgb": swapped})["rgb"]
    expected = model.extract_features(batch["pixel_values"], keep={"rgb": swapped.sort(dim=1).values})["rgb"]
    torch.testing.assert_close(found[:, [1, 2, 0]], expected)


def test_a_token_budget() -> None:
    model = _model(M33DForPreTraining, **MULTIMAE)
    good = draw_keep(model.config, BATCH)
    model(**_batch(), keep=good)
    for wrong, words in (
        (good["joint"][:1], "B = 3"),
        (good["joint"] + 32, "expected 0 to 31"),
        (good["joint"] * 0, "position 0 twice in row 0"),
    ):
        with pytest.raises(DataError, match=words):
            model(**_batch(), keep={"joint": wrong})
    with pytest.raises(ConfigError, match=r"keep has no visible tokens of \['joint'\]"):
        model(**_batch(), keep={"rgb": _keep(), "depth": _keep()})


def test_hidden_samples_noise_and_teachers() -> None:
    noisy = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, denoising_weight=1.0, drop_probability=0.5)]
    model = _model(M33DForPreTraining, modalities=noisy, distillation_weight=1.0)
    width = model.config.hidden_size
    right = {
        "hide": {"depth": torch.zeros(BATCH, dtype=torch.bool)},
        "noise": {"depth": torch.randn(BATCH, 1, 32, 32)},
        "teacher_features": {name: torch.randn(BATCH, width) for name in ("rgb", "depth")},
    }
    assert model(**_batch(), **right).loss.isfinite()
    for name, wrong, words in (
        ("hide", {"depth": torch.zeros(1, dtype=torch.bool)}, r"hide of 'depth' has shape \(1,\), expected \(3,\)"),
        ("noise", {"depth": torch.randn(1, 1, 32, 32)}, "noise of depth has shape"),
        ("noise", {"depth": torch.randn(BATCH, 1, 32, 40)}, "noise of depth has shape"),
        ("teacher_features", {**right["teacher_features"], "rgb": torch.randn(1, width)}, r"teacher_features of 'rgb'"),
        ("teacher_features", {**right["teacher_features"], "rgb": torch.randn(BATCH, 4)}, r"expected \(3, 32\)"),
    ):
        with pytest.raises(DataError, match=words):
            model(**_batch(), **{**right, name: wrong})
    with pytest.raises(ConfigError, match=r"hide names 'dpeth'.*'depth'"):
        model(**_batch(), **{**right, "hide": {"dpeth": torch.zeros(BATCH, dtype=torch.bool)}})


@pytest.mark.parametrize("cls", [M33DForSemanticSegmentation, M33DForDepthEstimation])
def test_dense_labels_of_another_batch_or_size(cls: type[Any]) -> None:
    model, pixels = _model(cls, num_labels=4), torch.randn(BATCH, 3, 32, 32)
    for shape in ((1, 32, 32), (2, 32, 32), (BATCH, 1, 32), (BATCH, 32, 40), (1, 1, 32, 32)):
        with pytest.raises(DataError, match=r"labels have shape .*expected \(3, 32, 32\)"):
            model(pixels, labels=torch.ones(shape, dtype=torch.long))


def test_labels_of_another_number_of_clips() -> None:
    clips = torch.randn(BATCH, 4, 3, 32, 32)
    classifier = _model(M33DForVideoClassification, **CLIP, num_labels=4)
    for labels in (torch.zeros(1, dtype=torch.long), torch.full((1, 4), 0.25)):
        with pytest.raises(DataError, match="labels have shape"):
            classifier(clips, labels=labels)
    detector = _model(M33DForVideoActionDetection, **CLIP, num_labels=4)
    features = torch.randn(BATCH, 5, 32)
    for extra in (
        {"labels": torch.zeros(1, 5, dtype=torch.long)},
        {"labels": torch.zeros(BATCH, 1, dtype=torch.long)},
        {"attention_mask": torch.ones(1, 5, dtype=torch.bool)},
    ):
        with pytest.raises(DataError, match=r"ha(ve|s) shape"):
            detector(features=features, **extra)


def test_values_are_not_asked_for_where_there_are_none() -> None:
    """As in the estimate of a step's memory."""
    model, batch = _model(M33DForPreTraining), _batch()
    keep = draw_keep(model.config, BATCH)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(**batch, keep=keep).loss.shape == ()


# "plus" goes through the same checks as one graph in test_compile.py.
@pytest.mark.parametrize("variant", [pytest.param("plus", marks=pytest.mark.slow), "multimae"])
def test_checks_leave_no_break_in_a_traced_graph(variant: str) -> None:
    model = _model(M33DForPreTraining, **VARIANTS[variant])
    batch, keep = _batch(), draw_keep(model.config, BATCH)
    torch._dynamo.reset()
    explanation = torch._dynamo.explain(model)(**batch, keep=keep)
    assert explanation.graph_break_count == 0, explanation.break_reasons


def test_labels_of_another_type_are_refused_by_name() -> None:
    model = M33DForSemanticSegmentation(tiny_config(num_labels=5, segmentation_head_width=16))
    for kind in (torch.uint8, torch.float32):
        with pytest.raises(DataError, match=r"labels are torch\..*expected int64 class ids"):
            model(pixel_values=torch.zeros(1, 3, 32, 32), labels=torch.zeros(1, 32, 32, dtype=kind))


CLASSIFIERS: list[tuple[type[Any], dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    (M33DForSemanticSegmentation, {}, (2, 3, 32, 32), (2, 32, 32)),
    (M33DForVideoClassification, CLIP, (2, 4, 3, 32, 32), (2,)),
    (M33DForVideoActionDetection, CLIP, (1, 2, 4, 3, 32, 32), (1, 2)),
]


def _classifier(cls: type[Any], overrides: dict[str, Any]) -> Any:
    return _model(cls, **{**overrides, "num_labels": 5})


@pytest.mark.parametrize(("cls", "overrides", "pixels", "labels"), CLASSIFIERS)
@pytest.mark.parametrize("strange", [5, 7, -1, -100])
def test_class_ids_outside_are_named_with_the_classes_and_the_ignored_one(
    cls: type[Any], overrides: dict[str, Any], pixels: tuple[int, ...], labels: tuple[int, ...], strange: int
) -> None:
    ids = torch.full(labels, 4)
    ids.view(-1)[-1] = strange
    with pytest.raises(LabelError, match=rf"labels hold {strange}, .* 5 classes: .* from 0 to 4, or 255 where"):
        _classifier(cls, overrides)(torch.randn(pixels), labels=ids)


@pytest.mark.parametrize(("cls", "overrides", "pixels", "labels"), CLASSIFIERS)
def test_the_outer_classes_and_the_ignored_one_pass(
    cls: type[Any], overrides: dict[str, Any], pixels: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    ids = torch.full(labels, 255)
    ids.view(-1)[0] = 4
    output = _classifier(cls, overrides)(torch.randn(pixels), labels=ids)
    logits = output.logits if cls is M33DForSemanticSegmentation else output.logits.reshape(-1, 5)
    first = logits[0, :, 0, 0] if cls is M33DForSemanticSegmentation else logits[0]
    torch.testing.assert_close(output.loss, first.exp().sum().log() - first[4])
    assert output.loss_counts["cross_entropy"] == 1


def test_class_255_of_more_classes_is_refused_as_a_label() -> None:
    """It would pass for a clip without a label, and never be trained; the model may still predict it."""
    model = M33DForVideoClassification(tiny_config(**CLIP, num_labels=400)).eval()
    clips = torch.randn(1, 4, 3, 32, 32)
    for label in (254, 256):
        assert model(clips, labels=torch.tensor([label])).loss.item() > 1
    with pytest.raises(LabelError, match="labels hold 255, which says that nothing is labelled, but is also one"):
        model(clips, labels=torch.tensor([255]))
    assert model(clips).logits.shape == (1, 400)
    targets = torch.nn.functional.one_hot(torch.tensor([255]), 400).float()
    assert model(clips, labels=targets).loss.item() > 1


@pytest.mark.parametrize(("cls", "overrides", "pixels", "labels"), CLASSIFIERS)
def test_class_ids_of_another_integer_type(
    cls: type[Any], overrides: dict[str, Any], pixels: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=r"labels are torch\.int32, expected int64 class ids"):
        _classifier(cls, overrides)(torch.randn(pixels), labels=torch.zeros(labels, dtype=torch.int32))


EMPTY: list[tuple[type[Any], dict[str, Any], tuple[int, ...]]] = [
    (M33DModel, {}, (0, 3, 32, 32)),
    (M33DBackbone, {}, (0, 3, 32, 32)),
    (M33DForPreTraining, {}, (0, 3, 32, 32)),
    (M33DForSemanticSegmentation, {}, (0, 3, 32, 32)),
    (M33DForDepthEstimation, {"num_hidden_layers": 4}, (0, 3, 32, 32)),
    (M33DForVideoClassification, CLIP, (0, 4, 3, 32, 32)),
    (M33DForVideoActionDetection, CLIP, (0, 2, 4, 3, 32, 32)),
    (M33DForVideoActionDetection, CLIP, (1, 0, 4, 3, 32, 32)),
]


@pytest.mark.parametrize(("cls", "overrides", "shape"), EMPTY)
def test_an_empty_batch_is_refused_by_name(cls: type[Any], overrides: dict[str, Any], shape: tuple[int, ...]) -> None:
    depth = {"depth_values": torch.zeros(0, 1, 32, 32)} if cls is M33DForPreTraining else {}
    with pytest.raises(DataError, match=r"pixel_values has shape \([01], .*at least one"):
        _model(cls, **overrides)(pixel_values=torch.zeros(shape), **depth)


def test_features_of_no_video() -> None:
    model = _model(M33DForVideoActionDetection, **CLIP)
    with pytest.raises(DataError, match=r"features have shape \(0, 2, 32\)"):
        model(features=torch.zeros(0, 2, 32))
