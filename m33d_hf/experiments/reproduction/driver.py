"""The reproduction from beginning to end: plan, estimate, run, collect, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.experiments.jobs import DONE, Job
from m33d_hf.experiments.progress import clock
from m33d_hf.experiments.reproduction.plan import ReproductionPlan, load_plan
from m33d_hf.experiments.reproduction.report import failures, summary, write_reports
from m33d_hf.experiments.running import RESULTS, environment, process_count, run_jobs, tell, understood

Rows = Mapping[str, dict[str, Any]]


def run_reproduction(
    folder: Path,
    budget: str = "full",
    plan_name: str = "reproduction",
    workers: int | None = None,
    fresh: bool = False,
    cache_dir: str | None = None,
    estimate_only: bool = False,
) -> int:
    """Run what is not finished yet and write results.json and the reports.

    Args:
        folder: outputs.
        budget: key of the plan's budgets.
        plan_name: "reproduction", "exploration" (what was tried on the validation split) or "longer" (the main rows,
            five times the samples).
        workers: processes; None = one per available core, at most 8.
        fresh: throw away what earlier calls left.
        cache_dir: where rooms are rendered; None = the user's cache.
        estimate_only: tell the time that it would take and stop.

    Returns:
        Exit code: 0, or 1 when a row failed.
    """
    folder = folder.absolute()
    plan = load_plan(plan_name, budget, folder, cache_dir)
    jobs = plan.jobs()
    print(estimate(jobs, process_count(workers, plan.compute), budget), flush=True)
    if estimate_only:
        return 0
    rows, count = run_jobs(jobs, folder, workers, plan.compute, discard=("rows", "runs") if fresh else ())
    with understood(folder / "rows"):
        results = {**collect(plan, rows), "workers": count, "environment": environment(plan.compute)}
    write_sealed_json(folder / RESULTS, results)
    return report_reproduction(folder)


def estimate(jobs: Sequence[Job], workers: int, budget: str) -> str:
    """One sentence: how long everything takes where nothing is finished yet."""
    seconds = sum(job.cost for job in jobs) / workers
    runs = sum(job.id.startswith("pretrain-") for job in jobs)
    return (
        f"budget {budget}: {runs} pre-trainings and {len(jobs) - runs} other jobs, about {clock(seconds)} in {workers} "
        "processes (finished rows are kept: the same command continues)"
    )


def report_reproduction(folder: Path) -> int:
    """Write the reports from results.json alone and print the gist; return the exit code.

    Raises:
        ConfigError: the folder holds no results.json.
    """
    return tell(folder, write_reports, summary, failures)


def collect(plan: ReproductionPlan, rows: Rows) -> dict[str, Any]:
    """results.json without machine and number of workers."""
    spent = sum(float(row.get("cpu_seconds", 0.0)) for row in rows.values())
    return {
        "name": plan.name,
        "command": plan.command,
        "budget": plan.budget_name,
        "seeds": plan.seeds,
        "wall_seconds": _wall(rows),
        "cpu_seconds": spent,
        "jobs": len(rows),
        "settings": plan.settings(),
        "data_digests": rows["render"].get("digests", {}),
        "data": [{"id": name, **_status(rows[name])} for name in ("render", "floors")],
        "columns": _columns(plan, rows),
        "variants": [
            {"id": name, "part": entry["part"], "label": entry["label"], "note": entry.get("note", "")}
            for name, entry in plan.entries.items()
        ],
        "tables": _tables(plan),
        "questions": _questions(plan),
        "grid": _grid(plan, rows),
        "history": list(plan.content.get("history", [])),
        "pretraining": [_pretraining(plan, rows, name, seed) for seed in plan.seeds for name in _trained(plan)],
        "rows": list(_measured(plan, rows)),
    }


def _wall(rows: Rows) -> float:
    """From the first job's start to the last one's end, without the time in which no call was running."""
    spans = sorted((row["started"], row["started"] + row["wall_seconds"]) for row in rows.values() if "started" in row)
    total, reached = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _trained(plan: ReproductionPlan) -> list[str]:
    return [name for name, entry in plan.entries.items() if "recipe" in entry and plan.measurements(name)]


def _columns(plan: ReproductionPlan, rows: Rows) -> list[dict[str, Any]]:
    floors: Mapping[str, Any] = rows["floors"].get("floors", {})
    found = []
    for name, column in plan.columns().items():
        how = plan.content["measurements"][column["of"]]
        floor = floors.get(column["metric"], {})
        found.append(
            {
                "id": name,
                "part": "clips" if how["kind"] != "dense" else "images",
                "metric": column["metric"],
                "title": column["title"],
                "labels": how.get("labels"),
                "steps": plan.budget[how["steps"]] if "steps" in how else 0,
                "split": plan.split,
                "floor": floor.get("value") if column["metric"] != "knn/top1" else None,
                "floor_text": floor.get("how", ""),
            }
        )
    return found


def _tables(plan: ReproductionPlan) -> list[dict[str, Any]]:
    """Tables of this budget; what it leaves out of one is said, and one row alone is not a table."""
    known, found = plan.columns(), []
    for table in plan.content["tables"]:
        columns = [name for name in table["columns"] if name in known]
        names = [name for name in table["rows"] if name in plan.entries]
        labels = table.get("labels", {})
        rows = [{"variant": n, "label": labels.get(n, plan.entries[n]["label"]), "group": ""} for n in names]
        if columns and len(rows) > 1:
            kept = {**{key: table[key] for key in ("id", "title", "paper")}, "note": table["note"] + _cut(plan, table)}
            found.append({**kept, "columns": columns, "rows": rows})
    return found


def _cut(plan: ReproductionPlan, table: Mapping[str, Any]) -> str:
    """A sentence on rows and columns of a table that the budget leaves out; empty where there are none."""
    rows = [plan.content["pretraining"][name]["label"] for name in table["rows"] if name not in plan.entries]
    columns = [plan.content["columns"][name]["title"] for name in table["columns"] if name not in plan.columns()]
    return f" Not in this budget: {'; '.join([*rows, *columns])}." if rows or columns else ""


def _questions(plan: ReproductionPlan) -> list[dict[str, Any]]:
    known, found = plan.columns(), []
    for question in plan.content["questions"]:
        compare = [
            {**pair, "columns": [name for name in pair["columns"] if name in known]}
            for pair in question["compare"]
            if pair["better"] in plan.entries and pair["than"] in plan.entries
        ]
        if compare:
            found.append({**question, "compare": compare})
    return found


def _grid(plan: ReproductionPlan, rows: Rows) -> list[dict[str, Any]]:
    found = []
    for number, entry in enumerate(plan.grid_entries):
        for start in entry["from"]:
            row = rows[f"grid-{number}-{start}"]
            values = _values(plan, entry["measurement"], row)
            seed = int(plan.content["grid"]["seed"])
            found.append({"variant": start, "label": entry["label"], "seed": seed, "values": values, **_status(row)})
    return found


def _status(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("status", "error") if key in row}


def _metrics_of(plan: ReproductionPlan, item: str) -> dict[str, str]:
    """Column -> metric of what one measurement fills."""
    return {name: column["metric"] for name, column in plan.columns().items() if column["of"] == item}


def _values(plan: ReproductionPlan, item: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Column -> value of one measurement."""
    if row["status"] != DONE:
        return {}
    return {name: float(row["metrics"][metric]) for name, metric in _metrics_of(plan, item).items()}


