"""A run on a handful of rooms, evaluated, for the tests of publishing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.rooms_runs import words
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task


def depth_run(folder: Path, **changes: str) -> Path:
    """Two steps of depth estimation, and an evaluation in `evaluation`; with pictures. Returns the output folder."""
    task = "depth_estimation"
    chosen = {"logging__pictures": "true", "logging__every_steps": "1", **changes}
    train(parse_arguments(words("rooms/depth", folder, **chosen), task), build_task(task))
    judged = words("rooms/depth", folder / "evaluation", eval_only="true", init_from=str(folder))
    evaluate_run(parse_arguments(judged, task), build_task(task))
    return folder


def change_arguments(run: Path, **changes: Any) -> None:
    """Write other arguments into train_config.json, as of a version that did not write down where weights are from;
    names have `__` for the dot."""
    content = read_sealed_json(run / "train_config.json")
    content.pop("lineage", None)
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = content["args"]
        for part in parts:
            place = place[part]
        place[last] = value
    write_sealed_json(run / "train_config.json", content)


def strings(value: Any) -> list[str]:
    """All texts in a JSON tree, keys too."""
    if isinstance(value, dict):
        return [*map(str, value), *(text for entry in value.values() for text in strings(entry))]
    if isinstance(value, list):
        return [text for entry in value for text in strings(entry)]
    return [value] if isinstance(value, str) else []


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
