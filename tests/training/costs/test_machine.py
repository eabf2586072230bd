"""The peak of a block is what was allocated in it."""

from __future__ import annotations

import sys

import pytest
import torch

from m33d_hf.training.costs.machine import memory_for_one, peak_memory, resident

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="resets the kernel's high-water mark")
def test_the_peak_rises_by_what_a_block_holds_and_is_forgotten_afterwards() -> None:
    before = resident()
    with peak_memory(CPU) as large:
        torch.ones(100 << 18)  # 100 MiB of float32
    with peak_memory(CPU) as small:
        torch.ones(10 << 18)
    assert large.total - before == pytest.approx(100 << 20, rel=0.1)
    assert small.total < large.total - (50 << 20)


def test_a_process_may_have_what_it_has_and_what_is_free() -> None:
    available = memory_for_one(CPU)
    assert available is None or available > resident() > 1 << 20
