"""Parts of results.json that all of its forms have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.experiments.plan import Plan
from m33d_hf.experiments.report.results import DONE

Rows = Mapping[str, dict[str, Any]]


def pretraining_entry(plan: Plan, rows: Rows, name: str, seed: int) -> dict[str, Any]:
    """A pre-training with all that went before it; diagnostics of the contrast come from the stage that trains it."""
    stages = [rows[plan.pretraining_id(link, seed)] for link in plan.chain(name)]
    entry: dict[str, Any] = {"variant": name, "seed": seed, "status": DONE}
    for stage in stages:
        if stage["status"] != DONE:
            error = f"{stage['id']}: {stage['error']}"
            return {**entry, "status": stage["status"], "error": error, "job": stage["id"]}
    diagnostics: dict[str, float] = {}
    for stage in stages:
        known = stage["diagnostics"].items()
        diagnostics |= {k: v for k, v in known if not k.startswith("retrieval_") or stage["stage"] != 2}
    entry |= {key: sum(stage[key] for stage in stages) for key in ("steps", "seconds", "cpu_seconds", "flops")}
    floors = stages[-1].get("loss_floors") or plan.loss_floors(plan.chain(name)[-1])  # finished by earlier versions
    return {**entry, "parameters": stages[-1]["encoder_parameters"], "diagnostics": diagnostics, "loss_floors": floors}


def kept(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What there is of these."""
    return {key: row[key] for key in keys if key in row}


def wall_seconds(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """From the first job's start to the last one's end, without the time in which no call was running."""
    spans = sorted((row["started"], row["started"] + row["wall_seconds"]) for row in rows.values() if "started" in row)
    total, reached = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
