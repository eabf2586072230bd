"""The allocator keeps what a step frees: the next buffer costs no page faults."""

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from m33d_hf.training.allocator import keep_freed_memory
print(int(keep_freed_memory()))
def faults(mebibytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(mebibytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(64)
print(faults(32))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told")
def test_a_buffer_of_32_mib_is_not_mapped_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    told, faults = map(int, done.stdout.split())
    assert not told or faults < (32 << 20) // resource.getpagesize() // 10
