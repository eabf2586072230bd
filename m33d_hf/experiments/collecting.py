"""Rows of finished jobs to results.json.

Three forms are in use, and files of all of them are kept by users: the tables' (a row per variant, column and seed),
the demo's (per method, task, number of labels and seed) and the video experiment's (per method, task, share of labels
and seed, with all metrics). `m33d_hf.experiments.reading` reads them all as tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.experiments.plan import Plan, row_id
from m33d_hf.experiments.report.results import DONE

Rows = Mapping[str, dict[str, Any]]


def collect(plan: Plan, rows: Rows) -> dict[str, Any]:
    """results.json without machine and number of workers."""
    form = {"demo": _demo, "video": _video}.get(plan.name, _tables_form)
    return {**form(plan, rows), "name": plan.name, "budget": plan.budget_name, "seeds": plan.seeds,
            "wall_seconds": _wall(rows), "data_digests": _digests(plan, rows)}  # fmt: skip


def _wall(rows: Rows) -> float:
    """From the first job's start to the last one's end, without the time in which no call was running."""
    spans = sorted((row["started"], row["started"] + row["wall_seconds"]) for row in rows.values() if "started" in row)
    total, reached = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _digests(plan: Plan, rows: Rows) -> dict[str, str]:
    """What was rendered; the demo names its splits alone."""
    found = rows["render"].get("digests", {})
    return {name.split("/")[-1]: digest for name, digest in found.items()} if plan.name == "demo" else found


def _tables_form(plan: Plan, rows: Rows) -> dict[str, Any]:
    """Self-contained: tables and questions are in it, so that later changes of the plan do not change its report."""
    return {
        "command": plan.command,
        "cpu_seconds": sum(float(row.get("cpu_seconds", 0.0)) for row in rows.values()),
        "jobs": len(rows),
        "settings": plan.settings(),
        "data": [{"id": name, **_kept(rows[name], "status", "error")} for name in ("render", "floors")],
        "columns": _columns(plan, rows),
        "variants": [
            {"id": name, "part": entry["part"], "label": entry["label"], "note": entry.get("note", "")}
            for name, entry in plan.entries.items()
        ],
        "tables": _tables(plan),
        "questions": questions_of(plan),
        "grid": _grid(plan, rows),
        "history": list(plan.content.get("history", [])),
        "pretraining": [_pretraining(plan, rows, name, seed) for seed in plan.seeds for name in plan.trained],
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
            **_kept(column, "metric", "title"),
        }
        known |= {"labels": how.get("labels"), "steps": plan.budget[how["steps"]] if "steps" in how else 0}
        value = floor.get("value") if column["metric"] != "knn/top1" else None
        found.append({**known, "split": plan.split, "floor": value, "floor_text": floor.get("how", "")})
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
            found.append(what | _kept(row, "status", "error"))
    return found


def _metrics_of(plan: Plan, item: str) -> dict[str, str]:
    """Column -> metric of what one measurement fills."""
    return {name: column["metric"] for name, column in plan.columns().items() if column["of"] == item}


def _values(plan: Plan, item: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Column -> value of one measurement."""
    if row["status"] != DONE:
        return {}
    return {name: float(row["metrics"][metric]) for name, metric in _metrics_of(plan, item).items()}


