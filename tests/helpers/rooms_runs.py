"""Arguments of runs on a handful of rooms, seconds long, for the tests of tasks and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TINY = {
    "--model.hidden_size": "32",
    "--model.intermediate_size": "64",
    "--model.num_hidden_layers": "4",
    "--data.options": "{num_frames: 12}",
    "--data.num_workers": "0",
    "--train.max_steps": "2",
    "--train.batch_size": "4",
    "--evaluation.batch_size": "4",
    "--optim.warmup_steps": "1",
    "--logging.trackers": "[]",
    "--logging.progress": "false",
    "--logging.pictures": "false",
    "--cpu": "true",
}
DECODER = {"--model.decoder_hidden_size": "16", "--model.decoder_intermediate_size": "32"}
CLIPS = {"--data.options": "{num_clips: 6}"}


def words(recipe: str, output_dir: Path | str, **changes: str | None) -> list[str]:
    """Command line of a tiny run; `changes` name keys with `__` for the dot, None leaves one out."""
    given: dict[str, str | None] = {"--recipe": recipe, "--output_dir": str(output_dir), **TINY}
    if "pretrain" in recipe:
        given |= DECODER
    if "clips" in recipe:
        given |= CLIPS
    given |= {"--" + key.replace("__", "."): value for key, value in changes.items()}
    return [word for key, value in given.items() if value is not None for word in (key, value)]


def four_steps(folder: Path, name: str, cache: Path, **changes: str) -> list[str]:
    """Command line of four logged pre-training steps of two samples a process, into `folder` / `name`."""
    recipe, method = changes.pop("recipe", "rooms/pretrain_stage2"), changes.pop("method", "m33d")
    fixed = {
        "train__max_steps": "4",
        "train__batch_size": "2",
        "logging__every_steps": "1",
        "checkpoint__save_best": "false",
        "data__cache_dir": str(cache),
    }
    return words(recipe, folder / name, method=method, **{**fixed, **changes})


def jobs_of_four_steps(folder: Path, cache: Path, runs: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Jobs for `launching.start`: name of a run -> what it changes of `four_steps`."""
    return [
        {"name": name, "task": "pretraining", "argv": four_steps(folder, name, cache, **changes)}
        for name, changes in runs.items()
    ]
