"""Runs jobs of the tiny task in this process, one after the other; the launchers of the tests start it.

Usage: run_tiny.py JOBS.json OUT_DIR: a list of {"name", "changes", "signal": [update, number, rank] | absent,
"signal in evaluation": [batch, rank] | absent, "others": changes of all ranks but the first | absent, "decided": keys
that no layer sets | absent} for the tiny task, or of {"name", "task", "argv", "signal" | absent} for a real one. For
every job and rank OUT_DIR/<name>.<rank>.json holds what came out. The exit code is that of the last job.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.tiny_task import StoppingInEvaluation, TinyTask, tiny_arguments
from m33d_hf.errors import M33DError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task


class SelfSignallingTask(TinyTask):
    """Sends its own process a signal in the middle of one update."""

    def __init__(self, update: int, number: int, rank: int) -> None:
        self.countdown, self.number = update, number
        self.active = int(os.environ.get("RANK", "0")) == rank

    def prepare_step(self, model: Any, batches: Any) -> dict[str, Any]:
        self.countdown -= 1
        if self.active and self.countdown == 0:
            os.kill(os.getpid(), self.number)
        return super().prepare_step(model, batches)


def signalling(task: Any, update: int, number: int, rank: int) -> Any:
    """A real task that does likewise."""
    prepare, left = task.prepare_step, [update]

    def prepare_step(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), number)
        return prepare(*args, **options)

    task.prepare_step = prepare_step
    return task


def run_job(job: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Train once; returns what is worth comparing, and the exit code."""
    try:
        if "argv" in job:
            real = build_task(job["task"])
            chosen = signalling(real, *job["signal"]) if "signal" in job else real
            result = train(parse_arguments(job["argv"], job["task"]), chosen)
        else:
            task = SelfSignallingTask(*job["signal"]) if "signal" in job else TinyTask()
            if "signal in evaluation" in job:
                task = StoppingInEvaluation(*job["signal in evaluation"])
            changes = job["changes"]
            if os.environ.get("RANK", "0") != "0":
                changes = {**changes, **job.get("others", {})}
            decided = dict.fromkeys(job.get("decided", []), "the data and the machine")
            result = train(tiny_arguments(**changes), task, decided)
    except M33DError as error:
        return {"error": type(error).__name__, "message": str(error)}, 1
    return {
        "step": result.step,
        "history": result.history,
        "metrics": result.metrics,
        "interrupted_by": result.interrupted_by,
    }, result.exit_code


def main(jobs_file: str, out_dir: str) -> int:
    """Run all jobs; every rank leaves a file for each."""
    code = 0
    for job in json.loads(Path(jobs_file).read_text()):
        outcome, code = run_job(job)
        rank = os.environ.get("RANK", "0")
        Path(out_dir, f"{job['name']}.{rank}.json").write_text(json.dumps(outcome))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
