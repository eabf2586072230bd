"""The demo from beginning to end: plan, run, collect, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CorruptFileError
from m33d_hf.experiments.expectations import judge
from m33d_hf.experiments.jobs import DONE, Job
from m33d_hf.experiments.plan import DemoPlan, load_plan
from m33d_hf.experiments.report import summary, write_report
from m33d_hf.experiments.results import failures
from m33d_hf.experiments.running import RESULTS, environment, run_jobs, tell, understood

Rows = Mapping[str, dict[str, Any]]


def run_demo(
    folder: Path, budget: str = "full", workers: int | None = None, fresh: bool = False, cache_dir: str | None = None
) -> int:
    """Run what is not finished yet and write results.json and the reports.

    Args:
        folder: outputs.
        budget: key of demo.yaml's budgets.
        workers: processes, one thread each; None = one per available core, at most 8.
        fresh: throw away what earlier calls left.
        cache_dir: where rooms are rendered; None = the user's cache.

    Returns:
        Exit code: 0, or 1 when a row failed.
    """
    started = time.perf_counter()
    folder = folder.absolute()
    plan = load_plan(budget, folder, cache_dir)
    jobs = plan.jobs()
    rows, count = run_jobs(jobs, folder, workers, discard=("rows", "runs", "pictures", "figures") if fresh else ())
    with understood(folder / "rows"):
        results = collect(plan, jobs, rows)
        seconds = time.perf_counter() - started
        results |= {"workers": count, "wall_seconds": _all_seconds(folder, seconds, rows), "environment": environment()}
        results["expectations"] = [vars(outcome) for outcome in judge(results)]
    write_sealed_json(folder / RESULTS, results)
    return report(folder)


def report(folder: Path) -> int:
    """Write the reports from results.json alone and print the gist; return the exit code.

    Raises:
        ConfigError: the folder holds no results.json.
    """
    return tell(folder, write_report, summary, failures)


def _all_seconds(folder: Path, seconds: float, rows: Rows) -> float:
    """Wall clock of this call; with rows kept from an earlier call, its recorded time is added."""
    path = folder / RESULTS
    if not any(row.get("reused") for row in rows.values()) or not path.exists():
        return seconds
    try:
        earlier = float(read_sealed_json(path)["wall_seconds"])
    except (CorruptFileError, KeyError, TypeError, ValueError) as error:
        print(f"The time of earlier calls is not known: {error}", file=sys.stderr, flush=True)
        return seconds
    everything = all(row.get("reused") for row in rows.values())
    return earlier + (0.0 if everything else seconds)


def collect(plan: DemoPlan, jobs: Sequence[Job], rows: Rows) -> dict[str, Any]:
    """results.json without the parts that belong to the call (time, machine)."""
    kinds = {job.id: job.function.split(":")[1] for job in jobs}
    others = [_brief(rows[name]) for name in ("render", "floors")]
    others += [_brief(rows[name]) for name in kinds if name.startswith("probe-")]
    pretraining = [_pretraining(plan, rows, method, seed) for seed in plan.seeds for method in _trained(plan)]
    finished = [entry for entry in pretraining if entry["status"] == DONE]
    first = finished[0] if finished else {}
    return {
        "name": "demo",
        "budget": plan.budget_name,
        "seeds": plan.seeds,
        "settings": {
            "frames": plan.budget["frames"],
            "image_size": first.get("image_size", [0])[0],
            "parameters": first.get("encoder_parameters", 0),
            "batch_size": first.get("batch_size", 0),
        },
        "class_names": rows["render"].get("class_names", []),
        "rendering_seconds": rows["render"].get("seconds"),
        "data_digests": rows["render"].get("digests", {}),
        "floors": rows["floors"].get("floors", {}),
        "matching_note": _matching_note(plan),
        "history": plan.content.get("history", []),
        "pretraining": pretraining,
        "rows": _finetuning(plan, rows, {(e["method"], e["seed"]): e for e in pretraining}),
        "jobs": others,
    }


def _trained(plan: DemoPlan) -> list[str]:
    return [method for method, stages in plan.content["methods"].items() if stages]


def _matching_note(plan: DemoPlan) -> str:
    steps = plan.budget["probe_steps"]
    return (
        "The paper matches clips only, so stage 1 goes on for"
        f" {steps} extra steps with a matching head, for this figure alone."
    )


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("id", "status", "error", "wall_seconds")
    return {key: row[key] for key in keys if key in row}


def _pretraining(plan: DemoPlan, rows: Rows, method: str, seed: int) -> dict[str, Any]:
    """The stages of a method as one entry; the contrast is measured after the stage that trains it."""
    names = [
        name for name in rows if name == f"pretrain-{method}-s{seed}" or name.startswith(f"pretrain-{method}-s{seed}-")
    ]
    stages = [rows[name] for name in names]
    entry: dict[str, Any] = {"id": f"pretrain-{method}-s{seed}", "method": method, "seed": seed, "status": DONE}
    for stage in stages:
        if stage["status"] != DONE:
            return {**entry, "status": stage["status"], "error": f"{stage['id']}: {stage['error']}"}
    diagnostics = dict(stages[-1]["diagnostics"])
    diagnostics |= {key: value for key, value in stages[0]["diagnostics"].items() if key.startswith("retrieval_")}
    probe = rows.get(f"probe-{method}-s{seed}", {})
    diagnostics |= {k: v for k, v in probe.get("diagnostics", {}).items() if k.startswith("matching_")}
    keys = ("id", "stage", "steps", "seconds", "flops", "curve", "diagnostics")
    entry |= {key: sum(stage[key] for stage in stages) for key in ("steps", "seconds", "flops")}
    return {
        **entry,
        "stages": [{key: stage[key] for key in keys} for stage in stages],
        "diagnostics": diagnostics,
        "encoder_parameters": stages[-1]["encoder_parameters"],
        "image_size": stages[-1]["image_size"],
        "batch_size": stages[-1]["batch_size"],
        "picture": stages[-1]["picture"],
    }


def _finetuning(
    plan: DemoPlan, rows: Rows, pretraining: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry per method, task, labels and seed, with what its pre-training cost."""
    entries = []
    keys = ("status", "error", "metric", "value", "metrics", "steps", "seconds", "flops", "curve", "picture")
    for choice in plan.content["finetuning"]:
        for labels in choice["labels"]:
            for method in plan.content["methods"]:
                for seed in plan.seeds:
                    name = f"{choice['task']}-{labels}-{method}-s{seed}"
                    what = {"id": name, "method": method, "task": choice["task"], "labels": labels, "seed": seed}
                    before = pretraining.get((method, seed), {})
                    spent = {f"pretraining_{key}": before.get(key, 0) for key in ("steps", "seconds", "flops")}
                    row = rows[name]
                    entries.append({**what, **{key: row[key] for key in keys if key in row}, **spent})
    return entries
