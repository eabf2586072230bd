"""Whether an output folder holds anything that was made of an input, complete or begun."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

_BEGUN = ".partial-"  # what is not complete gathers in hidden files and folders of this beginning
_TABLES = ("_segments.csv", "_clips.csv", "_timeline.png")  # of long videos, behind the name


def has_results(output: Path, name: str, names: Collection[str], source: str) -> bool:
    """Whether there is anything of a name: in the output itself, as depth has it, or in a folder of one kind of file.

    Args:
        output: the folder, which exists.
        name: of the input, as in `inputs.jsonl`.
        names: of all inputs, which may begin alike: of `a.b` there is `a.b.png`, which is nothing of `a`.
        source: absolute path of the input, which may lie in the output and is no result.
    """
    place = PurePosixPath(name)
    beside = [other for other in map(PurePosixPath, names) if other.parent == place.parent]
    longer = {other.name for other in beside if len(other.name) > len(place.name)}
    for folder in (output, *(entry for entry in output.iterdir() if entry.is_dir())):
        parent = folder / place.parent
        for entry in parent.iterdir() if parent.is_dir() else ():
            file = entry.name.removeprefix(_BEGUN)
            if not _is_of(file, place.name) or any(_is_of(file, other) for other in longer):
                continue
            if os.path.abspath(entry) != source:
                return True
    return False


def _is_of(file: str, name: str) -> bool:
    return file == name or file.startswith(f"{name}.") or file in [name + end for end in _TABLES]
