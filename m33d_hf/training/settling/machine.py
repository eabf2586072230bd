"""What a run computes on, in classes coarse enough that the same kind of machine always gives the same sizes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from m33d_hf.training.recipe.arguments import RunArguments

# Operations per second that training reaches in practice: small matrices and float32 on a CPU, bf16 on a GPU.
_PER_CORE = 6e10
_PER_GPU = 2e13
# Core seconds to read and augment a picture of 640 x 480.
_PER_PICTURE = 0.019


@dataclass(frozen=True)
class Machine:
    """One process of a run.

    Attributes:
        kind: "cpu" or "gpu".
        cores: CPU cores, rounded down to a power of two.
        processes: that share the batch.
    """

    kind: str
    cores: int
    processes: int = 1

    @property
    def workers(self) -> int:
        """Processes that read, beside each that trains."""
        return min(max(self.cores // self.processes - 1, 1), 8)

    def seconds(self, operations: float, pictures: float) -> float:
        """Time for some operations and for reading some pictures of 640 x 480 beside them, roughly."""
        reading = pictures * _PER_PICTURE / self.cores
        if self.kind == "gpu":
            return max(operations / (_PER_GPU * self.processes), reading)
        return operations / (_PER_CORE * self.cores) + reading  # they share the cores

    def __str__(self) -> str:
        cores = f"{self.cores} CPU core{'s' if self.cores > 1 else ''}"
        if self.kind == "cpu":
            return cores
        return f"{self.processes} GPU{'s' if self.processes > 1 else ''}, {cores}"


def find_machine(args: RunArguments) -> Machine:
    """The machine that a run would use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = args.cpu_threads or available
    processes = args.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available() and not args.cpu
    return Machine("gpu" if gpu else "cpu", 1 << (max(1, cores).bit_length() - 1), processes)
