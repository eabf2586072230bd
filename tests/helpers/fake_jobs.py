"""Work for the scheduler's tests; in a module of its own because spawned workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def mark_worker(parent: int) -> None:
    """What a worker does once at its start."""
    assert parent == os.getppid()
    os.environ["FAKE_WORKER_STARTED"] = "1"


def work(name: str, journal: str, seconds: float = 0.0) -> dict[str, Any]:
    """Write start and end to a journal, sleep in between."""
    with Path(journal).open("a") as file:
        file.write(f"start {name}\n")
    time.sleep(seconds)
    print(f"{name} says hello")
    with Path(journal).open("a") as file:
        file.write(f"end {name}\n")
    return {"name": name, "pid": os.getpid(), "marked": "FAKE_WORKER_STARTED" in os.environ}


def fail(message: str) -> dict[str, Any]:
    """Raise."""
    raise ValueError(message)


def die(marker: str, times: int) -> dict[str, Any]:
    """Kill the own worker process the first `times` times."""
    path = Path(marker)
    deaths = len(path.read_text()) if path.exists() else 0
    if deaths < times:
        path.write_text("x" * (deaths + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"deaths": deaths}
