"""What a run computes on: its kind decides sizes, and a CPU that is slower than usual takes fewer steps."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import torch
from torch import nn

from m33d_hf.data.plural import plural
from m33d_hf.training.costs.machine import memory_for_one, usable_cores
from m33d_hf.training.recipe.arguments import RunArguments

# Operations per second that training reaches in practice: small matrices and float32 on a CPU, bf16 on a GPU.
_PER_CORE = 6e10
_PER_GPU = 2e13
# Core seconds to read and augment a picture of 640 x 480.
_PER_PICTURE = 0.019
# Grades of a CPU's speed, so coarse that two measurements of the same idle machine hardly ever differ. None is above 1:
# a faster machine is done earlier.
_GRADES = {1.0: "", 0.7: "two thirds", 0.5: "half", 0.35: "a third", 0.25: "a quarter"}
# Of the memory that is free, for decoded samples.
_MEMORY_SHARE = 0.125
_TOKENS, _WIDTH, _MEASURED_FOR = 3072, 128, 0.4  # of the measurement; the last in seconds


@dataclass(frozen=True)
class Machine:
    """One process of a run.

    Attributes:
        kind: "cpu" or "gpu".
        cores: CPU cores that the process may keep busy, rounded down to a power of two.
        processes: that share the batch.
        speed: of a core, 1 or a share of the usual; see `measure_speed`.
    """

    kind: str
    cores: int
    processes: int = 1
    speed: float = 1.0

    @property
    def workers(self) -> int:
        """Processes that read, beside each that trains."""
        return min(max(self.cores // self.processes - 1, 1), 8)

    @property
    def gigabytes_for_samples(self) -> float:
        """Memory that decoded samples of one process may take; 0 where the system does not say what is free."""
        return _MEMORY_SHARE * (memory_for_one(torch.device("cpu")) or 0) / self.processes / 1e9

    def seconds(self, operations: float, pictures: float) -> float:
        """Time for some operations and for reading some pictures of 640 x 480 beside them, roughly."""
        reading = pictures * _PER_PICTURE / self.cores
        if self.kind == "gpu":
            return max(operations / (_PER_GPU * self.processes), reading)
        return (operations / (_PER_CORE * self.cores) + reading) / self.speed  # they share the cores

    def __str__(self) -> str:
        cores = plural(self.cores, "CPU core")
        if self.kind == "cpu":
            share = _GRADES.get(self.speed, f"{self.speed:.0%}")
            return f"{cores} at {share} of the usual speed" if share else cores
        return f"{plural(self.processes, 'GPU')}, {cores}"


def find_machine(args: RunArguments) -> Machine:
    """The machine that a run would use. Of processes that share a run none measures: each would slow the others, and
    what they see differently is settled by the first one (`m33d_hf.training.settling.sharing`)."""
    available = usable_cores()
    cores = 1 << (max(1, args.cpu_threads or available).bit_length() - 1)
    processes = args.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available() and not args.cpu:
        return Machine("gpu", cores, processes)
    return Machine("cpu", cores, processes, measure_speed(cores) if processes == 1 else 1.0)


def measure_speed(cores: int) -> float:
    """How fast this machine trains at the moment, as a grade of the speed that the sizing rule counts on.

    Forward and backward passes of a small feed-forward network on all `cores`, for less than half a second; the fastest
    counts, as it is disturbed least. Other programs that keep the cores busy make the machine a slower one.
    """
    inner = 4 * _WIDTH
    layers = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, inner), nn.GELU(), nn.Linear(inner, _WIDTH))
    tokens = torch.ones(_TOKENS, _WIDTH)
    operations = 3 * 2 * 2 * _TOKENS * _WIDTH * inner  # three products of both layers, two operations per weight
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        fastest, end = math.inf, time.perf_counter() + _MEASURED_FOR
        while (start := time.perf_counter()) < end:
            layers(tokens).square().mean().backward()
            fastest = min(fastest, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    share = operations / fastest / (_PER_CORE * cores)
    return min(_GRADES, key=lambda grade: abs(math.log(grade / min(share, 1.0))))
