"""The video experiment from beginning to end: plan, run, collect, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.running import RESULTS, environment, run_jobs, tell, understood
from m33d_hf.experiments.video_plan import VideoPlan, load_video_plan
from m33d_hf.experiments.video_report import failures, summary, write_video_report


def run_video(
    folder: Path, budget: str = "full", workers: int | None = None, fresh: bool = False, cache_dir: str | None = None
) -> int:
    """Run what is not finished yet and write results.json and the reports.

    Args:
        folder: outputs.
        budget: key of video.yaml's budgets.
        workers: processes, one thread each; None = one per available core, at most 8.
        fresh: throw away what earlier calls left.
        cache_dir: where rooms are rendered; None = the user's cache.

    Returns:
        Exit code: 0, or 1 when a row failed.
    """
    started = time.perf_counter()
    folder = folder.absolute()
    plan = load_video_plan(budget, folder, cache_dir)
    jobs = plan.jobs()
    rows, count = run_jobs(jobs, folder, workers, discard=("rows", "runs") if fresh else ())
    seconds = sum(float(row.get("wall_seconds", 0.0)) for row in rows.values()) / count
    if not any(row.get("reused") for row in rows.values()):
        seconds = time.perf_counter() - started
    with understood(folder / "rows"):
        results = collect(plan, jobs, rows)
    results |= {"workers": count, "wall_seconds": seconds, "environment": environment()}
    write_sealed_json(folder / RESULTS, results)
    return report_video(folder)


def collect(plan: VideoPlan, jobs: Sequence[Job], rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """results.json without time and machine."""
    entries = []
    for job in jobs:
        task, *rest = job.id.split("-")
        row = rows[job.id]
        keys = ("status", "error", "metrics", "seconds", "steps", "folder")
        entry = {"id": job.id, "task": task, "method": "", "fraction": 0.0, "seed": -1}
        if task in ("actions", "phases"):
            entry |= {"fraction": float(rest[0]), "method": rest[1], "seed": int(rest[2].removeprefix("s"))}
        entries.append({**entry, **{key: row[key] for key in keys if key in row}})
    render = rows["render"]
    return {
        "name": "video",
        "budget": plan.budget_name,
        "settings": {key: value for key, value in plan.budget.items() if key != "overrides"},
        "methods": plan.methods,
        "seeds": plan.seeds,
        "fractions": {part: plan.fractions(part) for part in ("actions", "phases")},
        "ceiling": render.get("ceiling"),
        "floor": rows["floor"].get("metrics", {}),
        "data_digests": render.get("digests", {}),
        "rows": entries,
    }


def report_video(folder: Path) -> int:
    """Write the reports from results.json alone and print the gist; return the exit code.

    Raises:
        ConfigError: the folder holds no results.json.
    """
    return tell(folder, write_video_report, summary, failures)
