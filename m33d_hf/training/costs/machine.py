"""What a run can use: memory of its device, its peak and how much there is, and cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_GPU_SHARE = 0.95  # of a device: the rest is its context's and the allocator's
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# Microseconds of computing in a period of so many: in one file ("max" for no limit), or in two (-1 for none).
_QUOTA, _QUOTA_1 = "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_{}_us"


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
    if resource is None:
        import psutil  # comes with accelerate

        found = psutil.Process().memory_info()
        return int(getattr(found, "peak_wset", found.rss) if field == "VmHWM" else found.rss)
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


def usable_cores() -> int:
    """CPU cores that this process may keep busy: those that it is bound to, and no more than a container's quota
    (`docker --cpus`, Kubernetes' limits), which hides no core and gives none more time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return bound if quota is None else max(1, min(bound, int(quota)))


def _quota() -> float | None:
    """Cores' worth of time in a container; None without a limit."""
    for files in ((_QUOTA,), (_QUOTA_1.format("quota"), _QUOTA_1.format("period"))):
        try:
            words = [word for file in files for word in Path(file).read_text(encoding="ascii").split()]
        except OSError:
            continue
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            return int(words[0]) / int(words[1])
    return None
