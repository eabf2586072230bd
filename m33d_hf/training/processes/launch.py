"""Sets up the process environment of a run (Accelerator, threads, ranks) and restores it at the end."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Its functions have the default group as it is when they are defined: imported beside a group, they would hold that
# for ever, and gloo's threads with it. Now there is none.
import torch.distributed.nn.functional
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import ProjectConfiguration
from torch import nn

from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.errors import CheckpointError, ConfigError, MissingDependencyError
from m33d_hf.training.processes.fsdp2 import launcher_hidden, settle_sharding
from m33d_hf.training.processes.guards import check_world_size, full_disk_named, lost_process_named, memory_named
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.recipe.arguments import RunArguments


@contextmanager
def open_accelerator(args: RunArguments) -> Iterator[Accelerator]:
    """Build the Accelerator of a run; afterwards threads, RNG, environment and Accelerate's singletons are as before.

    Two things stay: on CPU the process keeps the memory that it frees (m33d_hf.data.loader.allocator), and one that a
    launcher started ends when that is gone (m33d_hf.training.processes.launcher).

    Raises:
        ConfigError: a precision that the device does not support, or an unexpected number of processes.
        CheckpointError: the disk was full while the block wrote something.
        WorkerLostError: a reading process, or another process of the run, was killed.
        DeviceMemoryError: the block needed more memory than the device has free.
        MissingDependencyError: a tracker whose package is not installed.
    """
    watch_launcher()
    threads, environment = torch.get_num_threads(), dict(os.environ)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and not args.cpu else []
    check_launcher(args)
    settle_sharding(args)
    named, generators = full_disk_named(args.output_dir), torch.random.fork_rng(devices=devices)
    with named, lost_process_named(), memory_named(args), launcher_hidden(), generators:
        _reset_accelerate()
        grouped = dist.is_available() and dist.is_initialized()
        try:
            accelerator = _accelerator(args)
            check_world_size(args.num_processes, accelerator.num_processes)
            if accelerator.device.type == "cpu":
                keep_freed_memory()
            if args.cpu_threads is not None:
                torch.set_num_threads(args.cpu_threads)
            yield accelerator
        finally:
            _reset_accelerate()
            torch.set_num_threads(threads)
            if not grouped and dist.is_available() and dist.is_initialized():
                # A second run of this process joins the same group, so it is destroyed at the very end.
                atexit.register(_leave_group)
            else:
                os.environ.clear()
                os.environ.update(environment)


def check_launcher(args: RunArguments) -> None:
    """Refuse settings of an accelerate configuration that the recipe decides, where the two contradict each other.

    Raises:
        ConfigError: a setting that would otherwise be ignored silently.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", args.train.precision):
        raise ConfigError(
            f"The accelerate configuration says mixed_precision: {precision}, but the run has train.precision: "
            f"{args.train.precision}. The run's value is used: pass --train.precision {precision}, or write no there."
        )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise ConfigError("The accelerate configuration sets dynamo_backend: write no there and pass --train.compile.")
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") not in ("1", "auto"):
        raise ConfigError(
            "The accelerate configuration sets gradient_accumulation_steps, which would divide the gradients a second "
            "time: write 1 there and pass --train.accumulation."
        )


def _accelerator(args: RunArguments) -> Accelerator:
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # Without this, torchrun on a machine without accelerators starts several runs of one process each.
    cpu = args.cpu or (launched > 1 and not torch.accelerator.is_available())
    logging_dir = Path(args.output_dir) / "tensorboard"
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=args.train.precision,
            log_with=list(args.logging.trackers) or None,
            project_config=ProjectConfiguration(args.output_dir, logging_dir=str(logging_dir)),
            kwargs_handlers=[ddp_options()],
        )
    except ValueError as error:
        raise ConfigError(
            f"train.precision={args.train.precision} with logging.trackers={args.logging.trackers} cannot be used here "
            f"(for no tracker, pass --logging.trackers []): {error}"
        ) from error
    # One that is refused below would leave while others still join, who would tell of a lost process instead.
    accelerator.wait_for_everyone()
    if args.train.precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError(
            "train.precision=fp16 needs an accelerator (Accelerate would silently train in float32); on CPU use bf16 "
            "or no."
        )
    available = {str(tracker) for tracker in accelerator.log_with}
    missing = [tracker for tracker in args.logging.trackers if tracker not in available]
    if missing:
        raise MissingDependencyError(
            f"logging.trackers: the package {', '.join(missing)} is not installed; run `pip install {missing[0]}` or "
            "choose other trackers."
        )
    return accelerator


def ddp_options() -> DistributedDataParallelKwargs:
    """How DDP wraps a model of this package: every parameter is used in every step, and no buffer ever changes."""
    return DistributedDataParallelKwargs(
        find_unused_parameters=False, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def prepare_ddp(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, AcceleratedOptimizer]:
    """Wrap a model, by DDP where there are several processes, and its optimizer."""
    with warnings.catch_warnings():
        # DDP's newer word for broadcast_buffers=False is unknown to Accelerate and to torch 2.11.
        warnings.simplefilter("ignore", FutureWarning)
        prepared, wrapped = accelerator.prepare(model, optimizer)
    return prepared, wrapped


def _reset_accelerate() -> None:
    """Forget the singletons, which refuse a second run with another precision or device in the same process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _leave_group() -> None:
    """End the group and its threads: one of gloo that lives when the interpreter ends can abort the process.

    torch lets go of the group, but a DDP model holds it as well, and an error holds the frames with that model.
    """
    if not dist.is_initialized():
        return
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):  # of an error that nobody caught
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()
    dist.destroy_process_group()


class Ranks:
    """The processes of a run as seen by the host: agreement on small numbers, and work for the main one.

    Where the devices talk through NCCL, host numbers go through a gloo group of their own, so that agreeing never
    waits for the device.

    Attributes:
        size, rank, main: number of processes, which of them this is, and whether it is the main one.
        device: where this process computes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.device = accelerator.device
        self.size = accelerator.num_processes
        self.rank = accelerator.process_index
        self.main = accelerator.is_main_process
        self._group: dist.ProcessGroup | None = None
        if self.size > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")  # type: ignore[assignment]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over all ranks."""
        if self.size == 1:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced, group=self._group)
        return reduced.tolist()

    def gather(self, value: float) -> list[float]:
        """The value of every rank, in order."""
        return self.sums([value if rank == self.rank else 0.0 for rank in range(self.size)])

    def gather_objects(self, value: object) -> list[Any]:
        """A small picklable value of every rank, in order; for rare events."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._group)
        return found

    def on_main(self, work: Callable[[], object]) -> None:
        """Run `work` on the main process while the others wait; when it fails, all of them raise.

        Raises:
            Exception: what `work` raised, on the main process.
            CheckpointError: on the others.
        """
        failure: Exception | None = None
        if self.main:
            try:
                work()
            except Exception as error:
                failure = error
        try:
            failed = self.sums([float(failure is not None)])[0] > 0
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame: a cycle, which would keep the run and its group alive
        if failed:
            raise CheckpointError("The main process could not write to the output folder; see its error message.")


def sum_over_ranks(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Sum a device tensor over ranks in place, without waiting for it."""
    if ranks.size > 1:
        dist.all_reduce(values)
    return values


def maximum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Largest value over ranks, for tasks whose loss needs one (berHu); no gradient, any number of processes."""
    value = value.detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value
