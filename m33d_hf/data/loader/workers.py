"""How the worker processes of a loader start, run and end."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader

from m33d_hf.data.files.parenthood import end_with
from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.errors import ConfigError, WorkerLostError, nearest_name_hint


def worker_context(name: str | None) -> BaseContext:
    """multiprocessing's way of starting processes; forked ones are known to have started.

    Args:
        name: "fork", "forkserver" or "spawn"; None takes fork where the system has it.

    Raises:
        ConfigError: a start method that the system does not have.
    """
    known = multiprocessing.get_all_start_methods()
    if name is None:
        name = "fork" if "fork" in known else "spawn"
    if name not in known:
        hint = nearest_name_hint(name, known)
        raise ConfigError(
            f"multiprocessing_context is {name!r}; on this system it must be one of {', '.join(known)}.{hint}"
        )
    if name != "fork":
        return multiprocessing.get_context(name)
    from m33d_hf.data.loader.worker_forking import ForkContext  # Windows has nothing to derive it from

    return ForkContext()


def tells_of_a_lost_worker(error: BaseException) -> bool:
    """Whether this is torch's error for a killed worker process, which it raises wherever the main thread is."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def lost_worker(error: BaseException) -> WorkerLostError:
    """Our error for what torch or the system raises when a worker process was killed."""
    return WorkerLostError(
        f"A worker process was killed, most likely because the machine ran out of memory ({type(error).__name__}: "
        f"{error}). Use fewer of them (--data.num_workers), then continue the run."
    )


class WorkerLoader(DataLoader[Any]):
    """A DataLoader that distinguishes a killed worker process from data that cannot be read.

    Raises (when iterated):
        WorkerLostError: instead of the connection errors that such a process causes.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # whoever reads needs no more than an iterator
        iterator = super().__iter__()
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                # "Caught X in DataLoader worker process": raised by the data set, in a process that lives.
                if str(error).startswith("Caught ") or not _one_was_killed(iterator):
                    raise
                raise lost_worker(error) from error
            yield batch


def _one_was_killed(iterator: Any) -> bool:
    workers = getattr(iterator, "_workers", [])
    for worker in workers:
        worker.join(0.2)  # the end of a process is known a moment after its pipes are
    return any((worker.exitcode or 0) < 0 for worker in workers)


def end_children() -> None:
    """End the remaining daemonic children when the interpreter exits.

    multiprocessing would send them SIGTERM, which our workers ignore, and wait for ever; so would a script that leaves
    its loader in the middle of an epoch.
    """
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
            child.join()


def _starter() -> int:
    """The process without which this worker is of no use, as long as it is the worker's parent.

    Mostly the one that owns the loader. A fork server lies between the two and ends when the owner does; then that.
    """
    owner = multiprocessing.parent_process()
    if owner is None or owner.pid is None:
        return os.getppid()
    return os.getppid() if os.getppid() != owner.pid and _lives(owner.pid) else owner.pid


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except OSError:
        return False
    return True


def start_worker(worker_id: int) -> None:
    """Give a worker one thread and let it keep freed memory; leave signals to the process that owns it.

    A signal sent to the whole process group would otherwise kill the workers first, and the training process would die
    of that instead of saving. Workers end with their parent, even in the middle of a file.
    """
    end_with(_starter())
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def stop_workers(loader: object) -> None:
    """End the persistent workers of a DataLoader now.

    They ignore SIGTERM, which is how multiprocessing ends children when the interpreter exits: an error whose
    traceback still holds the loader would otherwise wait for them for ever. For the same reason one that is still
    reading after the loader's own patience (5 s), after which it is sent SIGTERM, is killed.
    """
    iterator = getattr(loader, "_iterator", None)
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is None:
        return
    shut_down()
    for worker in getattr(iterator, "_workers", []):
        if worker.is_alive():
            worker.kill()
        worker.join()
