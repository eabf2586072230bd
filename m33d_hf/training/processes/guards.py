"""Orderly stops of a run, clear errors for lost processes, full disks and devices, and a lock on the output folder."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch
import torch.distributed as dist

from m33d_hf.data.loader.workers import lost_worker, tells_of_a_lost_worker
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import CheckpointError, ConfigError, DeviceMemoryError, M33DError, WorkerLostError, first_line
from m33d_hf.training.processes.launcher import launched
from m33d_hf.training.recipe.arguments import RunArguments, evaluation_batch

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOCK_FILE = ".lock"
SYSTEM_HAS_LOCKS = fcntl is not None
# What gloo says, in errors of no class of their own.
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Allocators beside CUDA's caching one have no class of error of their own.
_NO_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
# The only ones that tell of a lock that another process holds. Others mean that the file system has no such locks
# (ENOSYS of Lustre without the mount option flock, ENOLCK, EOPNOTSUPP), or none of this kind (EBADF of NFS).
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
_told: set[int] = set()


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handler` takes SIGTERM and SIGINT inside the block; outside the main thread, where Python allows none, nothing
    changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


class EvaluationStoppedError(Exception):
    """A signal came in the middle of an evaluation, which all ranks leave together; the loop saves what is trained."""


class StopSignals:
    """Notes SIGTERM, SIGINT and the death of the launcher; the loop asks once per step, and between the batches of an
    evaluation, and stops all ranks together.

    A second SIGINT or SIGTERM has its default effect (KeyboardInterrupt, or the end of the process). The handlers are
    installed only in the main thread, where Python allows it, and restored at the end.

    `accelerate launch` with one process starts a child and dies of a SIGTERM without telling it; a changed parent
    process is how the child finds out. Only processes that a launcher started look at their parent: `nohup` and closed
    terminals must not stop a run. The environment variable M33D_WATCH_PARENT=1 enables it too.
    `m33d_hf.training.processes.launcher` handles the time in which the loop cannot ask.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, Any] = {}
        self._parent = os.getppid() if launched() else None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def requested(self) -> int | None:
        """The signal to act on: the received one, SIGTERM if the launcher has died, or None."""
        if self.received is None and self._parent is not None and os.getppid() != self._parent:
            self.received = int(signal.SIGTERM)
        return self.received

    def join(self) -> None:
        """Stop because another rank must; this one may not have received anything."""
        self.received = self.received or int(signal.SIGTERM)


def exit_code(received: int | None) -> int:
    """The shell's convention: 128 + signal number (143 for SIGTERM, 130 for SIGINT), 0 without a signal."""
    return 0 if received is None else 128 + received


def check_world_size(asked: int | None, found: int) -> None:
    """Compare the world that was found with what the user and the launcher asked for.

    Args:
        asked: `num_processes` of the run, None for whatever was started.
        found: processes that actually take part.

    Raises:
        ConfigError: they differ.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if found != launched:
        raise ConfigError(
            f"The launcher started WORLD_SIZE={launched} processes, but this process found {found}: they would train "
            "separately. On machines without an accelerator, pass --cpu true."
        )
    if asked is not None and asked != found:
        raise ConfigError(
            f"num_processes is {asked}, but {plural(found, 'process')} {agree(found, 'takes', 'take')} part. "
            f"`accelerate launch --cpu --num_processes {asked}` starts a single process; on CPU start the run with "
            f"`torchrun --nproc_per_node {asked} scripts/run_....py ... --num_processes {asked}`."
        )


@contextmanager
def full_disk_named(output_dir: str | Path) -> Iterator[None]:
    """Turn a failed write, wherever it happens in the block, into an error that says what to do.

    Raises:
        CheckpointError: the disk is full, a quota or a limit on file sizes is reached, it became read-only, or
            something in the output folder was removed, or made inaccessible, by others.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, M33DError):
            raise
        if error.errno in _FULL:
            raise CheckpointError(
                f"Could not write {error.filename or f'below {output_dir}'}: {error.strerror}. Earlier checkpoints are "
                "intact; free some disk space, then continue the run."
            ) from error
        if not _lies_below(error.filename, output_dir):
            raise
        raise CheckpointError(
            f"{error.filename} could not be written or read back: {error.strerror}. Another program changes the output "
            f"folder {output_dir} while the run uses it; stop it, then continue the run."
        ) from error


def _lies_below(name: object, folder: str | Path) -> bool:
    return isinstance(name, str) and Path(folder).absolute() in Path(name).absolute().parents