def _pretraining(plan: ReproductionPlan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """A pre-training with all that went before it; diagnostics of the contrast come from the stage that trains it."""
    stages = [rows[f"pretrain-{link}-s{seed}"] for link in plan.chain(name)]
    entry: dict[str, Any] = {"variant": name, "seed": seed, "status": DONE}
    for stage in stages:
        if stage["status"] != DONE:
            return {**entry, "status": stage["status"], "error": f"{stage['id']}: {stage['error']}"}
    diagnostics: dict[str, float] = {}
    for stage in stages:
        kept = {k: v for k, v in stage["diagnostics"].items() if not k.startswith("retrieval_") or stage["stage"] != 2}
        diagnostics |= kept
    entry |= {key: sum(stage[key] for stage in stages) for key in ("steps", "seconds", "cpu_seconds", "flops")}
    return {**entry, "parameters": stages[-1]["encoder_parameters"], "diagnostics": diagnostics}


def _measured(plan: ReproductionPlan, rows: Rows) -> list[dict[str, Any]]:
    found = []
    for seed in plan.seeds:
        for name in plan.entries:
            before = _pretraining(plan, rows, name, seed) if plan.chain(name) else {"flops": 0.0}
            for item in plan.measurements(name):
                row = rows[f"{item}-{name}-s{seed}"]
                values = _values(plan, item, row)
                names = ("status", "error", "steps", "seconds", "cpu_seconds", "flops")
                kept: dict[str, Any] = {key: row[key] for key in names if key in row}
                for column in _metrics_of(plan, item):
                    what = {"id": f"{column}-{name}-s{seed}", "variant": name, "column": column, "seed": seed}
                    found.append({**what, **kept, "value": values.get(column), "metrics": row.get("metrics", {}),
                                  "pretraining_flops": before.get("flops")})  # fmt: skip
    return found
