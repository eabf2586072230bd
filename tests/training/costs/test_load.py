"""Other programs' share of the processor is measured, and told where it matters."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from m33d_hf.training.costs.load import Load, watched_load


def _work(seconds: float) -> None:
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


def test_factor_is_what_the_others_cores_could_have_given() -> None:
    assert Load(own=1.0, others=1.0, threads=2).factor == 2.0
    assert Load(own=1.0, others=1.0, threads=1).factor == 1.0, "they took a core that this process does not use"
    assert Load(own=1.5, others=0.2, threads=4).factor == pytest.approx(1.7 / 1.5)
    assert Load(own=2.0, others=9.0, threads=2).factor == 1.0
    assert Load(own=1.9, others=0.1, threads=2).warning() is None
    told = Load(own=0.8, others=1.2, threads=2).warning()
    assert told is not None and "other programs took 1.2 cores" in told and "up to 2.5 x too high" in told


@pytest.mark.skipif(not os.path.isfile("/proc/stat"), reason="other systems do not count the time of all programs")
def test_a_program_beside_this_one_is_seen() -> None:
    busy = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(busy) as other:
        try:
            time.sleep(0.2)
            with watched_load(threads=1) as load:
                _work(1.0)
        finally:
            other.kill()
    assert 0.1 < load.own <= 1.05
    assert load.others > 0.3, "the other one never stops working"


def test_elsewhere_the_load_average_stands_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m33d_hf.training.costs.load._busy_seconds", lambda: None)
    monkeypatch.setattr("os.getloadavg", lambda: (3.25, 0.0, 0.0))
    with watched_load(threads=4) as load:
        _work(0.05)
    assert load.others == 3.25 and load.threads <= 4
