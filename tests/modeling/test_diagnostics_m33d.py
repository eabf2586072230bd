"""The share of position in the variance of features, against analysis of variance by scipy and where it is known."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from m33d_hf.modeling.diagnostics_m33d import position_share

SAMPLES, POSITIONS, VISIBLE = 24, 16, 5


def _keep(generator: torch.Generator) -> torch.Tensor:
    return torch.stack([torch.randperm(POSITIONS, generator=generator)[:VISIBLE].sort().values for _ in range(SAMPLES)])


def test_one_dimension_is_epsilon_squared_of_the_f_test() -> None:
    """epsilon^2 = df (F - 1) / (df F + df of the noise), from scipy's F; positions are seen unequally often."""
    generator = torch.Generator().manual_seed(0)
    keep = _keep(generator)
    tokens = torch.randn(SAMPLES, VISIBLE, 1, generator=generator) + 0.3 * keep[..., None]
    groups = [tokens[keep == place].flatten().numpy() for place in range(POSITIONS)]
    groups = [group for group in groups if len(group)]
    f, between = float(stats.f_oneway(*groups).statistic), len(groups) - 1
    expected = between * (f - 1) / (between * f + SAMPLES * VISIBLE - len(groups))
    assert 0.3 < expected < 0.9
    assert float(position_share(tokens, keep, POSITIONS)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_features_of_position_alone_of_none_and_of_both(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    keep = _keep(generator)
    table = scale * torch.randn(POSITIONS, 64, generator=generator)
    noise = scale * torch.randn(SAMPLES, VISIBLE, 64, generator=generator)
    assert float(position_share(table[keep], keep, POSITIONS)) == pytest.approx(1.0, abs=1e-5)
    assert float(position_share(noise, keep, POSITIONS)) == pytest.approx(0.0, abs=0.02), "chance is taken off"
    assert float(position_share(table[keep] + noise, keep, POSITIONS)) == pytest.approx(0.5, abs=0.05)
    assert float(position_share(5 + table[keep], keep, POSITIONS)) == pytest.approx(1.0, abs=1e-5)


def test_without_repeated_positions_nothing_is_said() -> None:
    keep = torch.arange(8).reshape(2, 4)
    assert position_share(torch.randn(2, 4, 3), keep, 8).isnan()
