"""Rows of finished jobs to results.json.

Three forms are in use, and files of all of them are kept by users: the tables' (a row per variant, column and seed),
the demo's (per method, task, number of labels and seed) and the video experiment's (per method, task, share of labels
and seed, with all metrics). `m33d_hf.experiments.reading` reads them all as tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.experiments.collected import Rows, kept, pretraining_entry, wall_seconds
from m33d_hf.experiments.demo_forms import demo_form, video_form
from m33d_hf.experiments.plan import Plan, row_id
from m33d_hf.experiments.report.results import DONE, TEST


def collect(plan: Plan, rows: Rows) -> dict[str, Any]:
    """results.json without machine and number of workers."""
    form = {"demo": demo_form, "video": video_form}.get(plan.name, _tables_form)
    cpu_seconds = sum(float(row.get("cpu_seconds", 0.0)) for row in rows.values())
    return {**form(plan, rows), "name": plan.name, "budget": plan.budget_name, "seeds": plan.seeds,
            "command": plan.command, "wall_seconds": wall_seconds(rows), "cpu_seconds": cpu_seconds,
            "data_digests": _digests(plan, rows)}  # fmt: skip


def _digests(plan: Plan, rows: Rows) -> dict[str, str]:
    """What was rendered; the demo names its splits alone."""
    found = rows["render"].get("digests", {})
    return {name.split("/")[-1]: digest for name, digest in found.items()} if plan.name == "demo" else found


def _tables_form(plan: Plan, rows: Rows) -> dict[str, Any]:
    """Self-contained: tables and questions are in it, so that later changes of the plan do not change its report."""
    return {
        "jobs": len(rows),
        "settings": plan.settings(),
        "data": [{"id": name, **kept(rows[name], "status", "error")} for name in ("render", "floors")],
        "columns": _columns(plan, rows),
        "variants": [
            {"id": name, "part": entry["part"], "label": entry["label"], "note": entry.get("note", "")}
            for name, entry in plan.entries.items()
        ],
        "tables": _tables(plan),
        "questions": questions_of(plan),
        "conditions": plan.conditions,
        "grid": _grid(plan, rows),
        "history": list(plan.content.get("history", [])),
        "pretraining": [pretraining_entry(plan, rows, name, seed) for seed in plan.seeds for name in plan.trained],
        "rows": list(_measured(plan, rows)),
    }


def _columns(plan: Plan, rows: Rows) -> list[dict[str, Any]]:
    floors: Mapping[str, Any] = rows["floors"].get("floors", {})
    found = []
    for name, column in plan.columns().items():
        how = plan.how(name)
        floor = floors.get(column["metric"], {})
        known = {
            "id": name,
            "part": "clips" if how["kind"] != "dense" else "images",
            **kept(column, "metric", "title"),
        }
        known |= {"labels": how.get("labels"), "steps": plan.budget[how["steps"]] if "steps" in how else 0}
        value = floor.get("value") if column["metric"] != "knn/top1" else None
        of = {"split": plan.split, "floor_split": rows["floors"].get("split", TEST)}
        found.append({**known, **of, "floor": value, "floor_text": floor.get("how", "")})
    return found


def _tables(plan: Plan) -> list[dict[str, Any]]:
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


def _cut(plan: Plan, table: Mapping[str, Any]) -> str:
    """A sentence on rows and columns of a table that the budget leaves out; empty where there are none."""
    rows = [plan.content["pretraining"][name]["label"] for name in table["rows"] if name not in plan.entries]
    columns = [plan.content["columns"][name]["title"] for name in table["columns"] if name not in plan.columns()]
    return f" Not in this budget: {'; '.join([*rows, *columns])}." if rows or columns else ""


def questions_of(plan: Plan) -> list[dict[str, Any]]:
    """The declared comparisons of rows and columns that the budget fills."""
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


def _grid(plan: Plan, rows: Rows) -> list[dict[str, Any]]:
    found = []
    for number, entry in enumerate(plan.grid_entries):
        for start in entry["from"]:
            row = rows[f"grid-{number}-{start}"]
            values = _values(plan, entry["measurement"], row)
            seed = int(plan.content["grid"]["seed"])
            what = {"variant": start, "label": entry["label"], "seed": seed, "values": values}
            found.append(what | kept(row, "status", "error"))
    return found


def _metrics_of(plan: Plan, item: str, row: Mapping[str, Any]) -> dict[str, str]:
    """Column -> metric of what one measurement fills; a model has no column of inputs that it does not see."""
    found = {}
    for name, column in plan.columns().items():
        if column["of"] == item:
            inputs = "+".join(column.get("inputs", ()))
            metric = f"{inputs}/{column['metric']}" if inputs else column["metric"]
            if not inputs or row["status"] != DONE or metric in row["metrics"]:
                found[name] = metric
    return found


def _values(plan: Plan, item: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Column -> value of one measurement."""
    if row["status"] != DONE:
        return {}
    return {name: float(row["metrics"][metric]) for name, metric in _metrics_of(plan, item, row).items()}


def _measured(plan: Plan, rows: Rows) -> list[dict[str, Any]]:
    found = []
    for seed in plan.seeds:
        for name in plan.entries:
            before = pretraining_entry(plan, rows, name, seed) if plan.chain(name) else {"flops": 0.0}
            for item in plan.measurements(name):
                for draw in plan.draws(item):
                    job = row_id(item, name, seed, draw)
                    row = rows[job]
                    values = _values(plan, item, row)
                    spent = kept(row, "status", "error", "steps", "seconds", "cpu_seconds", "flops")
                    for column in _metrics_of(plan, item, row):
                        what: dict[str, Any] = {
                            "id": row_id(column, name, seed, draw),
                            "variant": name,
                            "column": column,
                            "job": job,
                        }
                        what |= {"seed": seed, **({"draw": draw} if draw else {})}
                        found.append({**what, **spent, "value": values.get(column), "metrics": row.get("metrics", {}),
                                      "pretraining_flops": before.get("flops")})  # fmt: skip
    return found
