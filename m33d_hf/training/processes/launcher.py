"""Processes started by `torchrun` or `accelerate launch` end when their launcher is gone, whatever they are doing.

A launcher that is killed outright tells nobody. Between two steps the loop finds out by itself, saves and stops
(`guards.StopSignals`); in a rendezvous, a collective that waits for a dead rank, an evaluation or hours of preparation
nothing of ours runs in the main thread. A thread of its own looks then, gives the main thread its time, and ends the
process. Imports nothing, so that it can be the first thing a script does.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

WATCH_PARENT = "M33D_WATCH_PARENT"
# Set by `accelerate launch` and `torchrun` for the processes that they start.
MARKS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", WATCH_PARENT)

# Seconds that the main thread has, once the launcher is gone, to end by itself ...
ANYWHERE = 5.0
STEPPING = 20.0  # ... to come to the end of a step, where it saves and stops
SAVING = 120.0  # ... to finish a checkpoint or the final model
_EVERY = 0.5
EXIT_CODE = 143

# As it was imported: whoever replaces it for a test must not end this process.
_parent_now = os.getppid


class _Patience:
    """How long the main thread may go on, and since when."""

    seconds, since = ANYWHERE, 0.0

    def set(self, seconds: float) -> None:
        self.seconds, self.since = seconds, time.monotonic()


_patience = _Patience()
_watching: threading.Thread | None = None


def launched() -> bool:
    """Whether a launcher started this process (or M33D_WATCH_PARENT=1 says to treat the parent as one)."""
    return any(os.environ.get(mark) for mark in MARKS)


def watch_launcher() -> None:
    """Watch the launcher from now on, if there is one; returns at once and may be called repeatedly.

    Only processes that a launcher started look at their parent: `nohup` and closed terminals must not stop a run.
    """
    global _watching
    if not launched() or (_watching is not None and _watching.is_alive()):
        return
    parent = _parent_now()
    if _store_is_gone():
        _end()
    _watching = threading.Thread(target=_watch, args=(parent,), name="watch launcher", daemon=True)
    _watching.start()


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Inside the block, let the main thread continue for up to `seconds` after the launcher is gone."""
    before = _patience.seconds
    _patience.set(seconds)
    try:
        yield
    finally:
        _patience.set(before)


def _watch(parent: int) -> None:
    while _parent_now() == parent:
        time.sleep(_EVERY)
    lost = time.monotonic()
    while time.monotonic() < max(lost, _patience.since) + _patience.seconds:
        time.sleep(_EVERY / 2)
    _end()


def _store_is_gone() -> bool:
    """Whether torchrun, at whose store the processes meet, was gone before we could look at our parent."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(address, timeout=5.0).close()
    except ConnectionRefusedError:
        return True
    except (KeyError, ValueError, OSError):
        return False  # not to be told from here; the rendezvous will say what is wrong
    return False


def _end() -> None:
    try:
        os.write(2, b"The launcher of this process is gone; so it ends.\n")
    finally:  # also where whoever read it is gone, too
        os._exit(EXIT_CODE)  # the main thread may wait without end, and cannot be interrupted
