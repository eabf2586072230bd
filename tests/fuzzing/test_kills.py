"""Kills at random moments: of a rank, of the launcher, of a loader worker. Nobody is left over, nothing is lost.

SIGKILL asks nobody. What is continued afterwards must come to the very weights of a run that nobody disturbed, and
whoever was not killed must have ended by himself.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.fuzzing import slices
from helpers.launching import ALONE, TORCHRUN, assert_same_weights, finish, outcome, start, wait_for
from helpers.ranks import run_jobs

MARK = "M33D_TEST_MARK"
STEPS = 20
VICTIMS = ("launcher", "rank", "worker")

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for orphans")


def job(folder: Path) -> list[dict[str, Any]]:
    changes = {
        "output_dir": str(folder / "run"),
        "train__max_steps": STEPS,
        "train__batch_size": 2,
        "train__ema_decay": 0.9,
        "data__options": {"delay": 0.01},
        "data__num_workers": 1,
        "logging__every_steps": 1,
        "checkpoint__every_steps": 3,
        "evaluation__every_steps": 7,
    }
    return [{"name": "job", "changes": changes}]


def descendants(mark: str) -> list[int]:
    """Living processes that inherited the mark: the launcher, the ranks (in sessions of their own), their workers."""
    alive = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            marked = f"{MARK}={mark}".encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            state = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if marked and state != "Z":
            alive.append(int(entry))
    return alive


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def victims(kind: str, mark: str, first: int) -> list[int]:
    """Processes of a kind: the launcher is the first, ranks are its children, workers theirs."""
    found = [pid for pid in descendants(mark) if pid != first]
    children = [pid for pid in found if parent_of(pid) == first]
    return {"launcher": [first], "rank": children, "worker": [pid for pid in found if pid not in children]}[kind]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One process and two; sums over ranks differ in the last digit."""
    folders = {}
    for number in (1, 2):
        folders[number] = tmp_path_factory.mktemp(f"undisturbed{number}")
        code, output = run_jobs(job(folders[number]), folders[number], processes=number)
        assert code == 0, output
    return folders


def kill_once(kind: str, rng: random.Random, process: Any, mark: str, metrics: Path) -> None:
    """At a random moment: of the start as often as of the training."""
    if kind != "worker" and rng.random() < 0.5:
        time.sleep(rng.uniform(0.0, 8.0))
    else:
        lines = rng.randint(1, STEPS)
        wait_for(lambda: process.poll() is not None or _lines(metrics) >= lines, "the moment", 120)
        time.sleep(rng.uniform(0.0, 0.1))
    for pid in rng.sample(found := victims(kind, mark, process.pid), min(1, len(found))):
        os.kill(pid, signal.SIGKILL)


def _lines(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


@pytest.mark.parametrize(("seed", "count"), slices(3, 100))
def test_kills_lose_nothing_and_leave_nobody(
    undisturbed: dict[int, Path], tmp_path: Path, seed: int, count: int
) -> None:
    for number in range(count):
        rng, kind = random.Random(f"kill {seed} {number}"), VICTIMS[number % len(VICTIMS)]
        world = 1 if kind == "worker" else 2
        folder = tmp_path / str(number)
        launcher = TORCHRUN if world == 2 else ALONE
        process = start(launcher, job(folder), folder, **{MARK: str(folder)})
        try:
            # Alone, the script stands where the launcher stands else, and its children are the workers.
            seen = "rank" if kind == "worker" else kind
            kill_once(seen, rng, process, str(folder), folder / "run" / "metrics.jsonl")
            _, output = finish(process)
            wait_for(lambda: not descendants(str(folder)), f"everybody to end after kill {number} ({kind})", 40)  # noqa: B023
        finally:
            for orphan in descendants(str(folder)):
                os.kill(orphan, signal.SIGKILL)
        assert kind != "worker" or "Traceback" not in output, output
        code, output = run_jobs(job(folder), folder, processes=world)
        assert code == 0 and outcome(folder, "job")["step"] == STEPS, f"kill {number} ({kind}): {output}"
        assert_same_weights(undisturbed[world] / "run", folder / "run")
        left = [path.name for path in (folder / "run").rglob(".*") if path.name not in (".lock",)]
        assert not left, f"kill {number} ({kind}) left {left}"


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
        ranks = wait_for(lambda: victims("rank", mark, process.pid), "the rank", 90)
        if ready:
            wait_for((tmp_path / "ready").exists, "the rendezvous", 90)
            time.sleep(0.5)
            assert victims("rank", mark, process.pid) == ranks, "it waits"
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