def _pretraining(plan: Plan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """A pre-training with all that went before it; diagnostics of the contrast come from the stage that trains it."""
    stages = [rows[plan.pretraining_id(link, seed)] for link in plan.chain(name)]
    entry: dict[str, Any] = {"variant": name, "seed": seed, "status": DONE}
    for stage in stages:
        if stage["status"] != DONE:
            return {**entry, "status": stage["status"], "error": f"{stage['id']}: {stage['error']}"}
    diagnostics: dict[str, float] = {}
    for stage in stages:
        known = stage["diagnostics"].items()
        diagnostics |= {k: v for k, v in known if not k.startswith("retrieval_") or stage["stage"] != 2}
    entry |= {key: sum(stage[key] for stage in stages) for key in ("steps", "seconds", "cpu_seconds", "flops")}
    floors = plan.loss_floors(name)
    return {**entry, "parameters": stages[-1]["encoder_parameters"], "diagnostics": diagnostics, "loss_floors": floors}


def _measured(plan: Plan, rows: Rows) -> list[dict[str, Any]]:
    found = []
    for seed in plan.seeds:
        for name in plan.entries:
            before = _pretraining(plan, rows, name, seed) if plan.chain(name) else {"flops": 0.0}
            for item in plan.measurements(name):
                for draw in plan.draws(item):
                    row = rows[row_id(item, name, seed, draw)]
                    values = _values(plan, item, row)
                    kept = _kept(row, "status", "error", "steps", "seconds", "cpu_seconds", "flops")
                    for column in _metrics_of(plan, item):
                        what: dict[str, Any] = {
                            "id": row_id(column, name, seed, draw),
                            "variant": name,
                            "column": column,
                        }
                        what |= {"seed": seed, **({"draw": draw} if draw else {})}
                        found.append({**what, **kept, "value": values.get(column), "metrics": row.get("metrics", {}),
                                      "pretraining_flops": before.get("flops")})  # fmt: skip
    return found


# -- the demo's form ---------------------------------------------------------------------------------------------


def _demo(plan: Plan, rows: Rows) -> dict[str, Any]:
    pretraining = {(name, seed): _stages(plan, rows, name, seed) for seed in plan.seeds for name in plan.trained}
    first = next((entry for entry in pretraining.values() if entry["status"] == DONE), {})
    floors = rows["floors"].get("floors", {})
    probes = [name for name in rows if name.startswith("probe-")]
    tasks = {column["metric"]: plan.how(name)["task"] for name, column in plan.columns().items()}
    return {
        "settings": {
            "frames": plan.budget["frames"],
            "image_size": first.get("image_size", [0])[0],
            "parameters": first.get("encoder_parameters", 0),
            "batch_size": first.get("batch_size", 0),
        },
        "class_names": rows["render"].get("class_names", []),
        "rendering_seconds": rows["render"].get("seconds"),
        "floors": {tasks[name]: {"metric": name, **floor} for name, floor in floors.items() if name in tasks},
        "matching_note": (
            "The paper matches clips only, so stage 1 goes on for"
            f" {plan.budget['probe_steps']} extra steps with a matching head, for this figure alone."
        ),
        "history": plan.content.get("history", []),
        "pretraining": list(pretraining.values()),
        "rows": _finetuned(plan, rows, pretraining),
        "jobs": [_kept(rows[name], "id", "status", "error", "wall_seconds") for name in ("render", "floors", *probes)],
    }


def _stages(plan: Plan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """The stages of a method as one entry, with the matching probe's figures."""
    merged = _pretraining(plan, rows, name, seed)
    entry = {"id": f"pretrain-{name}-s{seed}", "method": name, "seed": seed, "status": merged["status"]}
    if merged["status"] != DONE:
        return {**entry, "error": merged["error"]}
    *_, last = stages = [rows[plan.pretraining_id(link, seed)] for link in plan.chain(name)]
    probed = rows.get(f"probe-{name}-s{seed}", {}).get("diagnostics", {})
    diagnostics = {k: v for k, v in merged["diagnostics"].items() if k in last["diagnostics"] or "retrieval_" in k}
    diagnostics |= {key: value for key, value in probed.items() if key.startswith("matching_")}
    keys = ("id", "stage", "steps", "seconds", "flops", "curve", "diagnostics")
    return {
        **entry,
        **_kept(merged, "steps", "seconds", "flops"),
        "stages": [_kept(stage, *keys) for stage in stages],
        "diagnostics": diagnostics,
        "loss_floors": merged["loss_floors"],
        **_kept(last, "encoder_parameters", "image_size", "batch_size", "picture"),
    }


def _finetuned(
    plan: Plan, rows: Rows, pretraining: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry per method, task, labels and seed, with what its pre-training cost."""
    found = []
    keys = ("status", "error", "metric", "value", "metrics", "steps", "seconds", "flops", "curve", "picture")
    for column, entry in plan.columns().items():
        how = plan.how(column)
        for name in plan.entries:
            for seed in plan.seeds if plan.measurements(name) else ():
                job = f"{entry['of']}-{name}-s{seed}"
                what = {"id": job, "method": name, "task": how["task"], "labels": how["labels"], "seed": seed}
                before = pretraining.get((name, seed), {})
                spent = {f"pretraining_{key}": before.get(key, 0) for key in ("steps", "seconds", "flops")}
                found.append({**what, **_kept(rows[job], *keys), **spent})
    return found


# -- the video experiment's form ---------------------------------------------------------------------------------


def _video(plan: Plan, rows: Rows) -> dict[str, Any]:
    hows = [plan.how(name) for name in plan.columns()]
    steps = {"pretraining_steps": plan.budget["pretraining_steps"]["clips"]}
    floors = rows["floors"].get("floors", {})
    floor = {name: floors[name]["value"] for name in ("map", "clip_accuracy") if name in floors}
    found = {("floor" if name == "floors" else name): row for name, row in rows.items()}
    found["floor"] = {**rows["floors"], **({"metrics": floor} if floor else {})}
    return {
        "settings": {**_kept(plan.budget, "clips", "videos", "action_steps", "phase_steps"), **steps},
        "methods": list(plan.entries),
        "fractions": {kind: list(dict.fromkeys(how["fraction"] for how in hows if how["kind"] == kind))
                      for kind in ("actions", "phases")},
        "ceiling": rows["render"].get("ceiling"),
        "floor": floor,
        "rows": [_video_row(name, row) for name, row in found.items()],
    }  # fmt: skip


def _video_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    task, *rest = name.split("-")
    entry = {"id": name, "task": task, "method": "", "fraction": 0.0, "seed": -1}
    if task in ("actions", "phases"):
        entry |= {"fraction": float(rest[0]), "method": rest[1], "seed": int(rest[2].removeprefix("s"))}
    return {**entry, **_kept(row, "status", "error", "metrics", "seconds", "steps", "folder")}


def _kept(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What there is of these."""
    return {key: row[key] for key in keys if key in row}
