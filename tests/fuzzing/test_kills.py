"""Signals at random moments, to a rank, the launcher, a loader worker. Nobody is left over, nothing is lost.

What is continued afterwards must come to the very weights, averages and optimizer of a run that nobody disturbed, and
whoever was not killed must have ended by himself, without an error that is not ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from helpers.fuzzing import slices
from helpers.killing import (
    MARK,
    Runs,
    assert_same_run,
    descendants,
    drawn,
    foreign_errors,
    latest_step,
    strike,
    victims,
)
from helpers.launching import ALONE, TORCHRUN, finish, start, wait_for

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for orphans")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(("seed", "count"), slices(2, 14))
def test_kills_lose_nothing_and_leave_nobody(runs: Runs, tmp_path: Path, seed: int, count: int) -> None:
    for number in range(count):
        kill, folder = drawn(seed, number), tmp_path / str(number)
        undisturbed = runs.undisturbed(kill.job, kill.world)
        name = f"seed {seed}, kill {number}: {kill}"
        process = runs.start(kill.job, kill.world, folder)
        try:
            hit = strike(kill, process, folder)
            code, output = finish(process)
            wait_for(lambda: not descendants(str(folder)), f"everybody to end after {name}", 40)  # noqa: B023
        finally:
            for orphan in descendants(str(folder)):
                os.kill(orphan, signal.SIGKILL)
        assert not foreign_errors(output), f"{name}: {output}"
        print(f"{name} {'' if hit else '(too late)'} -> {code}, {latest_step(folder / 'run')} steps saved")
        code, output = runs.run(kill.job, kill.world, folder)
        assert code == 0, f"{name}, continued: {output}"
        assert_same_run(undisturbed, folder / "run", kill.job)
        shutil.rmtree(folder)


WAITING = """
import os
from m33d_hf.training.processes.launcher import watch_launcher
watch_launcher()
import torch.distributed
os.environ["WORLD_SIZE"] = "2"  # of which nobody starts the other
open(os.environ["READY"], "w").close()
torch.distributed.init_process_group("gloo")
"""


def launch_waiting(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "wait.py").write_text(WAITING)
    root = str(Path(__file__).resolve().parents[2])
    more = {MARK: str(folder), "PYTHONPATH": root, "READY": str(folder / "ready")}
    launcher = [*TORCHRUN[:-1], "1", str(folder / "wait.py")]
    return subprocess.Popen(launcher, env={**os.environ, **more}, start_new_session=True)


@pytest.mark.parametrize(
    "ready",
    [
        pytest.param(True, id="in the rendezvous"),
        pytest.param(False, id="as soon as it is there", marks=pytest.mark.slow),
    ],
)
def test_a_launcher_killed_at_the_start_leaves_no_rank(tmp_path: Path, ready: bool) -> None:
    mark = str(tmp_path)
    process = launch_waiting(tmp_path)
    try:
        wait_for(lambda: victims("rank", mark, process.pid), "the rank", 90)
        if ready:
            wait_for((tmp_path / "ready").exists, "the rendezvous", 90)
            # Counted from here on: before, a child of the launcher can be a command that its imports ran.
            ranks = victims("rank", mark, process.pid)
            time.sleep(0.5)
            assert len(ranks) == 1 and victims("rank", mark, process.pid) == ranks, "it waits"
        process.kill()
        process.wait()
        wait_for(lambda: not descendants(mark), "the rank to end", 60)
    finally:
        for orphan in descendants(mark):
            os.kill(orphan, signal.SIGKILL)


def test_sigterm_ends_a_rank_in_the_rendezvous(tmp_path: Path) -> None:
    """A run that waits for ranks that never come has nothing to save, and swallows no signal."""
    changes = {"output_dir": str(tmp_path / "run"), "train__max_steps": 2, "data__num_workers": 0}
    alone = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        alone["MASTER_PORT"] = str(free.getsockname()[1])
    process = start(ALONE, [{"name": "job", "changes": changes}], tmp_path, **alone, **{MARK: str(tmp_path)})
    try:
        listening = wait_for(lambda: process.poll() is not None or _listens(int(alone["MASTER_PORT"])), "the store", 90)
        assert listening and process.poll() is None
        time.sleep(1.0)
        process.terminate()
        code, output = finish(process, 30)
        assert code == -signal.SIGTERM, output
    finally:
        process.kill()


def _listens(port: int) -> bool:
    wanted = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return any(row[1].endswith(wanted) and row[3] == "0A" for row in rows)
