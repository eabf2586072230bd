"""Runs that are sent a signal at a chosen moment, in one process or two, and the judgement of what they leave.

A kill is a function of a seed and a number: which run, how many processes, who is hit by what, and when.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers.launching import ROOT, TORCHRUN, assert_same_checkpoint, assert_same_weights, finish, start, wait_for
from helpers.ranks import run_jobs
from helpers.rooms_runs import words

MARK = "M33D_TEST_MARK"
VICTIMS = ("launcher", "rank", "worker")
# The tiny task is a third as long as the others, which each prepare and evaluate in a way of their own.
JOBS = ("tiny", "tiny", "tiny", "pretraining", "actions", "segmentation", "phases")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOMENTS = ("start", "training", "save", "evaluation", "end")
START_SECONDS = 10.0
STEPS = {"tiny": 20}
OTHER_STEPS = 8
EVALUATION = {"tiny": 7}
OTHER_EVALUATION = 3

_COMMON = {
    "data__num_workers": "1",
    "train__ema_decay": "0.9",
    "train__max_steps": str(OTHER_STEPS),
    "logging__every_steps": "1",
    "checkpoint__every_steps": "2",
    "evaluation__every_steps": str(OTHER_EVALUATION),
}
_PROCEDURES = {"data__options": "{num_videos: 10}", "data__eval_options": "{num_videos: 2}"}
_REAL = {
    "pretraining": ("run_pretrain", "rooms/pretrain_stage2", {}),
    "segmentation": ("run_semantic_segmentation", "rooms/semseg", {"data__max_train_samples": "null"}),
    "actions": (
        "run_video_classification",
        "rooms/actions",
        {"data__options": "{num_clips: 20}", "data__eval_options": "{num_clips: 10}"},
    ),
    "phases": (
        "run_action_detection",
        "rooms/phases_temporal",
        {**_PROCEDURES, "train__batch_size": "1", "evaluation__every_epochs": "null", "optim__warmup_steps": "0"},
    ),
}


@dataclass(frozen=True)
class Kill:
    """What happens to a run: `sign` is sent to a `victim` of `job` in `world` processes; `draw` in [0, 1) times it."""

    job: str
    world: int
    victim: str
    sign: signal.Signals
    moment: str
    draw: float

    def __str__(self) -> str:
        return f"{self.job} in {self.world} processes, {self.sign.name} to the {self.victim} at {self.moment}"


def drawn(seed: int, number: int) -> Kill:
    """The kill of a number; three in a row hit a launcher, a rank and a worker, seven are of every task."""
    rng, victim = random.Random(f"kill {seed} {number}"), VICTIMS[number % len(VICTIMS)]
    world = 2 if victim == "launcher" else rng.choice((1, 2))
    sign, moment = rng.choice(SIGNALS), rng.choice(MOMENTS)
    return Kill(JOBS[number % len(JOBS)], world, victim, sign, moment, rng.random())


class Runs:
    """Starts the runs of all jobs, and keeps one of each that nobody disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: dict[tuple[str, int], Path] = {}

    def start(self, job: str, world: int, folder: Path) -> subprocess.Popen[str]:
        """In the background; all of its processes carry `folder` as their mark, and its output goes to folder/run."""
        launcher = TORCHRUN if world == 2 else [sys.executable]
        if job == "tiny":
            return start(launcher, [{"name": "job", "changes": _tiny(folder)}], folder, **{MARK: str(folder)})
        script, recipe, changes = _REAL[job]
        more = {"init_from": str(self.first_stage())} if job == "phases" else {}
        argv = words(recipe, folder / "run", **{**_COMMON, **changes, **more})
        return _started([*launcher, "-m", f"m33d_hf.scripts.{script}", *argv], folder)

    def run(self, job: str, world: int, folder: Path) -> tuple[int, str]:
        """Undisturbed to its end: exit code and output. The tiny task is forked, which spares its imports."""
        if job == "tiny":
            return run_jobs([{"name": "job", "changes": _tiny(folder)}], folder, processes=world)
        return finish(self.start(job, world, folder))

    def undisturbed(self, job: str, world: int) -> Path:
        """Folder of the run that ran through; sums over ranks differ in the last digit, so there is one per world."""
        if (job, world) not in self._done:
            folder = self.folder / f"{job}{world}"
            code, output = self.run(job, world, folder)
            assert code == 0, output
            self._done[job, world] = folder / "run"
        return self._done[job, world]

    def first_stage(self) -> Path:
        """What the temporal model of the phases begins from."""
        folder = self.folder / "first_stage"
        if not (folder / "run" / "COMPLETE").exists():
            changes = {**_PROCEDURES, "checkpoint__every_steps": "null"}
            argv = words("rooms/phases_finetune", folder / "run", **changes)
            code, output = finish(
                _started([sys.executable, "-m", "m33d_hf.scripts.run_video_classification", *argv], folder)
            )
            assert code == 0, output
        return folder / "run"


