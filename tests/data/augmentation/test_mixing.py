"""Mixup, CutMix and label smoothing against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from m33d_hf.data.augmentation.mixing import MixDraw, cutmix_box, draw_mix, mix_batch, soft_targets
from m33d_hf.data.augmentation.options import MixingOptions
from m33d_hf.errors import ConfigError


def clips(batch: int) -> torch.Tensor:
    return torch.rand(batch, 2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_soft_targets_are_the_formula():
    targets = soft_targets(torch.tensor([2, 0]), 5, 0.1).numpy()
    for row, label in enumerate((2, 0)):
        for column in range(5):
            expected = 1 - 0.1 + 0.1 / 5 if column == label else 0.1 / 5
            assert math.isclose(targets[row, column], expected, rel_tol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_smoothed_targets_give_the_label_smoothing_cross_entropy():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    ours = torch.nn.functional.cross_entropy(logits, soft_targets(labels, 5, 0.1).double())
    theirs = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_mixup_is_the_formula(batch):
    pixels, targets = clips(batch), soft_targets(torch.arange(batch) % 3, 3, 0.1)
    mixed, soft = mix_batch(pixels.clone(), targets, MixDraw(0.3))
    for row in range(batch):
        partner = batch - 1 - row
        expected = 0.3 * pixels[row].double() + 0.7 * pixels[partner].double()
        torch.testing.assert_close(mixed[row].double(), expected, atol=1e-6, rtol=1e-6)
        expected = 0.3 * targets[row].double() + 0.7 * targets[partner].double()
        torch.testing.assert_close(soft[row].double(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(soft.sum(1), torch.ones(batch))


@pytest.mark.parametrize("batch", [2, 5])
def test_cutmix_pastes_one_box_in_all_frames_and_counts_its_pixels(batch):
    options = MixingOptions(cutmix=1.0)
    pixels, targets = clips(batch), torch.eye(batch)
    seen = 0
    for seed in range(30):
        drawn = draw_mix(options, 8, 12, seed)
        mixed, soft = mix_batch(pixels.clone(), targets, drawn)
        pasted = (mixed[0] == pixels[-1]).all(dim=1)  # (T, H, W): noise of two clips never agrees in three channels
        assert torch.equal(pasted[0], pasted[1]) and torch.equal(
            mixed[0][:, :, ~pasted[0]], pixels[0][:, :, ~pasted[0]]
        )
        share = int(pasted[0].sum()) / 96
        assert math.isclose(float(soft[0, -1]), share, abs_tol=1e-6)
        assert math.isclose(float(soft[0, 0]), 1 - share, abs_tol=1e-6)
        seen += 0 < share < 1
        if batch == 5:
            assert torch.equal(mixed[2], pixels[2]) and torch.equal(soft[2], targets[2])
    assert seen > 15


def test_cutmix_boxes_are_cut_at_the_border():
    assert cutmix_box(100, 60, 0.75, 50, 30) == (25, 75, 15, 45)  # half of each side around the centre
    assert cutmix_box(100, 60, 0.75, 0, 59) == (0, 25, 44, 60)
    assert cutmix_box(100, 60, 0.0, 50, 30) == (0, 100, 0, 60)


def test_draws_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    options = MixingOptions(mixup=0.8, cutmix=1.0)
    before = torch.get_rng_state()
    assert draw_mix(options, 32, 32, 0, 3, "a", "mix") == draw_mix(options, 32, 32, 0, 3, "a", "mix")
    assert torch.equal(torch.get_rng_state(), before)
    assert len({draw_mix(options, 32, 32, 0, epoch, "a", "mix").share for epoch in range(20)}) == 20


def test_shares_are_beta_distributed_and_kinds_switch():
    both = [draw_mix(MixingOptions(mixup=0.8, cutmix=1.0, switch_probability=0.25), 64, 64, i) for i in range(800)]
    assert 0.2 < sum(draw.box is not None for draw in both) / 800 < 0.3
    shares = np.array([draw_mix(MixingOptions(mixup=0.8), 8, 8, i).share for i in range(2000)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert abs(shares.mean() - 0.5) < 0.025 and abs(shares.var() - 1 / (4 * 2.6)) < 0.008
    rare = [draw_mix(MixingOptions(mixup=0.8, probability=0.5), 8, 8, i) for i in range(400)]
    assert 0.4 < sum(draw.share < 1 for draw in rare) / 400 < 0.6
    # A batch that is still mixed is mixed as before.
    assert {draw.share for draw in rare} - {1.0} <= set(shares.tolist())


def test_nothing_on_changes_nothing():
    assert draw_mix(MixingOptions(label_smoothing=0.1), 8, 8, 0) == MixDraw(1.0)
    pixels, targets = clips(3), torch.eye(3)
    mixed, soft = mix_batch(pixels, targets, MixDraw(1.0))
    assert mixed is pixels and soft is targets


@pytest.mark.parametrize(
    "values", [{"mixup": -1.0}, {"cutmix": math.nan}, {"probability": 1.5}, {"label_smoothing": -0.1}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=f"mixing.{next(iter(values))}"):
        MixingOptions(**values)
