"""Folders that an earlier prediction or depth extraction wrote: below a folder of inputs they are no inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from m33d_hf.data.depth.maps import read_spec_file
from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.recorded_inputs import RECORD_FILE

PLAN_FILE = "prediction.json"
# Folders of a prediction's output, of all tasks.
KINDS = frozenset({"depth", "arrays", "pictures", "videos", "points", "labels", "areas", "classes", "timelines"})


def is_earlier_output(folder: Path) -> bool:
    """Whether all files of a folder were written by a prediction, or by a depth extraction.

    Inputs may lie in the output of either, such as that of `--input F/rgb --output F`: of a prediction only the folders
    of its kinds are meant, and not at all an extraction's output that holds what it was made of.
    """
    if folder.name in KINDS and (folder.parent / PLAN_FILE).is_file():
        return True
    try:
        provenance = (read_spec_file(folder) or {}).get("provenance")
    except ConfigError:  # of somebody else
        return False
    made_by = provenance.get("made_by") if isinstance(provenance, dict) else None
    return isinstance(made_by, str) and "extract_depth" in made_by and not _holds_its_inputs(folder)


def earlier_outputs(root: Path) -> Callable[[Path], bool]:
    """Whether a folder is, or lies in, an earlier output below `root`; each is looked at once."""
    known = {root: False}

    def made(folder: Path) -> bool:
        if folder not in known:
            known[folder] = is_earlier_output(folder) or (folder != folder.parent and made(folder.parent))
        return known[folder]

    return made


def outputs_in_words(outputs: list[Path]) -> str:
    """For the log, of at least one folder."""
    more = f" and {plural(len(outputs) - 1, 'other folder')}" if len(outputs) > 1 else ""
    return f"{outputs[0]}{more} left aside: made by an earlier prediction or depth extraction (give it to use it)"


def _holds_its_inputs(folder: Path) -> bool:
    """By the first line of the record of an extraction; one of an earlier version has none."""
    try:
        with (folder / RECORD_FILE).open(encoding="utf-8") as stream:
            _, source = json.loads(stream.readline())
    except (OSError, ValueError, TypeError):
        return False
    return isinstance(source, str) and Path(source).is_relative_to(folder.resolve())