def _tiny(folder: Path) -> dict[str, object]:
    return {
        "output_dir": str(folder / "run"),
        "train__max_steps": STEPS["tiny"],
        "train__batch_size": 2,
        "train__ema_decay": 0.9,
        "data__options": {"delay": 0.01},
        "data__eval_options": {"delay": 0.05},
        "data__num_workers": 1,
        "logging__every_steps": 1,
        "checkpoint__every_steps": 3,
        "evaluation__every_steps": EVALUATION["tiny"],
    }


def _started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), MARK: str(folder)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=env, cwd=folder, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


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


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def victims(kind: str, mark: str, first: int, world: int = 2) -> list[int]:
    """Processes of a kind: the launcher is the first, ranks are its children, workers theirs; alone it is the rank."""
    found = [pid for pid in descendants(mark) if pid != first]
    ranks = [pid for pid in found if _parent_of(pid) == first] if world > 1 else [first]
    return {"launcher": [first], "rank": ranks, "worker": [pid for pid in found if pid not in ranks]}[kind]


def strike(kill: Kill, process: subprocess.Popen[str], folder: Path) -> bool:
    """Wait for the moment and send the signal; tells whether the victim was there."""
    _await(kill, process, folder / "run")
    found = victims(kill.victim, str(folder), process.pid, kill.world)
    if process.poll() is not None or not found:
        return False
    try:
        os.kill(found[int(kill.draw * len(found))], kill.sign)
    except ProcessLookupError:
        return False
    return True


def _await(kill: Kill, process: subprocess.Popen[str], run: Path) -> None:
    steps, every = STEPS.get(kill.job, OTHER_STEPS), EVALUATION.get(kill.job, OTHER_EVALUATION)

    def reached(rows: int) -> Callable[[], bool]:
        return lambda: process.poll() is not None or _trained(run) >= rows

    if kill.moment == "start":
        time.sleep(kill.draw * START_SECONDS)
    elif kill.moment == "training":
        wait_for(reached(1 + int(kill.draw * steps)), "a step", 200, every=0.002)
    elif kill.moment == "save":
        wait_for(reached(int(kill.draw * 0.8 * steps)), "a step before a save", 200, every=0.002)
        saving = lambda: process.poll() is not None or any((run / "checkpoints").glob(".tmp-*"))  # noqa: E731
        wait_for(saving, "a save", 200, every=0.001)
    elif kill.moment == "evaluation":
        wait_for(reached(every * (1 + int(kill.draw * (steps // every)))), "an evaluation", 200, every=0.002)
        time.sleep(kill.draw * 0.3)
    else:
        wait_for(reached(steps), "the last step", 200, every=0.002)
        time.sleep(kill.draw)


def _trained(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b'"kind": "train"') if metrics.exists() else 0


def foreign_errors(output: str) -> list[str]:
    """Last lines of tracebacks through code of ours; what torchrun says of its own is not among them.

    A SIGINT before anybody listens is Python's to answer.
    """
    blocks = re.findall(r"Traceback \(most recent call last\):\n((?:[ \t].*\n|\n)+)(\S.*)", output)
    ours = [last for frames, last in blocks if re.search(r"m33d_hf|run_tiny", frames)]
    return [last for last in ours if not last.startswith("KeyboardInterrupt")]


def assert_same_run(undisturbed: Path, run: Path, job: str) -> None:
    """The model, the averaged weights and the optimizer bit for bit, and every file beside them is there."""
    assert_same_weights(undisturbed, run)
    last = f"step_{STEPS.get(job, OTHER_STEPS):08d}"
    assert_same_checkpoint(undisturbed / "checkpoints" / last, run / "checkpoints" / last)
    best = [folder / "checkpoints" / "best" for folder in (undisturbed, run)]
    if best[0].exists():
        assert_same_weights(*best)
    a, b = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (undisturbed, run))
    assert a == b, f"differing files: {sorted(a ^ b)}"


def latest_step(run: Path) -> int:
    """Of the newest checkpoint, 0 without one."""
    return max((int(path.name.split("_")[1]) for path in run.glob("checkpoints/step_*")), default=0)
