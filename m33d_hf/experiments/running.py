"""Running an experiment's jobs and telling what came out: the same for every experiment."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from m33d_hf.data.files.atomic_writing import remove_leftovers
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import ConfigError, CorruptFileError, M33DError
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.jobs import Job, Runner
from m33d_hf.experiments.progress import ProgressLine, clock
from m33d_hf.training.processes.guards import output_lock

Results = Mapping[str, Any]
MOST_WORKERS = 8
RESULTS = "results.json"
# What reading a value of another kind, or a picture's archive, ends in.
_STRANGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, EOFError, BadZipFile, zlib.error)
# Inherited by the workers, before they import torch.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    workers: int | None,
    compute: Compute | None = None,
    discard: Sequence[str] = (),
) -> tuple[dict[str, dict[str, Any]], int]:
    """Run what is not finished yet.

    Args:
        jobs: of the experiment.
        folder: outputs; rows are kept below it.
        workers: processes; None = as `compute` says.
        compute: where the jobs run, which their command lines say; None = one-thread processes on the CPU.
        discard: parts of the folder to throw away first.

    Returns:
        The rows by job id, and the number of processes.

    Raises:
        ConfigError: `compute` asks for a GPU and there is none, or another process runs jobs in this folder.
    """
    compute = compute or Compute()
    compute.require()
    os.environ.update(WORKER_ENVIRONMENT)
    count = process_count(workers, compute)
    print(f"{len(jobs)} jobs in {compute.describe(count)}; outputs in {folder}", flush=True)
    from m33d_hf.experiments.rows import start_worker

    # Two runners in one folder would take each other's runs for failures.
    with output_lock(folder):
        for place in (folder, folder / "rows"):
            remove_leftovers(place)
        for part in discard:
            shutil.rmtree(folder / part, ignore_errors=True)
        runner = Runner(folder / "rows", count, ProgressLine(jobs, count, done_fraction), start_worker)
        return runner.run(jobs), count


def process_count(workers: int | None, compute: Compute) -> int:
    """Processes: as asked, else as `compute` says, else one per available core, at most 8.

    Raises:
        ConfigError: fewer than one were asked for.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it is at least 1 (leave it out for one process per core)")
    return workers or compute.workers or min(MOST_WORKERS, available_cores())


def load_results(folder: Path) -> Results:
    """Read `folder`/results.json.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no results.json: let a run finish first, name its folder with --output_dir, or start in "
            "the folder that it is relative to."
        )
    try:
        return read_sealed_json(path)
    except CorruptFileError as error:
        raise ConfigError(f"{error}. Run the same command again: finished rows are kept.") from error


@contextmanager
def understood(what: Path) -> Iterator[None]:
    """Name the file or folder whose content cannot be told, where it is not what the block expects.

    Files of earlier versions, and those that somebody changed, may hold anything.

    Raises:
        ConfigError: instead of what the block stumbles over.
    """
    try:
        yield
    except M33DError:
        raise
    except _STRANGE as error:
        raise ConfigError(
            f"{what} does not hold what a run of this version writes ({type(error).__name__}: {error}). Run the same "
            "command again with --fresh, or put an unchanged copy back."
        ) from error


def tell(
    folder: Path,
    write: Callable[[Path], tuple[Path, Path]],
    summary: Callable[[Results], list[str]],
    failures: Callable[[Results], list[tuple[str, str]]],
) -> int:
    """Write the reports from results.json alone and print the gist; return the exit code.

    Args:
        folder: outputs, with results.json.
        write: writes page and text of the report, returns their paths.
        summary: sentences of the gist.
        failures: (what, error) of everything that did not finish.

    Raises:
        ConfigError: the folder holds no results.json, or a damaged or foreign one.
    """
    results = load_results(folder)
    with understood(folder / RESULTS):
        page, text = write(folder)
        print("\n" + "\n".join(sentence.replace("**", "") for sentence in summary(results)))
        failed, seconds = failures(results), clock(results["wall_seconds"])
    for name, error in failed:
        print(f"FAILED {name}: {error}")
    print(f"\n{seconds} in all. Report: {page} (and {text.name}, results.json)", flush=True)
    return 1 if failed else 0


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def done_fraction(job: Job) -> float:
    """Share of a running job's steps, from the metrics it writes."""
    path = Path(str(job.parameters.get("output_dir", ""))) / "metrics.jsonl"
    steps = job.parameters.get("steps")
    if not steps or not path.is_file():
        return 0.0
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            return min(1.0, float(json.loads(line)["step"]) / float(steps))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the line being written
    return 0.0


def environment(compute: Compute | None = None) -> dict[str, str]:
    """Machine and versions, for the report; the GPU where `compute` runs on one."""
    import torch

    from m33d_hf.training.run.reporting import provenance

    known, cores = provenance(), available_cores()
    processor = f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"  # other instructions round otherwise
    versions = {name: version or "-" for name, version in known["versions"].items()}
    return {
        **versions,
        "commit": str(known["commit"]),
        "machine": f"{platform.system()} {platform.machine()}, {processor}, {cores} cores{_gpu(compute)}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _gpu(compute: Compute | None) -> str:
    if compute is None or compute.device != "cuda":
        return ""
    import torch

    return f", {torch.cuda.get_device_name()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"