@contextmanager
def lost_process_named() -> Iterator[None]:
    """Turn what torch says of another process of the run that was killed into an error of ours.

    Raises:
        WorkerLostError: a reading process, of which torch tells wherever the main thread is at that moment, or a rank,
            whose connections break.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, M33DError):
            raise
        if tells_of_a_lost_worker(error):
            raise lost_worker(error) from error
        if not _tells_of_a_lost_rank(error):
            raise
        raise WorkerLostError(
            f"Another process of this run has ended, or can no longer be reached ({error}). See its error message; fix "
            "the cause, then continue the run."
        ) from error


def _tells_of_a_lost_rank(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _BROKEN)


@contextmanager
def memory_named(args: RunArguments, extracting: bool = False) -> Iterator[None]:
    """Turn what torch says of memory that a device does not have into an error that names the keys to change.

    Args:
        args: of the run.
        extracting: the block extracts the features of clips, in batches of their own.

    Raises:
        DeviceMemoryError: the block needed more memory than the device has free.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, M33DError) or not _tells_of_memory(error):
            raise
        raise DeviceMemoryError(_advice(error, args, extracting)) from error


def _tells_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _advice(error: RuntimeError, args: RunArguments, extracting: bool) -> str:
    # What torch says goes on for a paragraph about its allocator; the first sentences have the numbers.
    said = ". ".join(first_line(error).split(". ")[:3]).rstrip(".")
    batch, accumulation = args.train.batch_size, args.train.accumulation
    if extracting or args.eval_only:
        what, key = "The evaluation", "evaluation.batch_size"
        size = evaluation_batch(args.task, args.evaluation.batch_size, batch)
        if extracting:
            what, key, size = "The extraction of features", "features.batch_size", args.features.batch_size
        return (
            f"{what} needs more memory than the device has free ({said}). Pass a smaller --{key} (it was {size}), or "
            "--cpu true; end other programs that use the device."
        )
    keys = "a smaller --train.batch_size with a larger --train.accumulation"
    if batch % 2 == 0:
        keys = f"--train.batch_size {batch // 2} --train.accumulation {accumulation * 2} (the same effective batch)"
    return (
        f"The run needs more memory than the device has free ({said}), with --train.batch_size {batch} on each "
        f"process. Pass {keys}, --train.grad_checkpointing true, or a smaller model; where it happened in an "
        "evaluation, a smaller --evaluation.batch_size. End other programs that use the device. A run with checkpoints "
        "can be continued."
    )


@contextmanager
def output_lock(output_dir: str | Path) -> Iterator[None]:
    """Hold the output folder for this run; the lock goes with the process, however that ends.

    Raises:
        ConfigError: another process writes to the folder, or it cannot be written to.
    """
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"output_dir {str(folder)!r} cannot be used: {error.strerror} ({error.filename}). Choose another "
            "--output_dir."
        ) from error
    with file:
        _lock(file, folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def is_in_use(output_dir: str | Path) -> bool:
    """Whether a process holds the lock of an output folder; False where the system has no locks."""
    try:
        file = (Path(output_dir) / LOCK_FILE).open(encoding="utf-8")
    except OSError:
        return False
    with file:
        return not lock_shared(file, output_dir)


def refuse_in_use(output_dir: str | Path) -> None:
    """Refuse an output folder whose lock a process holds, without taking it.

    Raises:
        ConfigError: as `output_lock`.
    """
    if is_in_use(output_dir):
        folder = Path(output_dir)
        raise _in_use(folder, (folder / LOCK_FILE).read_text(encoding="utf-8"))


def _lock(file: IO[str], folder: Path) -> None:
    if lock_alone(file, folder):
        return
    file.seek(0)
    raise _in_use(folder, file.read())


def _in_use(folder: Path, holder: str) -> ConfigError:
    return ConfigError(
        f"{folder} is being written by {holder or 'another process'}. If you started one run with several "
        "processes, they did not find each other (on CPU use torchrun and --cpu true, not `accelerate launch`); "
        "otherwise give each run its own --output_dir."
    )


def lock_alone(file: IO[str] | int, where: object, wait: bool = False) -> bool:
    """Take the exclusive lock of an open file, or of a descriptor.

    Args:
        file: open; the lock ends when it is closed, or with the process.
        where: its folder, for the warning.
        wait: for a process that holds it.

    Returns:
        False if another process holds a lock of it; True otherwise, also where there are no locks (a file system
        without them is warned of once).
    """
    return fcntl is None or _locked(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, where)


def lock_shared(file: IO[str] | int, where: object) -> bool:
    """As `lock_alone`, without waiting, the lock that several processes can hold at once."""
    return fcntl is None or _locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB, where)


def _locked(file: IO[str] | int, how: int, where: object) -> bool:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno in _HELD:
            return False
        _tell(error, where)
    return True


def _tell(error: OSError, where: object) -> None:
    """Once for each kind of error: every folder on such a file system fails alike."""
    number = error.errno or 0
    if number not in _told:
        _told.add(number)
        logger.warning(
            "the file system of %s has no locks (%s): two runs that write to one folder at the same time are not "
            "noticed there. Give each run an output folder of its own.",
            where, error.strerror or error,
        )  # fmt: skip
