"""Every loss against a formula written out in numpy float64, loop by loop."""

import numpy as np
import pytest
import torch

from m33d_hf.modeling.losses_m33d import (
    _variance,
    batch_contrastive_loss,
    contrastive_loss,
    fuse_pair,
    matching_loss,
    matching_pairs,
    mismatched_partners,
    normalize_patches,
    reconstruction_loss,
    retrieval_hits,
    weighted_total,
)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["mse", "l1", "l2"])
@pytest.mark.parametrize("reduction", ["batch", "sample"])
@pytest.mark.parametrize("holes", [False, True])
def test_reconstruction_equals_the_loop(kind, reduction, holes):
    prediction, target = rand(3, 4, 6), rand(3, 4, 6, seed=1)
    valid = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(2)) > 0.4
    valid[1] = False  # a sample without any valid pixel
    total, count = reconstruction_loss(prediction, target, kind, valid if holes else None, reduction)
    per_sample = []
    for b in range(3):
        terms = []
        for k in range(4):
            errors = [
                float(prediction[b, k, p] - target[b, k, p]) for p in range(6) if not holes or bool(valid[b, k, p])
            ]
            if kind == "l2":
                terms += [np.sqrt(sum(e * e for e in errors))] if errors else []
            else:
                terms += [e * e if kind == "mse" else abs(e) for e in errors]
        per_sample.append(terms)
    if reduction == "batch":
        expected = np.mean(np.concatenate(per_sample))
    else:
        expected = np.mean([np.mean(terms) for terms in per_sample if len(terms)])
    assert float(total / count) == pytest.approx(expected, rel=1e-5)


def test_holes_hold_anything_and_all_holes_give_zero_with_zero_gradient():
    prediction = rand(2, 3, 4).requires_grad_()
    target = torch.full((2, 3, 4), float("nan"), dtype=torch.float64)
    total, count = reconstruction_loss(prediction, target, "mse", torch.zeros(2, 3, 4, dtype=torch.bool))
    total.backward()
    assert (float(total.detach()), float(count)) == (0.0, 0.0)
    assert float(prediction.grad.abs().max()) == 0.0


def test_the_printed_norm_has_a_finite_slope_at_zero():
    prediction = torch.zeros(1, 1, 4, requires_grad=True)
    total, _ = reconstruction_loss(prediction, torch.zeros(1, 1, 4), "l2")
    total.backward()
    assert torch.isfinite(prediction.grad).all()


