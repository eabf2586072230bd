"""Every fine-tuning loss against an independent float64 formula, with holes and without any label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from m33d_hf.modeling.task_losses_m33d import (
    berhu_loss,
    berhu_threshold,
    clamped_log,
    cross_entropy_loss,
    l1_loss,
    silog_loss,
    valid_depth,
)

LOW, HIGH = 1e-3, 10.0


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    prediction = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64) + 2
    target = torch.rand(3, 5, 7, generator=generator, dtype=torch.float64) * 4
    target[0, :2] = float("nan")
    target[1] = float("nan")
    target[2, 0, 0], target[2, 0, 1] = 0.0, float("inf")
    return prediction.requires_grad_(), target, valid_depth(target)


def _numpy(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def test_valid_depth_refuses_holes_zeros_and_infinity() -> None:
    depth = torch.tensor([1.0, 0.0, -1.0, float("nan"), float("inf")])
    assert valid_depth(depth).tolist() == [True, False, False, False, False]


def test_l1_and_berhu_equal_a_loop_over_pixels(maps) -> None:
    prediction, target, valid = _numpy(*maps)
    errors = [abs(p - t) for p, t, v in zip(prediction.flat, target.flat, valid.flat) if v]
    cut = max(0.2 * max(errors), 1e-5)
    expected = sum(d if d < cut else (d * d + cut * cut) / (2 * cut) for d in errors)
    total, count = berhu_loss(*maps)
    assert int(count) == len(errors)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    total, count = l1_loss(*maps)
    assert (total.item(), int(count)) == (pytest.approx(sum(errors), rel=1e-12), len(errors))


def test_a_given_berhu_threshold_makes_parts_add_up_to_the_whole(maps) -> None:
    prediction, target, valid = maps
    whole, count = berhu_loss(prediction, target, valid)
    cut = berhu_threshold(prediction, target, valid)
    parts = [berhu_loss(prediction[i : i + 1], target[i : i + 1], valid[i : i + 1], cut) for i in range(3)]
    torch.testing.assert_close(sum(part[0] for part in parts), whole)
    assert sum(int(part[1]) for part in parts) == int(count)


def test_no_gradient_flows_through_the_berhu_threshold() -> None:
    prediction = torch.tensor([[[0.0, 10.0]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[0.5, 5.0]]], dtype=torch.float64)
    total, _ = berhu_loss(prediction, target, torch.ones_like(target, dtype=torch.bool))
    total.backward()
    assert prediction.grad.flatten().tolist() == [-1.0, pytest.approx(5.0 / 1.0)]  # c = 0.2 * 5 = 1


def test_silog_equals_eigens_formula_per_image(maps) -> None:
    prediction, target, valid = _numpy(*maps)
    expected, images = 0.0, 0
    for p, t, v in zip(prediction, target, valid):
        g = np.log(np.clip(p[v], LOW, HIGH)) - np.log(np.clip(t[v], LOW, HIGH))
        if g.size:
            expected += (g**2).mean() - 0.5 * g.mean() ** 2
            images += 1
    total, count = silog_loss(*maps, LOW, HIGH)
    assert (total.item(), int(count)) == (pytest.approx(expected, rel=1e-12), images)
    assert images == 2


def test_clamping_for_the_logarithm_does_not_kill_the_gradient() -> None:
    depth = torch.tensor([-5.0, 2.0, 50.0], dtype=torch.float64, requires_grad=True)
    logs = clamped_log(depth, LOW, HIGH)
    assert logs.tolist() == pytest.approx([math.log(LOW), math.log(2), math.log(HIGH)])
    logs.sum().backward()
    assert depth.grad.tolist() == [1.0, 0.5, 1.0]


def test_cross_entropy_ignores_unlabelled_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 3, 3), generator=generator)
    labels[0, 0] = 255
    expected, number = 0.0, 0
    for b, r, c in np.ndindex(2, 3, 3):
        label = int(labels[b, r, c])
        if label != 255:
            scores = logits[b, :, r, c].numpy()
            expected += math.log(np.exp(scores).sum()) - scores[label]
            number += 1
    total, count = cross_entropy_loss(logits, labels, 255)
    assert (total.item(), int(count)) == (pytest.approx(expected, rel=1e-12), number)


@pytest.mark.parametrize("name", ["l1", "berhu", "silog", "cross_entropy"])
def test_a_batch_without_labels_gives_zero_and_finite_gradients(name: str) -> None:
    prediction = torch.randn(2, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), float("nan"))
    valid = valid_depth(target)
    if name == "cross_entropy":
        prediction = torch.randn(2, 3, 4, 4, requires_grad=True)
        total, count = cross_entropy_loss(prediction, torch.full((2, 4, 4), 255), 255)
    elif name == "silog":
        total, count = silog_loss(prediction, target, valid, LOW, HIGH)
    else:
        total, count = {"l1": l1_loss, "berhu": berhu_loss}[name](prediction, target, valid)
    total.backward()
    assert total.item() == 0.0 and int(count) == 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_a_perfect_prediction_has_finite_berhu_gradients() -> None:
    prediction = torch.ones(1, 2, 2, requires_grad=True)
    total, _ = berhu_loss(prediction, torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
    total.backward()
    assert total.item() == 0.0 and torch.isfinite(prediction.grad).all()
