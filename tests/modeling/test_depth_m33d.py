import math

import numpy as np
import pytest
import torch

from m33d_hf.errors import ConfigError
from m33d_hf.modeling import depth_m33d
from m33d_hf.modeling.depth_m33d import (
    DepthSpec,
    _trimmed_moments,
    _trimmed_moments_by_sort,
    resize_depth,
    standardize_depth,
)


def holey(*shape: int, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    depth = 0.5 + 4 * torch.rand(shape, generator=generator)
    return depth.masked_fill(torch.rand(shape, generator=generator) < share, math.nan)


def trimmed_reference(values: np.ndarray) -> np.ndarray:
    """The formula in float64, one group, by hand."""
    flat = values.astype(np.float64).ravel()
    valid = np.sort(flat[np.isfinite(flat)])
    kept = valid[int(0.1 * len(valid)) : int(0.9 * len(valid))]
    result = (values.astype(np.float64) - kept.mean()) / np.sqrt(kept.var(ddof=1) + 1e-6)
    return np.where(np.isfinite(values), result, 0.0)


def test_trimmed_clip_scope_equals_float64_formula():
    depth = holey(2, 3, 1, 9, 11)
    values, mask = standardize_depth(depth, "trimmed", "clip")
    for sample in range(2):
        expected = trimmed_reference(depth[sample].numpy())
        np.testing.assert_allclose(values[sample].numpy(), expected, atol=2e-6, rtol=2e-6)
    assert torch.equal(mask, ~depth.isnan())
    assert (values[~mask] == 0).all()


def test_trimmed_frame_scope_equals_float64_formula():
    depth = holey(2, 3, 1, 9, 11, seed=1)
    values, _ = standardize_depth(depth, "trimmed", "frame")
    for sample in range(2):
        for frame in range(3):
            expected = trimmed_reference(depth[sample, frame].numpy())
            np.testing.assert_allclose(values[sample, frame].numpy(), expected, atol=2e-6, rtol=2e-6)


def test_trimmed_without_batch_dimension_and_without_holes():
    depth = holey(1, 1, 20, 20, share=0.0)
    values, mask = standardize_depth(depth)
    np.testing.assert_allclose(values.numpy(), trimmed_reference(depth.numpy()), atol=2e-6, rtol=2e-6)
    assert mask.all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_accelerator_path_has_the_same_moments(share: float):
    depth = holey(4, 300, share=share)
    valid = ~depth.isnan()
    for ours, theirs in zip(
        _trimmed_moments(depth.nan_to_num(), valid), _trimmed_moments_by_sort(depth.nan_to_num(), valid)
    ):
        torch.testing.assert_close(ours, theirs)


def test_full_mode_equals_float64_formula():
    depth = holey(2, 2, 1, 8, 8, seed=2)
    values, _ = standardize_depth(depth, "full", "clip")
    for sample in range(2):
        numbers = depth[sample].double().numpy()
        valid = numbers[np.isfinite(numbers)]
        expected = np.nan_to_num((numbers - valid.mean()) / valid.std(ddof=1))
        np.testing.assert_allclose(values[sample].numpy(), expected, atol=2e-6, rtol=2e-6)


def test_holes_do_not_move_the_statistics():
    plain = holey(1, 1, 16, 16, share=0.0, seed=3)
    wide = torch.full((1, 1, 16, 32), math.nan)
    wide[..., :16] = plain
    torch.testing.assert_close(standardize_depth(wide)[0][..., :16], standardize_depth(plain)[0])


@pytest.mark.parametrize("mode", ["trimmed", "full", "none"])
@pytest.mark.parametrize("valid_pixels", [0, 1, 2, 3])
def test_finite_with_hardly_any_valid_pixel(mode: str, valid_pixels: int):
    depth = torch.full((2, 1, 1, 4, 4), math.nan)
    depth.view(2, -1)[1, :valid_pixels] = torch.tensor([2.0, 2.5, 40.0])[:valid_pixels]
    values, mask = standardize_depth(depth, mode)
    assert torch.isfinite(values).all()
    assert (values[~mask] == 0).all()
    assert mask.sum() == valid_pixels


def test_flat_wall_is_zero_and_infinity_is_invalid():
    depth = torch.full((1, 1, 4, 4), 3.0)
    depth[0, 0, 0, 0] = math.inf
    for mode in ("trimmed", "full"):
        values, mask = standardize_depth(depth, mode)
        assert values.abs().max() < 1e-3
        assert not mask[0, 0, 0, 0]


def test_none_keeps_metres():
    depth = holey(1, 1, 4, 4)
    values, mask = standardize_depth(depth, "none")
    assert torch.equal(values[mask], depth[mask])


def test_unknown_mode_and_shape_are_refused():
    with pytest.raises(ConfigError, match="trimmed"):
        standardize_depth(torch.zeros(1, 1, 2, 2), "trimed")
    with pytest.raises(ConfigError, match=r"\(\.\.\., T, 1, H, W\)"):
        standardize_depth(torch.zeros(3, 3, 2, 2))


def test_decode_millimetres_exactly():
    stored = np.array([[0, 1, 1234], [65535, 65534, 3000]], np.uint16)
    decoded = DepthSpec(unit="mm").decode(stored)
    assert decoded.dtype == np.float32
    expected = np.array([[np.nan, 0.001, 1.234], [np.nan, 65.534, 3.0]], np.float32)
    np.testing.assert_array_equal(decoded, expected)


def test_decode_float_metres_bounds_and_negative():
    spec = DepthSpec(unit="metre", invalid_values=(), min_depth=0.5, max_depth=10)
    decoded = spec.decode(np.array([0.0, -1.0, 0.4, 0.5, 10.0, 10.1, np.inf, np.nan]))
    np.testing.assert_array_equal(decoded, np.array([np.nan] * 3 + [0.5, 10.0] + [np.nan] * 3, np.float32))


def test_relative_keeps_zero_and_negative_when_not_listed():
    decoded = DepthSpec(kind="relative", invalid_values=(255,)).decode(np.array([0, 7, 255], np.uint8))
    np.testing.assert_array_equal(decoded, np.array([0, 7, np.nan], np.float32))


def test_spec_derives_unit_from_scale_and_back():
    assert DepthSpec(scale=5000).unit == "tum"
    assert DepthSpec(unit="tenth_millimetre").scale == 10000
    assert DepthSpec(scale=4000).unit == "custom"
    assert DepthSpec().with_changes(scale=1).unit == "metre"


def test_spec_round_trip_and_refusals():
    spec = DepthSpec(scale=10000, max_depth=8.0)
    assert DepthSpec.from_dict(spec.to_dict()) == spec
    assert "10000" in spec.describe() and "8" in spec.describe()
    with pytest.raises(ConfigError, match="millimetre"):
        DepthSpec(unit="milimetre")
    with pytest.raises(ConfigError, match="give only one"):
        DepthSpec(unit="metre", scale=1000)
    with pytest.raises(ConfigError, match="'scale'"):
        DepthSpec.from_dict({"scal": 1})
    with pytest.raises(ConfigError, match="scale is 0; it must be at least 1e-06"):
        DepthSpec(scale=0)


@pytest.mark.parametrize("size", [(3, 4), (13, 9), (12, 16)])
def test_nearest_resize_only_returns_values_that_were_there(size: tuple[int, int]):
    depth = holey(2, 1, 6, 8, seed=5)
    resized = resize_depth(depth, size)
    assert resized.shape == (2, 1, *size)
    originals = set(depth[~depth.isnan()].tolist())
    assert set(resized[~resized.isnan()].tolist()) <= originals
    assert resized.isnan().any() and (~resized.isnan()).any()


def test_nearest_resize_twice_the_size_repeats_pixels():
    depth = holey(1, 1, 3, 5)
    expected = depth.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(resize_depth(depth, (6, 10)), expected, equal_nan=True)


def test_average_resize_takes_the_mean_of_valid_pixels_only():
    nan = math.nan
    depth = torch.tensor([[1.0, nan, 4.0, nan], [3.0, 5.0, nan, nan]])
    resized = resize_depth(depth, (1, 2), mode="average")
    assert resized[0, 0].item() == pytest.approx(3.0)
    assert math.isnan(resized[0, 1].item())


@pytest.mark.parametrize("kind", ["millimetres", "continuous", "few values", "flat", "negative"])
def test_many_values_are_trimmed_as_few_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(3)
    depth = {
        "millimetres": lambda: draws.normal(2500, 500, 30000).astype(np.uint16) / 1000,
        "continuous": lambda: draws.lognormal(0, 2, 30000),
        "few values": lambda: draws.integers(0, 4, 30000),
        "flat": lambda: np.where(draws.random(30000) < 0.95, 2.0, draws.random(30000)),
        "negative": lambda: draws.normal(0, 1, 30000),
    }[kind]()
    clip = torch.from_numpy(depth.astype(np.float32)).reshape(1, 3, 1, 100, 100)
    clip[..., :7] = math.nan
    partitioned = standardize_depth(clip)
    monkeypatch.setattr(depth_m33d, "_MANY", 1)
    if kind != "negative":
        monkeypatch.setattr(np, "partition", None)
    counted = standardize_depth(clip)
    assert torch.equal(counted[0], partitioned[0]) and torch.equal(counted[1], partitioned[1])
