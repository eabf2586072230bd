"""The peak of a block is what was allocated in it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from m33d_hf.training.costs.machine import memory_for_one, resident

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="resets the kernel's high-water mark")
def test_the_peak_rises_by_what_a_block_holds_and_is_forgotten_afterwards() -> None:
    code = (
        "import torch; from m33d_hf.training.costs.machine import peak_memory, resident\n"
        "before, cpu = resident(), torch.device('cpu')\n"
        "with peak_memory(cpu) as large: torch.ones(100 << 18)\n"  # 100 MiB of float32
        "with peak_memory(cpu) as small: torch.ones(10 << 18)\n"
        "print(large.total - before, large.total - small.total)"
    )
    # In a process of its own: what other tests freed, and the allocator kept, would be taken from instead.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rise, fall = map(int, done.stdout.split())
    assert rise == pytest.approx(100 << 20, rel=0.1)
    assert fall > 50 << 20


def test_a_process_may_have_what_it_has_and_what_is_free() -> None:
    available = memory_for_one(CPU)
    assert available is None or available > resident() > 1 << 20
