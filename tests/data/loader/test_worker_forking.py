"""Reading processes that do not begin are replaced."""

from __future__ import annotations

import multiprocessing
import multiprocessing.popen_fork
import os
import time

import pytest

from m33d_hf.data.loader import worker_forking
from m33d_hf.data.loader.worker_forking import ForkContext
from m33d_hf.errors import WorkerStartError


def answer(queue) -> None:
    queue.put(os.getpid())


class Stuck(multiprocessing.popen_fork.Popen):
    """A child that never comes back from `fork`, the first `times` times."""

    times = 0
    pids: list[int] = []  # noqa: RUF012

    def __init__(self, process_obj):
        stuck = len(self.pids) < Stuck.times
        bootstrap = process_obj._bootstrap
        if stuck:
            process_obj._bootstrap = lambda **_: time.sleep(600)
        super().__init__(process_obj)
        process_obj._bootstrap = bootstrap
        self.pids.append(self.pid)


@pytest.fixture
def stuck(monkeypatch):
    monkeypatch.setattr(worker_forking, "PATIENCE", 0.3)
    monkeypatch.setattr(worker_forking.multiprocessing.popen_fork, "Popen", Stuck)
    monkeypatch.setattr(Stuck, "pids", [])
    yield Stuck
    Stuck.times = 0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def run(context) -> int:
    queue = context.Queue()
    process = context.Process(target=answer, args=(queue,))
    process.start()
    answered = queue.get(timeout=30)
    process.join(30)
    assert process.exitcode == 0 and answered == process.pid
    return answered


def test_a_child_that_begins_is_left_alone(stuck):
    assert stuck.pids == [run(ForkContext())]


def test_a_child_that_never_begins_is_killed_and_forked_again(stuck, caplog):
    stuck.times = 2
    last = run(ForkContext())
    assert stuck.pids[-1] == last and len(stuck.pids) == 3
    assert all(gone(pid) for pid in stuck.pids[:2])
    assert "attempt 2 of 3" in caplog.text


def test_children_that_never_begin_end_in_an_error_and_leave_nothing(stuck):
    stuck.times = 3
    with pytest.raises(WorkerStartError, match="num_workers 0"):
        run(ForkContext())
    assert all(gone(pid) for pid in stuck.pids)


def test_a_child_that_ends_at_once_is_not_waited_for():
    started = time.monotonic()
    process = ForkContext().Process(target=os._exit, args=(3,))
    process.start()
    process.join()
    assert process.exitcode == 3 and time.monotonic() - started < worker_forking.PATIENCE / 2
