"""What other programs take of the processor while something is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.training.costs.machine import usable_cores

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, and steal: what other guests of the machine took
_WORTH_SAYING = 1.15  # below, times differ as much by themselves


@dataclass
class Load:
    """Cores in use while a block ran, on average.

    Attributes:
        own: by this process.
        others: by everything else.
        threads: that this process computes with, at most as many as there are cores.
    """

    own: float = 0.0
    others: float = 0.0
    threads: int = 1

    @property
    def factor(self) -> float:
        """How many times faster the block could have been alone, at most: with the cores that others took, as far as
        its threads could have used them."""
        return max(1.0, min(self.threads, self.own + self.others) / max(self.own, 1e-3))

    def warning(self) -> str | None:
        """For the user; None where the others do not matter."""
        if self.factor < _WORTH_SAYING:
            return None
        return (
            f"WARNING: this machine is busy: other programs took {self.others:.1f} cores meanwhile, and this one got "
            f"{self.own:.1f} of the {self.threads} it can use. Times may be up to {self.factor:.1f} x too high for a "
            "machine that has nothing else to do."
        )


@contextmanager
def watched_load(threads: int) -> Iterator[Load]:
    """Watch the processor during the block; the result is complete at its end.

    Linux counts the time of all programs; elsewhere the system's load average at the start stands for the others.

    Args:
        threads: that this process computes with.
    """
    cores = usable_cores()
    load = Load(threads=min(threads, cores))
    waiting = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    before, started, own = _busy_seconds(), time.perf_counter(), time.process_time()
    yield load
    seconds = max(time.perf_counter() - started, 1e-6)
    load.own = (time.process_time() - own) / seconds
    after = _busy_seconds()
    if before is None or after is None:
        load.others = waiting
    else:
        load.others = max(0.0, (after - before) / seconds - load.own)


def _busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the system started; None if the system does not say."""
    try:
        words = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
        ticks = sum(int(words[1 + place]) for place in _BUSY)
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
