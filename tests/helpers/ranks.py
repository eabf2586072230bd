"""Processes for tests that need some, but neither a launcher nor a start from nothing.

They are forked from a process that has imported torch, transformers and this package once, so that each costs
hundredths of a second instead of seconds. What is about launchers, or about an interpreter that has seen nothing,
starts real ones: see launching.py and `subprocess`.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = ["m33d_hf.scripts._main", "m33d_hf.training.run.loop", "m33d_hf.training.tasks.pretraining"]


def preload() -> None:
    """Say what the process to fork from imports; before the first one is forked, by whomever."""
    multiprocessing.set_forkserver_preload(PRELOADED)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ForkedRanks:
    """`target(*args)` in as many processes as ranks, as a launcher would start it; what they print goes to `log`.

    Their exit code is what `target` returns. `environment` is added to that of the tests; processes alone get no rank.
    """

    def __init__(
        self, target: Callable[..., int | None], *args: Any, log: Path, processes: int = 1, **environment: str
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        context = multiprocessing.get_context("forkserver")
        self._alive, theirs = context.Pipe(duplex=False)
        self.processes = []
        for rank in range(processes):
            own = {**meet, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            given = ({**os.environ, **own, **environment}, str(log), theirs, target, args)
            self.processes.append(context.Process(target=_rank, args=given))
            self.processes[-1].start()
        theirs.close()

    def wait(self, timeout: float = 300.0) -> list[int | None]:
        """Exit codes, once they and their loader workers have ended; after `timeout` seconds they are killed (-9)."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in self.processes:
            process.kill()
            process.join()
        assert self._alive.poll(60.0), "children of the processes are left over"
        return [process.exitcode for process in self.processes]

    def output(self) -> str:
        """What has been printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _rank(
    environment: dict[str, str], log: str, alive: Connection, target: Callable[..., int | None], args: tuple[Any, ...]
) -> None:
    """`alive` is closed when this process and all that it forks have ended."""
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.enable()  # a crash below Python says where it was
    code = target(*args)
    sys.stdout.flush()
    sys.exit(code)


def run_jobs(
    jobs: list[dict[str, Any]], folder: Path, processes: int = 2, timeout: float = 300.0, **environment: str
) -> tuple[int, str]:
    """The jobs of run_tiny.py: (the exit code of the last, of a rank that failed if one did; what all printed).

    Each has processes of its own, as a user's run has: in one that made and left six process groups malloc found
    memory damaged, once in many runs.
    """
    from helpers import run_tiny  # heavy, and not for every test that imports this

    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.txt"
    code = 0
    for job in jobs:
        (folder / "jobs.json").write_text(json.dumps([job]))
        given = (str(folder / "jobs.json"), str(folder))
        ranks = ForkedRanks(run_tiny.main, *given, log=log, processes=processes, **environment)
        code = next((code for code in ranks.wait(timeout) if code), 0)
    return code, log.read_text(errors="replace") if log.exists() else ""
