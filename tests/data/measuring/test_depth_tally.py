import json
from collections.abc import Callable

import numpy as np
import pytest

from helpers.sunrgbd_folders import rotated
from m33d_hf.data.measuring.depth_tally import DepthTally
from m33d_hf.modeling.depth_m33d import DepthSpec

MM = DepthSpec(unit="millimetre")


def test_quantiles_counts_and_merging_agree_with_numpy():
    draw = np.random.default_rng(0)
    maps = [draw.lognormal(0.5, 0.6, (60, 60)).astype(np.float32) for _ in range(6)]
    maps[2][:30] = np.nan
    maps[4][:] = np.nan
    whole, first, second = DepthTally(), DepthTally(), DepthTally()
    for number, depth in enumerate(maps):
        assert whole.add(depth, MM) is (number != 4)
        (first if number < 3 else second).add(depth, MM)
    first.merge(DepthTally.from_dict(json.loads(json.dumps(second.to_dict()))))
    assert first == whole
    pooled = np.concatenate([depth[np.isfinite(depth)] for depth in maps])
    for share in (0.01, 0.5, 0.99):
        assert whole.quantile(share) == pytest.approx(np.quantile(pooled, share), rel=0.02)
    assert (whole.frames, whole.blank) == (6, 1)
    assert whole.invalid_share == pytest.approx(np.mean([np.isnan(depth).mean() for depth in maps]))
    assert DepthTally().quantile(0.5) is None


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(lambda mm: rotated(mm), True), (lambda mm: mm, False), (lambda mm: mm // 16 * 16, False)],
    ids=["rotated", "millimetres", "coarse"],
)
def test_rotated_bits_are_recognised_and_other_steps_are_not(
    stored: Callable[[np.ndarray], np.ndarray], expected: bool
):
    """Two values of a hundred lie beyond 8.191 m, where the upper bits come down and leave no multiple of 8."""
    millimetres = np.random.default_rng(1).integers(700, 8000, (80, 80)).astype(np.uint16)
    millimetres[::50] = 8999
    tally = DepthTally()
    tally.add(MM.decode(stored(millimetres)), MM)
    assert tally.looks_rotated is expected


def test_65535_and_eight_bits_are_counted_and_add_up():
    spec = DepthSpec(unit="millimetre", invalid_values=(0,))
    stored = np.full((60, 60), 2000, np.uint16)
    stored[:15] = 65535
    first, second = DepthTally(), DepthTally()
    first.add(spec.decode(stored), spec)
    second.add(spec.decode(np.full((60, 60), 255, np.uint16)), spec)
    assert first.saturated / first.stored == 0.25 and not first.eight_bits
    assert second.saturated == 0 and second.eight_bits
    second.merge(first)
    assert (second.saturated, second.largest, second.eight_bits) == (first.saturated, 65535, False)
