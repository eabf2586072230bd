"""Train the checkpoints of this folder again, from nothing: python checkpoints/train.py (or make checkpoints).

Four runs by the scripts of the package and the recipes beside this file: two stages of pre-training, then depth and
segmentation from the second. Each model is stored with float16 weights, and what is stored is evaluated on the rooms of
the test split. One thread, so that the same machine gives the same weights. A run that finished is kept as long as its
settings and its start are the same: an interrupted call continues with the next run. --judge trains nothing,
evaluates the stored checkpoints again and says how far that is from their results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m33d_hf.training.recipe.arguments import RunArguments

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
SPENT = "spent.json"  # in the folder of a finished run


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of its recipe and of its output folder.
        script: that trains it.
        task: of the script.
        after: the run it starts from, or None.
        stored: the folder of the checkpoint that is made of it, or None.
    """

    name: str
    script: str
    task: str
    after: str | None = None
    stored: str | None = None


RUNS = {
    run.name: run
    for run in (
        Run("pretrain_stage1", "run_pretrain.py", "pretraining"),
        Run("pretrain_stage2", "run_pretrain.py", "pretraining", "pretrain_stage1"),
        Run("depth", "run_depth_estimation.py", "depth_estimation", "pretrain_stage2", "rooms-depth"),
        Run("semseg", "run_semantic_segmentation.py", "semantic_segmentation", "pretrain_stage2", "rooms-semseg"),
    )
}


def chain(name: str) -> list[Run]:
    """A run after all that it starts from."""
    run = RUNS[name]
    return [*(chain(run.after) if run.after else []), run]


def call(run: Run, words: Sequence[str]) -> dict[str, Any]:
    """Call the script of a run; returns what it took.

    Raises:
        SystemExit: it failed; it has printed why.
    """
    command = [sys.executable, str(ROOT / "scripts" / run.script), *words]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(cpu, 1)}


def settings(run: Run, output: Path) -> list[str]:
    """Words of the command line of a run."""
    words = ["--recipe", f"checkpoints/recipes/{run.name}.yaml", "--cpu", "true"]
    words += ["--output_dir", str(output / run.name)]
    return words + (["--init_from", str(output / run.after)] if run.after else [])


def resolved(run: Run, output: Path) -> RunArguments:
    """Arguments of a run."""
    from m33d_hf.training.recipe.parsing import resolve

    return resolve(settings(run, output), run.task).args


def digest(run: Run, output: Path) -> str:
    """Of everything that decides a run's weights: its resolved settings and the weights that it starts from."""
    args = resolved(run, output).to_dict()
    decisive = {name: value for name, value in args.items() if name not in ("output_dir", "init_from", "recipe")}
    start = sha256(output / run.after / "model.safetensors") if run.after else ""
    return hashlib.sha256((json.dumps(decisive, sort_keys=True) + start).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained(run: Run, output: Path, commit: str | None) -> dict[str, Any]:
    """Train at `commit`, unless that was done; returns what it took and made.

    A model that was trained otherwise, or whose training was not noted before a kill, gives way: it is this command's.
    """
    from m33d_hf.training.run.resume import make_room  # takes seconds to import torch

    known, path = digest(run, output), output / run.name / SPENT
    if path.is_file():
        spent: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if spent["digest"] == known:
            print(f"{run.name}: kept, it finished before with the same settings", flush=True)
            return spent
    print(f"{run.name}:", flush=True)
    path.unlink(missing_ok=True)  # first: it must not outlive the model that it tells of
    make_room(resolved(run, output))
    spent = {"name": run.name, "recipe": f"checkpoints/recipes/{run.name}.yaml", "commit": commit}
    spent |= {**call(run, settings(run, output)), "sha256": sha256(output / run.name / "model.safetensors")}
    path.write_text(json.dumps({**spent, "digest": known}, indent=1), encoding="utf-8")
    return {**spent, "digest": known}


def main(argv: Sequence[str] | None = None) -> int:
    """Train, store and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "checkpoints", help="folder of the runs")
    parser.add_argument("--store", type=Path, default=FOLDER, help="where the checkpoints go; default: this folder")
    wanted = [name for name, run in RUNS.items() if run.stored]
    parser.add_argument("--only", nargs="+", choices=wanted, default=wanted, help="not all of the checkpoints")
    parser.add_argument("--judge", action="store_true", help="only evaluate what is stored, and compare")
    given = parser.parse_args(argv)
    from checkpoint_folder import judge_again, store  # beside this file; takes seconds to import torch

    from m33d_hf.training.run.reporting import provenance

    commit = provenance()["commit"]  # before anything is stored, which changes the checkout
    output, store_in = given.output.resolve(), given.store.resolve()
    output.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        if given.judge:
            judge_again(RUNS[name], output, store_in)
        else:
            store(RUNS[name], output, store_in, [trained(run, output, commit) for run in chain(name)], commit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
