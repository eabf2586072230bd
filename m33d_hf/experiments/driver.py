"""Runs an experiment: plan, estimate, run, collect, report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.clock import clock
from m33d_hf.data.files.atomic_writing import remove_leftovers
from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.collecting import collect
from m33d_hf.experiments.commands import jobs_at, jobs_of
from m33d_hf.experiments.compute import Compute, available_cores, environment
from m33d_hf.experiments.costs import dry_run_lines, estimate
from m33d_hf.experiments.jobs import Job, Runner
from m33d_hf.experiments.places import Begun, begun, discard_former_starts, jobs_in_place
from m33d_hf.experiments.plan import load_plan
from m33d_hf.experiments.progress import ProgressLine
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report import reproduction
from m33d_hf.experiments.report.demos import clips, images
from m33d_hf.experiments.report.expectations import judge
from m33d_hf.experiments.report.results import RESULTS, Results, failures, load_results, understood
from m33d_hf.training.processes.guards import output_lock

MOST_WORKERS = 8
# What --fresh throws away.
LEFT_BY_RUNS = ("rows", "runs", "pictures", "figures")
# Inherited by the workers, before they import torch.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def run(
    name: str,
    folder: Path,
    budget: str = "full",
    workers: int | None = None,
    fresh: bool = False,
    cache_dir: str | None = None,
    dry_run: bool = False,
) -> int:
    """Run what is not finished yet of a plan and write results.json and the reports.

    Args:
        name: of the plan, one of `m33d_hf.experiments.plan.PLANS`.
        folder: outputs.
        budget: key of the plan's budgets.
        workers: processes; None = as the budget says, else one per available core, at most 8.
        fresh: delete the results of earlier calls.
        cache_dir: where rooms are rendered; None = the user's cache.
        dry_run: print what would run, what it is expected to cost and what it would be judged by, and stop.

    Returns:
        Exit code: 0, or 1 when a row failed.

    Raises:
        ConfigError: the folder holds what another plan or budget took hours for, and it is not `fresh`.
    """
    folder = folder.absolute()
    plan = load_plan(name, budget, folder, cache_dir)
    count = process_count(workers, plan.compute)
    if dry_run:
        jobs = jobs_of(plan)
        print("\n".join(dry_run_lines(plan, jobs, count)), flush=True)
        return 0
    here = Begun(plan.name, budget, str(folder), cache_dir)
    place = begun(here, fresh)
    jobs = jobs_in_place(lambda *where: jobs_at(plan, *where), here, place, fresh)
    if plan.content.get("estimate"):
        print(estimate(jobs, count, budget), flush=True)
    rows, count = run_jobs(jobs, folder, workers, plan.compute, discard=LEFT_BY_RUNS if fresh else (), place=place)
    with understood(folder / "rows"):
        results = {**collect(plan, rows), "workers": count, "environment": environment(plan.compute)}
        if plan.content.get("expectations"):
            results["expectations"] = [vars(outcome) for outcome in judge(as_tables(results))]
    write_sealed_json(folder / RESULTS, results)
    return report(folder)


def write_reports(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write the reports of an experiment; return the paths of page and text."""
    pages = {"demo": images.write_reports, "video": clips.write_reports}
    return pages.get(results["name"], reproduction.write_reports)(results, folder)


def summary(results: Results) -> list[str]:
    """A summary in sentences."""
    said = {"demo": images.summary, "video": clips.summary}
    return said.get(results["name"], reproduction.summary)(results)


def report(folder: Path, write: Callable[[Results, Path], tuple[Path, Path]] = write_reports) -> int:
    """Write the reports from results.json alone and print the summary; return the exit code.

    Args:
        folder: outputs, with results.json.
        write: writes page and text of the report, returns their paths.

    Raises:
        ConfigError: the folder holds no results.json, or a damaged or foreign one.
    """
    results = load_results(folder)
    with understood(folder / RESULTS):
        results = as_tables(results)
        page, text = write(results, folder)
        print("\n" + "\n".join(sentence.replace("**", "") for sentence in summary(results)))
        failed, seconds = failures(results), clock(results["wall_seconds"])
    for name, error in failed:
        print(f"FAILED {name}: {error}")
    print(f"\n{seconds} in all. Report: {page} (and {text.name}, results.json)", flush=True)
    return 1 if failed else 0


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    workers: int | None,
    compute: Compute | None = None,
    discard: Sequence[str] = (),
    place: Begun | None = None,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Run what is not finished yet.

    Args:
        jobs: of the experiment.
        folder: outputs; rows are kept below it.
        workers: processes; None = as `compute` says.
        compute: where the jobs run, which their command lines say; None = one-thread processes on the CPU.
        discard: parts of the folder to throw away first.
        place: what the folder holds, for later calls; None = nothing of a plan.

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
        for kept in (folder, folder / "rows"):
            remove_leftovers(kept)
        for part in discard:
            shutil.rmtree(folder / part, ignore_errors=True)
        if place is not None:
            place.keep(folder)
            discard_former_starts(jobs, folder, place)
        runner = Runner(folder / "rows", count, ProgressLine(jobs, count, done_fraction), start_worker)
        return runner.run(jobs), count


def process_count(workers: int | None, compute: Compute) -> int:
    """Processes: as asked, else as `compute` says, else one per available core, at most 8.

    Raises:
        ConfigError: fewer than one were asked for.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1 (leave it out for one process per core)")
    return workers or compute.workers or min(MOST_WORKERS, available_cores())


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
