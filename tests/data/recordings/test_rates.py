"""data/recordings/rates.py: the rate of a recording is that of its clock, not that of its rounding."""

from __future__ import annotations

import numpy as np
import pytest

from m33d_hf.data.recordings.rates import frames_per_second


@pytest.mark.parametrize("rate", [5.0, 15.0, 29.97, 30.0, 60.0])
@pytest.mark.parametrize("frames", [24, 3000])
def test_rounding_to_milliseconds_does_not_count(rate: float, frames: int) -> None:
    stamps = np.round(np.arange(frames) / rate, 3) + 7.0
    found = frames_per_second(stamps[::-1].tolist())
    assert found is not None and found == pytest.approx(rate, rel=2e-3 if frames < 100 else 1e-4)
    if rate == 30.0:
        assert found == rate
    lossy = np.delete(stamps, [5, 6, 12])
    again = frames_per_second(lossy.tolist())
    assert again is not None and again == pytest.approx(rate, rel=2e-3 if frames < 100 else 1e-4), "lost frames"


def test_no_times_have_no_rate() -> None:
    assert [frames_per_second(times) for times in ([], [1.0], [1.0, 1.0, 1.0])] == [None, None, None]
