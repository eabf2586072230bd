"""Whether an output folder holds anything that was made of an input, complete or begun."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from m33d_hf.data.depth.maps import SPEC_FILE
from m33d_hf.data.files.skips import FILE_NAME

PLAN_FILE, RECORD_FILE = "prediction.json", "inputs.jsonl"  # what an output was made with, and of
_RECORDS = frozenset({PLAN_FILE, RECORD_FILE, SPEC_FILE, FILE_NAME})  # of all inputs, whatever these are called
_BEGUN = ".partial-"  # what is not complete gathers in hidden files and folders of this beginning
_TABLES = ("_segments.csv", "_clips.csv", "_timeline.png")  # of long videos, behind the name


def first_result(
    output: Path, name: str, names: Collection[str], source: str, kinds: Collection[str] | None = None
) -> Path | None:
    """A file or folder that was made of the input of a name; None where nothing was.

    Args:
        output: the folder, which exists.
        name: of the input, as in `inputs.jsonl`.
        names: of all inputs, which may begin alike: of `a.b` there is `a.b.png`, which is nothing of `a`, and of `a/c`
            a folder `a`.
        source: absolute path of the input, which may lie in the output and is no result.
        kinds: folders of the output, one for each kind of file, in which alone there are results, as a prediction has
            it: an input may be called like one of them, or like a table beside them. None where results lie in the
            output itself, as those of a depth extraction do.
    """
    place = PurePosixPath(name)
    beside = [other for other in map(PurePosixPath, names) if other.parent == place.parent]
    longer = {other.name for other in beside if len(other.name) > len(place.name)}
    for folder in [output] if kinds is None else [output / kind for kind in kinds]:
        parent = folder / place.parent
        for entry in parent.iterdir() if parent.is_dir() else ():
            file = entry.name.removeprefix(_BEGUN)
            if not _is_of(file, place.name) or any(_is_of(file, other) for other in longer):
                continue
            if os.path.abspath(entry) == source or (parent == folder and file in _RECORDS):
                continue
            if not _is_of_others_alone(entry, list(_first_below((place.parent / file).parts, names))):
                return entry
    return None


def _first_below(folder: tuple[str, ...], names: Collection[str]) -> Iterator[str]:
    """What the names that lie below a folder are called there: files, or folders of them."""
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) > len(folder) and parts[: len(folder)] == folder:
            yield parts[len(folder)]


def _is_of_others_alone(entry: Path, others: Collection[str]) -> bool:
    """Whether a result is a folder that other inputs are named below, and nothing but what was made of these."""
    if not others or not entry.is_dir():
        return False
    return all(any(_is_of(child.name.removeprefix(_BEGUN), other) for other in others) for child in entry.iterdir())


def _is_of(file: str, name: str) -> bool:
    return file == name or file.startswith(f"{name}.") or file in [name + end for end in _TABLES]
