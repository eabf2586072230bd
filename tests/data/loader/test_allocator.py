"""The allocator keeps what a step frees: the next buffer costs no page faults."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest

from m33d_hf.data.loader.allocator import keep_freed_memory

PROGRAM = """
import resource, torch
from m33d_hf.data.loader.allocator import keep_freed_memory
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    told, faults = map(int, done.stdout.split())
    assert not told or faults < (32 << 20) // resource.getpagesize() // 10


class OldLibrary:
    """glibc with a limit on the threshold for mapping."""

    gnu_get_libc_version = None

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.told: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> int:
        self.told.append((name, value))
        return int(name != -3 or value <= self.limit)


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_an_old_glibc_gets_what_it_takes(undecided: pytest.MonkeyPatch) -> None:
    library = OldLibrary(32 << 20)
    undecided.setattr(ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory()
    assert library.told[-2:] == [(-3, 32 << 20), (-1, 2**31 - 1)]


def test_the_trim_threshold_is_never_told_alone(undecided: pytest.MonkeyPatch) -> None:
    library = OldLibrary(0)
    undecided.setattr(ctypes, "CDLL", lambda name: library)
    assert not keep_freed_memory()
    assert all(name == -3 for name, _ in library.told)


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")]
)
def test_an_environment_that_decides_is_left_alone(undecided: pytest.MonkeyPatch, name: str, value: str) -> None:
    undecided.setenv(name, value)
    undecided.setattr(ctypes, "CDLL", lambda name: pytest.fail("the allocator was told"))
    assert not keep_freed_memory()
