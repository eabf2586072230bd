"""Runs the data doctor in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from m33d_hf.scripts.check_data import main

MODEL = ("--model.image_size", "32", "--model.patch_size", "8")


def check(root: Path, *words: str, output: Path | None = None, model: tuple[str, ...] = MODEL) -> Any:
    """Exit code, the problems as one text, and the report, of a folder or of a recipe's data."""
    output = root.parent / "check" if output is None else output
    given = ["--data.root", str(root)] if "--recipe" in words else [str(root)]
    code = main([*given, *words, "--output", str(output), "--workers", "1", *model])
    report = json.loads((output / "report.json").read_text())
    problems = "\n".join(f"{each['split']}: {each['text']}" for each in report["findings"] if each["is_problem"])
    return code, problems, report


def notes_of(report: dict[str, Any]) -> str:
    """What is no problem, as one text."""
    return "\n".join(f"{each['split']}: {each['text']}" for each in report["findings"] if not each["is_problem"])