def test_pooled_normalisation_is_maes_and_per_channel_is_videomaes():
    patches = rand(2, 3, 12)
    values = patches.numpy()
    pooled = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normalize_patches(patches, "pooled", 3), pooled, rtol=1e-9)
    split = values.reshape(2, 3, 4, 3)
    channel = (split - split.mean(2, keepdims=True)) / (split.std(2, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normalize_patches(patches, "per_channel", 3), channel.reshape(2, 3, 12), rtol=1e-9)


def test_flat_patches_have_no_variance_and_nearly_flat_ones_have():
    generator = torch.Generator().manual_seed(0)
    flat = (10 * torch.randn(2000, 1, generator=generator)).expand(-1, 512).contiguous()
    nearly = flat.clone()
    nearly[:, 7] = torch.nextafter(nearly[:, 7], torch.tensor(torch.inf))
    for values, expected in ((flat, 0.0), (nearly, nearly.double().var(-1, keepdim=True))):
        found = _variance(values - values.mean(-1, keepdim=True), -1)
        torch.testing.assert_close(found.double(), torch.zeros_like(found.double()) + expected, rtol=0.1, atol=0.0)
    values = torch.randn(50, 512, generator=generator) + 3.0
    found = _variance(values - values.mean(-1, keepdim=True), -1)
    torch.testing.assert_close(found.double(), values.double().var(-1, keepdim=True), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("mode", ["pooled", "per_channel"])
def test_a_flat_patch_stays_finite_and_invalid_values_do_not_shift_the_statistics(mode):
    assert torch.isfinite(normalize_patches(torch.ones(1, 1, 12), mode, 3)).all()
    patches, valid = rand(1, 1, 12), torch.ones(1, 1, 12, dtype=torch.bool)
    valid[..., 9:] = False
    spoiled = torch.where(valid, patches, torch.full_like(patches, 1e3))
    kept = normalize_patches(spoiled, mode, 3, valid_BKP=valid)[..., :9]
    torch.testing.assert_close(kept, normalize_patches(patches[..., :9], mode, 3))


def contrast_loop(rgb, other, keep_rgb, keep_other, valid, tau, normalize=True, batch=False):
    """Eq. 3 in float64, token by token; returns the list of row losses."""
    unit = lambda v: v / np.linalg.norm(v) if normalize else v  # noqa: E731
    rows = []
    for b in range(len(rgb)):
        for i, place in enumerate(keep_rgb[b]):
            match = [j for j, q in enumerate(keep_other[b]) if q == place and valid[b, j]]
            if not match:
                continue
            samples = range(len(other)) if batch else [b]
            scores = {
                (s, j): unit(rgb[b, i]) @ unit(other[s, j]) / tau
                for s in samples
                for j in range(other.shape[1])
                if valid[s, j]
            }
            rows.append(np.log(sum(np.exp(v) for v in scores.values())) - scores[(b, match[0])])
    return rows


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(5)
    keep_rgb = torch.stack([torch.randperm(10, generator=generator)[:5].sort().values for _ in range(3)])
    keep_other = torch.stack([torch.randperm(10, generator=generator)[:6].sort().values for _ in range(3)])
    valid = torch.rand(3, 6, generator=generator) > 0.3
    return rand(3, 5, 8), rand(3, 6, 8, seed=1), keep_rgb, keep_other, valid


@pytest.mark.parametrize("normalize", [True, False])
def test_contrastive_loss_equals_the_loop(tokens, normalize):
    total, count = contrastive_loss(*tokens, temperature=0.5, normalize=normalize)
    rows = contrast_loop(*(t.numpy() for t in tokens), 0.5, normalize)
    assert int(count) == len(rows) > 0
    assert float(total) == pytest.approx(sum(rows), rel=1e-5)


def test_batch_negatives_equal_the_loop_whatever_the_chunk(tokens):
    rows = contrast_loop(*(t.numpy() for t in tokens), 0.5, batch=True)
    for chunk in (1, 200, 1 << 25):
        total, count = batch_contrastive_loss(*tokens, temperature=0.5, chunk_values=chunk)
        assert int(count) == len(rows)
        assert float(total) == pytest.approx(sum(rows), rel=1e-5)


def test_symmetric_contrast_averages_both_directions(tokens):
    rgb, other, keep_rgb, keep_other, valid = tokens
    everything = torch.ones_like(valid)
    total, _ = contrastive_loss(rgb, other, keep_rgb, keep_other, everything, 0.5, symmetric=True)
    forward = contrast_loop(*(t.numpy() for t in (rgb, other, keep_rgb, keep_other, everything)), 0.5)
    ones = np.ones(keep_rgb.shape, dtype=bool)
    back = contrast_loop(other.numpy(), rgb.numpy(), keep_other.numpy(), keep_rgb.numpy(), ones, 0.5)
    assert float(total) == pytest.approx((sum(forward) + sum(back)) / 2, rel=1e-5)


def test_no_common_token_means_exactly_zero_and_zero_gradient():
    rgb, other = rand(2, 3, 4).requires_grad_(), rand(2, 3, 4, seed=1)
    keep_rgb, keep_other = torch.tensor([[0, 1, 2]] * 2), torch.tensor([[3, 4, 5]] * 2)
    for loss in (contrastive_loss, batch_contrastive_loss):
        total, count = loss(rgb, other, keep_rgb, keep_other)
        total.backward()
        assert (float(total.detach()), float(count)) == (0.0, 0.0)
        assert float(rgb.grad.abs().max()) == 0.0


def test_invalid_tokens_are_neither_positives_nor_negatives():
    rgb, other = rand(1, 4, 6), rand(1, 4, 6, seed=1)
    keep = torch.arange(4)[None]
    valid = torch.tensor([[True, True, False, True]])
    total, count = contrastive_loss(rgb, other, keep, keep, valid)
    changed = other.clone()
    changed[0, 2] = 100.0
    assert int(count) == 3
    assert float(contrastive_loss(rgb, changed, keep, keep, valid)[0]) == float(total)


def test_matching_is_a_two_class_cross_entropy():
    logits, labels = rand(6, 2), torch.tensor([1, 1, 1, 0, 0, 0])
    total, count = matching_loss(logits, labels)
    values = logits.numpy()
    expected = sum(np.log(np.exp(row).sum()) - row[label] for row, label in zip(values, labels.tolist()))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(count) == 6


@pytest.mark.parametrize("mode", ["roll", "shuffle"])
@pytest.mark.parametrize("size", [2, 5])
def test_no_sample_is_its_own_mismatch(mode, size):
    for partner in mismatched_partners(size, size - 1, mode, torch.device("cpu")):
        assert (partner != torch.arange(size)).all()
        assert sorted(partner.tolist()) == list(range(size))


def test_pairs_and_fusions():
    assert [matching_pairs(b, 1) for b in (1, 2, 5)] == [0, 4, 10]
    assert matching_pairs(3, 8) == 9
    a, b = rand(2, 3), rand(2, 3, seed=1)
    assert fuse_pair(a, b, "concat").shape == (2, 6)
    assert torch.equal(fuse_pair(a, b, "product"), a * b)
    assert torch.equal(fuse_pair(a, b, "sum"), a + b)


def test_retrieval_counts_own_positions_only():
    eye = torch.eye(4)[None]
    keep = torch.arange(4)[None]
    hits, rows = retrieval_hits(eye, eye, keep, keep)
    assert (int(hits), int(rows)) == (4, 4)
    hits, _ = retrieval_hits(eye, eye.roll(1, dims=1), keep, keep)
    assert int(hits) == 0


def test_total_weighs_terms_and_skips_empty_ones():
    sums = {"rgb": torch.tensor(6.0), "depth": torch.tensor(0.0)}
    counts = {"rgb": torch.tensor(3.0), "depth": torch.tensor(0.0)}
    assert float(weighted_total(sums, counts, {"rgb": 0.5, "depth": 9.0})) == 1.0


def test_half_precision_around_the_losses_does_not_touch_the_logits():
    generator = torch.Generator().manual_seed(0)
    rgb, other = (torch.randn(2, 9, 64, generator=generator) for _ in range(2))
    places = torch.arange(9).expand(2, 9)
    for loss in (contrastive_loss, batch_contrastive_loss):
        expected = loss(rgb, other, places, places)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(rgb, other, places, places)[0], expected), loss.__name__


def test_normalising_flat_and_invalid_patches_has_finite_gradients():
    for mode in ("pooled", "per_channel"):
        flat = torch.full((1, 2, 12), 0.5, requires_grad=True)
        valid = torch.tensor([1, 0], dtype=torch.bool)[None, :, None].expand(1, 2, 12)
        values = normalize_patches(flat, mode, 3, 1e-6, valid)
        assert torch.equal(values, torch.zeros_like(values))
        values.square().sum().backward()
        assert torch.isfinite(flat.grad).all(), mode
