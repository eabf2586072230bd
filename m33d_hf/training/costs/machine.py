"""Memory of the device that a run uses: its peak, and how much there is."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_GPU_SHARE = 0.95  # of a device: the rest is its context's and the allocator's
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass
class Peak:
    """Bytes at the peak of a block: allocated on a GPU; on a CPU resident in the process, Python and libraries
    included."""

    total: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak of the block; its `total` is set at the end.

    On a CPU this is the high-water mark of the process, which Linux lets us reset. Where it cannot be reset (other
    systems), it is that of the whole process so far, which may be larger.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            _RESET.write_text("5", encoding="ascii")
    yield peak
    peak.total = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident("VmHWM")


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory: now ("VmRSS"), or the most since the mark was reset ("VmHWM")."""
    stated = _kibibytes(_STATUS, field)
    if stated is not None:
        return stated
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_for_one(device: torch.device) -> int | None:
    """Bytes that this process could hold at most: what it holds and what is free; None if the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int((free + torch.cuda.memory_reserved(device)) * _GPU_SHARE)
    here = (_kibibytes(Path("/proc/meminfo"), "MemAvailable"), _left_in_group())
    free_here = [free for free in here if free is not None]
    return min(free_here) + resident() if free_here else None


def _kibibytes(file: Path, field: str) -> int | None:
    """Bytes of a line "field:  123 kB" of a file of Linux's; None without it."""
    if not file.is_file():  # another system
        return None
    lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _left_in_group() -> int | None:
    """What a container may still take; None without a limit."""
    for limit, usage in _CGROUPS:
        try:
            most, used = (Path(file).read_text(encoding="ascii").strip() for file in (limit, usage))
        except OSError:
            continue
        if most.isdecimal() and int(most) < 1 << 60:
            return max(int(most) - int(used), 0)
    return None
