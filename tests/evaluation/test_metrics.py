"""Streaming metrics against formulas over all pixels at once, their evaluate faces, and two ranks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from m33d_hf.errors import LabelError
from m33d_hf.evaluation import metrics
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics


def _labels(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes - 1, (4, 6, 7), generator=generator)  # the last class never occurs
    right = torch.rand(4, 6, 7, generator=generator) < 0.6
    predictions = torch.where(right, labels, (labels + 1) % (classes - 1))
    labels[0, :2] = 255
    return predictions, labels


def test_confusion_matrix_equals_set_arithmetic() -> None:
    predictions, labels = _labels(0)
    metric = ConfusionMatrix(5)
    for prediction, label in zip(predictions.split(1), labels.split(1)):
        metric.update(prediction, label)
    p, t = predictions.numpy(), labels.numpy()
    valid = t != 255
    ious = []
    for c in range(4):
        union = (((p == c) | (t == c)) & valid).sum()
        ious.append(((p == c) & (t == c) & valid).sum() / union)
    result = metric.compute()
    assert result["per_class_iou"][:4] == pytest.approx(ious)
    assert math.isnan(result["per_class_iou"][4])
    assert result["mean_iou"] == pytest.approx(np.mean(ious))
    assert result["pixel_accuracy"] == pytest.approx((p == t)[valid].mean())
    assert int(metric.matrix.sum()) == int(valid.sum())


def test_logits_are_accepted_and_ignored_pixels_alone_are_nan() -> None:
    metric = ConfusionMatrix(3)
    metric.update(torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))
    result = metric.compute()
    assert math.isnan(result["mean_iou"]) and math.isnan(result["pixel_accuracy"])


def test_labels_outside_the_classes_are_reported() -> None:
    metric = ConfusionMatrix(3)
    metric.update(torch.zeros(1, 2, 2, dtype=torch.long), torch.tensor([[[0, 1], [7, 255]]]))
    with pytest.raises(LabelError, match=r"1 pixels .* outside \[0, 3\)"):
        metric.compute()
    with pytest.raises(LabelError, match="differ in shape"):
        metric.update(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))


def _depths(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 5, 6, generator=generator) * 5 + 0.1
    prediction = target * (0.6 + torch.rand(3, 5, 6, generator=generator))
    target[0, :3], target[1], target[2, 0, 0] = float("nan"), float("nan"), 0.0
    prediction[2, 1, 1] = -1.0  # a network may predict this before it is clamped
    return prediction, target


def _reference(p: np.ndarray, t: np.ndarray) -> dict[str, float]:
    p, t = p.astype(np.float64), t.astype(np.float64)
    floored = np.maximum(p, 1e-6)
    ratio = np.maximum(floored / t, t / floored)
    return {
        "delta1": (ratio < 1.25).mean(),
        "delta2": (ratio < 1.25**2).mean(),
        "delta3": (ratio < 1.25**3).mean(),
        "abs_rel": (np.abs(p - t) / t).mean(),
        "sq_rel": ((p - t) ** 2 / t).mean(),
        "log10": np.abs(np.log10(floored / t)).mean(),
        "rmse": np.sqrt(((p - t) ** 2).mean()),
        "rmse_log": np.sqrt(((np.log(floored) - np.log(t)) ** 2).mean()),
        "silog": 100 * np.std(np.log(floored / t)),
    }


@pytest.mark.parametrize("average", ["pixels", "images", "batches"])
def test_depth_metrics_equal_the_formulas(average: str) -> None:
    prediction, target = _depths(1)
    metric = DepthMetrics(average=average)
    batches = (slice(0, 1), slice(1, 2), slice(0, 3))  # the second has no valid pixel
    for rows in batches:
        metric.update(prediction[rows], target[rows])
    prediction, target = (torch.cat([each[rows] for rows in batches]) for each in (prediction, target))
    p, t = prediction.numpy(), target.numpy()
    valid = np.isfinite(t) & (t > 0)
    if average == "pixels":
        expected = _reference(p[valid], t[valid])
    else:
        parts = [slice(i, i + 1) for i in range(5)] if average == "images" else [slice(0, 1), slice(1, 2), slice(2, 5)]
        images = [_reference(p[i][valid[i]], t[i][valid[i]]) for i in parts if valid[i].any()]
        assert len(images) == (3 if average == "images" else 2)
        expected = {key: np.mean([image[key] for image in images]) for key in images[0]}
    assert metric.compute() == pytest.approx(expected)


def test_depth_bounds_and_nothing_valid() -> None:
    metric = DepthMetrics(min_depth=1.0, max_depth=2.0)
    metric.update(torch.tensor([[[1.0, 9.0, 9.0]]]), torch.tensor([[[1.0, 0.5, 3.0]]]))
    assert metric.compute()["delta1"] == 1.0
    empty = DepthMetrics()
    empty.update(torch.ones(1, 2, 2), torch.full((1, 2, 2), float("nan")))
    assert all(math.isnan(value) for value in empty.compute().values())
    with pytest.raises(LabelError, match=r"\(B, H, W\)"):
        empty.update(torch.ones(2, 2), torch.ones(2, 2))


def test_a_nan_prediction_shows_in_the_errors() -> None:
    metric = DepthMetrics()
    metric.update(torch.tensor([[[float("nan"), 1.0]]]), torch.ones(1, 1, 2))
    result = metric.compute()
    assert result["delta1"] == 0.5 and math.isnan(result["rmse"])


def test_reduce_adds_ranks_once() -> None:
    predictions, labels = _labels(2)
    whole, half = ConfusionMatrix(5), ConfusionMatrix(5)
    whole.update(predictions, labels)
    half.update(predictions[:2], labels[:2])
    other = whole.state - half.state
    calls = []

    def add(state: torch.Tensor, reduction: str) -> torch.Tensor:
        calls.append(reduction)
        return state + other

    accelerator = SimpleNamespace(num_processes=2, device="cpu", reduce=add)
    half.reduce(accelerator).reduce(accelerator)
    assert torch.equal(half.matrix, whole.matrix)
    assert calls == ["sum"]
    assert DepthMetrics().reduce(None).state.sum() == 0
    half.reset()
    assert int(half.state.sum()) == 0


def test_evaluate_faces_equal_the_accumulators() -> None:
    pytest.importorskip("evaluate")
    from m33d_hf.evaluation.evaluate_metrics import depth_error_metric, mean_iou_metric

    predictions, labels = _labels(3)
    matrix = ConfusionMatrix(5)
    matrix.update(predictions, labels)
    metric = mean_iou_metric(num_classes=5, keep_in_memory=True)
    metric.add_batch(predictions=predictions.numpy(), references=labels.numpy())
    result, expected = metric.compute(), matrix.compute()
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, nan_ok=True)

    prediction, target = _depths(4)
    depth = DepthMetrics(average="images")
    depth.update(prediction, target)
    face = depth_error_metric(average="images", keep_in_memory=True)
    face.add_batch(predictions=prediction.numpy(), references=target.numpy())
    assert face.compute() == pytest.approx(depth.compute())


def test_sums_that_move_to_a_device_without_float64_are_float32_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" stands for "mps", which refuses float64."""
    kept = metrics.accumulator_dtype
    assert kept("mps") is torch.float32 and kept("cpu") is kept("cuda") is torch.float64
    monkeypatch.setattr(metrics, "accumulator_dtype", lambda device: kept("mps" if str(device) == "meta" else device))
    judge = DepthMetrics()
    judge.update(torch.ones(2, 3, 4, device="meta"), torch.ones(2, 3, 4, device="meta"))
    assert judge.state.dtype is torch.float32 and judge.state.device.type == "meta"
