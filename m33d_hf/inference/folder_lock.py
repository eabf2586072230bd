"""Keeps two extractions out of one folder; the processes of one launch share it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from m33d_hf.errors import ConfigError
from m33d_hf.inference.sharding import Place
from m33d_hf.training.processes.guards import LOCK_FILE, SYSTEM_HAS_LOCKS, lock_alone, lock_shared

# What `torchrun`, `accelerate launch` and `srun` give to all processes of a launch, and to no other launch.
_LAUNCH_MARKS = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")


@contextmanager
def shared_folder(folder: Path, place: Place) -> Iterator[None]:
    """Hold an output folder for this process and those of its launch; the lock goes with the process, however it ends.

    The first process of a launch writes the launch's identity to the lock file; others of the same launch join it, all
    others are refused. No process waits for another, and the last one removes the lock file.

    Raises:
        ConfigError: another launch, or another process of the same rank, writes to the folder; or it is not usable.
    """
    if not SYSTEM_HAS_LOCKS:
        yield
        return
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder):  # another one may just be removing its files
                file = stack.enter_context((folder / LOCK_FILE).open("a+", encoding="utf-8"))
                _join(folder, file, place)
                own = stack.enter_context((folder / f"{LOCK_FILE}-rank{place.rank}").open("a", encoding="utf-8"))
                if not lock_alone(own, folder):
                    raise ConfigError(_refusal(folder, f"another process of rank {place.rank}"))
        except OSError as error:
            raise ConfigError(
                f"--output {folder} cannot be used: {error.strerror} ({error.filename}). Choose another folder."
            ) from error
        try:
            yield
        finally:
            with alone(folder):
                Path(own.name).unlink(missing_ok=True)
                if lock_alone(file, folder):  # the last one
                    Path(file.name).unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process after the other: to join or leave a folder, or for what all of them write.

    Nobody waits where the system, or the file system, has no such locks, nor may those on other nodes: file systems
    that they share do not pass on the lock of a folder, as a rule, and do not say so.
    """
    if not SYSTEM_HAS_LOCKS:
        yield
        return
    guard = os.open(folder, os.O_RDONLY)
    try:
        lock_alone(guard, folder, wait=True)
        yield
    finally:
        os.close(guard)


def _join(folder: Path, file: IO[str], place: Place) -> None:
    name = _launch_name(place)
    if lock_alone(file, folder):
        file.truncate(0)
        file.write(name)
        file.flush()
        lock_shared(file, folder)
    else:
        file.seek(0)
        holder = file.read() or "another process"
        if holder != name or not lock_shared(file, folder):
            raise ConfigError(_refusal(folder, holder))


def _launch_name(place: Place) -> str:
    if place.world_size == 1:
        return f"process {os.getpid()} on {socket.gethostname()}"
    marks = " ".join(os.environ[mark] for mark in _LAUNCH_MARKS if os.environ.get(mark))
    return f"a launch of {place.world_size} processes ({marks or 'no launcher'})"


def _refusal(folder: Path, holder: str) -> str:
    return (
        f"--output {folder} is being written by {holder}. Wait for it, or choose another folder; to share the work, "
        "start all processes with one torchrun, accelerate launch or srun."
    )
