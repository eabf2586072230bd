"""Time in lines on progress."""

from m33d_hf.data.clock import clock


def test_times_of_progress():
    assert [clock(seconds) for seconds in (0.4, 61, 3599.6, 90_061)] == ["0:00:00", "0:01:01", "1:00:00", "25:01:01"]
    assert clock(-2.0) == "0:00:00", "an estimate that came out too small"
    assert clock(float("nan")) == "an unknown time"
