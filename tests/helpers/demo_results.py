"""A made-up results.json of the demo, for tests of the report; none of its numbers was ever measured."""

from __future__ import annotations

from typing import Any

TASKS = (("depth_estimation", 200), ("semantic_segmentation", 50), ("semantic_segmentation", 200))


def fake_row(method: str, task: str, labels: int, seed: int, value: float) -> dict[str, Any]:
    """A finished row."""
    metric = "delta1" if task == "depth_estimation" else "miou"
    return {
        "id": f"{task}-{labels}-{method}-s{seed}", "status": "done", "method": method, "task": task, "labels": labels,
        "seed": seed, "metric": metric, "value": value, "steps": 250, "seconds": 12.5, "flops": 2.5e11,
        "curve": [[100, value - 0.1], [250, value]],
    }  # fmt: skip


def fake_pretraining(method: str, seed: int, **diagnostics: float) -> dict[str, Any]:
    """A finished pre-training in one or two stages."""

    def points(start: float) -> list[list[float]]:
        return [[step, start - step / 1000] for step in range(25, 301, 25)]

    stages = [{"stage": None, "steps": 1000, "seconds": 100.0, "flops": 3e12, "curve": {"rgb": points(1.0)}}]
    if method != "mae":
        stages = [
            {"stage": 1, "steps": 200, "seconds": 20.0, "flops": 1e12, "curve": {"contrastive": points(3.0)}},
            {"stage": 2, "steps": 800, "seconds": 90.0, "flops": 4e12,
             "curve": {"rgb": points(1.0), "depth": points(0.5)}},
        ]  # fmt: skip
    return {
        "id": f"pretrain-{method}-s{seed}", "status": "done", "method": method, "seed": seed, "stages": stages,
        "steps": sum(s["steps"] for s in stages), "seconds": sum(s["seconds"] for s in stages),
        "flops": sum(s["flops"] for s in stages), "diagnostics": diagnostics,
    }  # fmt: skip


def fake_results() -> dict[str, Any]:
    """scratch < mae < m33d_plus everywhere, m33d like mae; seeds are 2 points apart, and two of the four .4 more."""
    base = {"scratch": 0.30, "mae": 0.35, "m33d": 0.352, "m33d_plus": 0.40}
    rows = [
        fake_row(method, task, labels, seed, value + (0.024 - 0.004 * (place % 2)) * seed)
        for task, labels in TASKS
        for place, (method, value) in enumerate(base.items())
        for seed in (0, 1)
    ]
    common = {"retrieval_chance_depth": 0.056, "depth_loss_visible": 0.2}
    shortcut = {"retrieval_accuracy_depth": 0.99, "retrieval_accuracy_mismatched_depth": 0.98}
    cured = {"retrieval_accuracy_depth": 0.3, "retrieval_accuracy_mismatched_depth": 0.06}
    literal = {**common, **shortcut, "matching_accuracy_depth": 0.5, "depth_loss_hidden": 0.7}
    plus = {**common, **cured, "matching_accuracy_depth": 0.6, "depth_loss_hidden": 0.4}
    pretraining = []
    for seed in (0, 1):
        pretraining.append(fake_pretraining("mae", seed))
        pretraining.append(fake_pretraining("m33d", seed, **literal))
        pretraining.append(fake_pretraining("m33d_plus", seed, **plus))
    return {
        "name": "demo", "budget": "full", "seeds": [0, 1], "workers": 2, "wall_seconds": 540.0,
        "rendering_seconds": 20.0, "class_names": ["wall", "floor", "box"],
        "settings": {"frames": {"train": 5000, "validation": 96, "test": 384}, "image_size": 48,
                     "parameters": 470000, "batch_size": 48},
        "floors": {"depth_estimation": {"value": 0.2, "how": "mean depth per position"},
                   "semantic_segmentation": {"value": 0.109, "how": "commonest class per position"}},
        "pretraining": pretraining, "rows": rows, "jobs": [], "environment": {"python": "3.11", "commit": "abc"},
    }  # fmt: skip
