"""results.json of the two demos, in forms of their own; `collecting` says which."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from m33d_hf.experiments.collected import Rows, kept, pretraining_entry
from m33d_hf.experiments.plan import Plan, row_id
from m33d_hf.experiments.report.results import DONE


def demo_form(plan: Plan, rows: Rows) -> dict[str, Any]:
    """A row per method, task, number of labels, seed and fine-tuning."""
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
        "matching_note": _matching_note(plan) if probes else "",
        "history": plan.content.get("history", []),
        "pretraining": list(pretraining.values()),
        "rows": _finetuned(plan, rows, pretraining),
        "jobs": [kept(rows[name], "id", "status", "error", "wall_seconds") for name in ("render", "floors", *probes)],
    }


def _matching_note(plan: Plan) -> str:
    steps = plan.budget["probe_steps"]
    return (
        f"The paper matches clips only, so stage 1 goes on for {steps} extra steps with a matching head, for this"
        " figure alone."
    )


def _stages(plan: Plan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """The stages of a method as one entry, with the matching probe's figures."""
    merged = pretraining_entry(plan, rows, name, seed)
    entry = {"id": f"pretrain-{name}-s{seed}", "method": name, "seed": seed, "status": merged["status"]}
    if merged["status"] != DONE:
        return {**entry, **kept(merged, "error", "job")}
    *_, last = stages = [rows[plan.pretraining_id(link, seed)] for link in plan.chain(name)]
    probed = rows.get(f"probe-{name}-s{seed}", {}).get("diagnostics", {})
    diagnostics = {k: v for k, v in merged["diagnostics"].items() if k in last["diagnostics"] or "retrieval_" in k}
    diagnostics |= {key: value for key, value in probed.items() if key.startswith("matching_")}
    keys = ("id", "stage", "steps", "seconds", "flops", "curve", "diagnostics")
    return {
        **entry,
        **kept(merged, "steps", "seconds", "cpu_seconds", "flops"),
        "stages": [kept(stage, *keys) for stage in stages],
        "diagnostics": diagnostics,
        "loss_floors": merged["loss_floors"],
        **kept(last, "encoder_parameters", "image_size", "batch_size", "picture"),
    }


def _finetuned(
    plan: Plan, rows: Rows, pretraining: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry per method, task, labels and seed, with what its pre-training cost."""
    found = []
    keys = (
        "status",
        "error",
        "metric",
        "value",
        "metrics",
        "steps",
        "seconds",
        "cpu_seconds",
        "flops",
        "curve",
        "picture",
    )
    for column, entry in plan.columns().items():
        how = plan.how(column)
        for name in plan.entries:
            for seed, draw in product(plan.seeds, plan.draws(entry["of"])) if plan.measurements(name) else ():
                job = row_id(entry["of"], name, seed, draw)
                what = {"id": job, "method": name, "task": how["task"], "labels": how["labels"], "seed": seed}
                before = pretraining.get((name, seed), {})
                spent = {f"pretraining_{key}": before.get(key, 0) for key in ("steps", "seconds", "flops")}
                found.append({**what, **({"draw": draw} if draw else {}), **kept(rows[job], *keys), **spent})
    return found


def video_form(plan: Plan, rows: Rows) -> dict[str, Any]:
    """A row per method, task, share of labels and seed, with all metrics."""
    hows = [plan.how(name) for name in plan.columns()]
    steps = {"pretraining_steps": plan.budget["pretraining_steps"]["clips"]}
    floors = rows["floors"].get("floors", {})
    floor = {name: floors[name]["value"] for name in ("map", "clip_accuracy") if name in floors}
    found = {("floor" if name == "floors" else name): row for name, row in rows.items()}
    found["floor"] = {**rows["floors"], **({"metrics": floor} if floor else {})}
    return {
        "settings": {**kept(plan.budget, "clips", "videos", "action_steps", "phase_steps"), **steps},
        "methods": list(plan.entries),
        "fractions": {kind: list(dict.fromkeys(how["fraction"] for how in hows if how["kind"] == kind))
                      for kind in ("actions", "phases")},
        "ceiling": rows["render"].get("ceiling"),
        "floor": floor,
        "conditions": plan.conditions,
        "pretraining": [_method(plan, rows, name, seed) for seed in plan.seeds for name in plan.trained],
        "rows": [_video_row(name, row, plan.folder) for name, row in found.items()],
    }  # fmt: skip


def _method(plan: Plan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """A pre-training under the name that its row has."""
    return {"id": plan.pretraining_id(name, seed), "method": name, **pretraining_entry(plan, rows, name, seed)}


def _video_row(name: str, row: Mapping[str, Any], outputs: Path) -> dict[str, Any]:
    task, *rest = name.split("-")
    entry = {"id": name, "task": task, "method": "", "fraction": 0.0, "seed": -1}
    if task in ("actions", "phases"):
        entry |= {"fraction": float(rest[0]), "method": rest[1], "seed": int(rest[2].removeprefix("s"))}
    # Results are moved and published, and say nothing of the machine; the folder may have moved since the row ran.
    ran_in = Path(row["log"]).parents[1] if "log" in row else outputs
    place = {"folder": os.path.relpath(row["folder"], ran_in)} if "folder" in row else {}
    return {**entry, **kept(row, "status", "error", "metrics", "seconds", "steps"), **place}
