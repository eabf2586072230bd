"""A made-up results.json of the reproduction with known answers; none of its numbers was ever measured.

Spread 2 points in every row. "win" beats "base" by 10 points, "same" by 1; "broken" lost a seed, "absent" was never
run, "alone" has one seed. The seeds of "same" go the other way: paired with "base" they differ by 3, 1 and -1.
"""

from __future__ import annotations

from typing import Any

SEEDS = (0, 1, 2)
OFFSETS = (-0.01, 0.0, 0.01)
MEANS = {"scratch": 0.20, "base": 0.30, "same": 0.31, "win": 0.40, "broken": 0.35, "alone": 0.33}
COLUMNS = {"semseg-50": 0.0, "semseg-200": 0.05, "depth-200": 0.30}
RATIOS = ((0.2, 0.2), (0.2, 0.5), (0.2, 0.8), (0.5, 0.2), (0.5, 0.5), (0.8, 0.2), (0.8, 0.8))


def made_row(variant: str, column: str, seed: int, value: float | None) -> dict[str, Any]:
    """A finished row, or a failed one where the value is None."""
    row: dict[str, Any] = {"id": f"{column}-{variant}-s{seed}", "variant": variant, "column": column, "seed": seed}
    if value is None:
        return {**row, "status": "failed", "error": "NonFiniteLossError: the loss is nan\n  in `step` <3>"}
    return {**row, "status": "done", "value": value, "metrics": {}, "steps": 250, "seconds": 12.5, "cpu_seconds": 12.0,
            "flops": 2e11, "pretraining_flops": 0.0 if variant == "scratch" else 3e12}  # fmt: skip


def made_pretraining(variant: str, seed: int, flops: float) -> dict[str, Any]:
    """A finished pre-training."""
    return {"id": f"pretrain-{variant}-s{seed}", "variant": variant, "seed": seed, "status": "done", "steps": 500,
            "seconds": 60.0, "cpu_seconds": 59.0 + seed, "flops": flops, "parameters": 470_000,
            "diagnostics": {"retrieval_accuracy_depth": 0.25 + 0.01 * seed}}  # fmt: skip


def _rows() -> list[dict[str, Any]]:
    rows = []
    for column, more in COLUMNS.items():
        for variant, mean in MEANS.items():
            for seed in SEEDS if variant != "alone" else (0,):
                lost = variant == "broken" and seed == 1
                offset = OFFSETS[seed] * (-1 if variant == "same" else 1)
                rows.append(made_row(variant, column, seed, None if lost else mean + more + offset))
    for number, _ in enumerate(RATIOS):
        rows += [
            made_row(f"ratio-{number}", "semseg-200", seed, 0.30 + 0.02 * number + OFFSETS[seed]) for seed in SEEDS
        ]
    return rows


def _tables() -> list[dict[str, Any]]:
    labels = {"scratch": "scratch", "base": "Base | plain", "same": "Same <b>", "win": "Winner", "broken": "Broken",
              "absent": "Absent", "alone": "Alone"}  # fmt: skip

    def table(name: str, columns: list[str], variants: list[str], paper: str | None = None) -> dict[str, Any]:
        rows = [{"variant": variant, "label": labels[variant], "group": ""} for variant in variants]
        return {"id": name, "title": f"Made-up {name}", "paper": paper, "note": "A note.", "columns": columns,
                "rows": rows}  # fmt: skip

    ratio_rows = [{"variant": f"ratio-{i}", "label": f"{a:g} / {b:g}".replace("0.", "."), "group": ""}
                  for i, (a, b) in enumerate(RATIOS)]  # fmt: skip
    tables = [
        table("table_3", ["semseg-200", "depth-200"], ["scratch", "base", "same", "win"]),
        table("figure_2", ["semseg-50", "semseg-200"], ["scratch", "base", "same", "win", "broken"]),
        {**table("table_6", ["semseg-200"], []), "rows": ratio_rows},
        table("table_8", ["semseg-200", "depth-200"], ["base", "same", "win", "broken", "absent", "alone"]),
        table("empty", [], []),
    ]
    return tables


def _questions() -> list[dict[str, Any]]:
    everywhere = list(COLUMNS)

    def ask(name: str, *pairs: tuple[str, str]) -> dict[str, Any]:
        compare = [{"better": a, "than": b, "columns": everywhere, "text": f"{a} against {b}"} for a, b in pairs]
        return {"id": name, "text": f"Does {name} help?", "because": "It is made up.", "compare": compare}

    return [ask("winning", ("win", "base")), ask("sameness", ("same", "base")), ask("losing", ("base", "win")),
            ask("breaking", ("broken", "base"), ("absent", "base"), ("alone", "base"))]  # fmt: skip


def made_results() -> dict[str, Any]:
    """The whole file."""
    trained = ["base", "same", "win", "broken", "alone", *(f"ratio-{i}" for i in range(len(RATIOS)))]
    names = ["scratch", *trained, "absent"]
    metric = {"semseg-50": "mIoU %, 50 labels", "semseg-200": "mIoU %, 200 labels", "depth-200": "δ1 %, 200 labels"}
    columns = [
        {"id": name, "part": "images", "metric": "delta1" if "depth" in name else "miou", "title": title,
         "labels": int(name.split("-")[1]), "steps": 250, "split": "test", "floor": 0.45 if "depth" in name else 0.09,
         "floor_text": "mean depth per position" if "depth" in name else "commonest class per position"}
        for name, title in metric.items()
    ]  # fmt: skip
    return {
        "name": "reproduction", "budget": "full", "command": "make reproduce", "workers": 2, "wall_seconds": 3300.0,
        "cpu_seconds": 6500.0, "seeds": list(SEEDS), "environment": {"commit": "0123456789abcdef", "torch": "2.11"},
        "settings": {"images": {"frames": 5000}, "clips": {}}, "columns": columns,
        "variants": [{"id": name, "part": "images", "label": name, "note": ""} for name in names],
        "tables": _tables(), "questions": _questions(),
        "grid": [{"variant": "base", "label": "learning rate 3e-3", "seed": 7, "values": {"semseg-200": 0.312},
                  "status": "done"}],
        "history": ["A first run of 300 steps showed nothing."],
        "pretraining": [made_pretraining(name, seed, 3e12 + 1e11 * i) for i, name in enumerate(trained)
                        for seed in SEEDS],
        "rows": _rows(),
    }  # fmt: skip
