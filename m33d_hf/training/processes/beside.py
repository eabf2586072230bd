"""Files beside a model's weights that tell later evaluations about its training data.

`classes.json` (`class_numbers`) and `seen_videos.json` (`seen_videos`) lie in the output folder and in every
checkpoint, so that a checkpoint may be copied elsewhere. Both are sealed: damage is noticed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CheckpointError, CorruptFileError

CLASSES = "classes.json"
SEEN = "seen_videos.json"


def find_beside(init_from: str | None, name: str) -> Path | None:
    """The file of that name beside a model (given as a file, a folder, or a checkpoint in the folder); None if
    missing."""
    if init_from is None:
        return None
    path = Path(init_from).expanduser()
    folder = path.parent if path.is_file() else path
    places = [folder / name]
    if folder.parent.name == "checkpoints":
        places.append(folder.parent.parent / name)
    return next((place for place in places if place.is_file()), None)


def read_beside(file: Path) -> dict[str, Any]:
    """Read what `write_beside` wrote.

    Raises:
        ValueError: it is damaged, or no object.
    """
    try:
        return read_sealed_json(file)
    except CorruptFileError as error:
        raise ValueError(error.reason) from error


def write_beside(folder: str | Path, name: str, value: dict[str, Any]) -> None:
    """Leave an object in a model's folder.

    Raises:
        CheckpointError: the folder cannot be written to.
    """
    path = Path(folder) / name
    try:
        write_sealed_json(path, value)
    except OSError as error:
        raise CheckpointError(f"Could not write {path}: {error}; free some disk space.") from error


def copy_beside(source: str | Path, target: Path) -> None:
    """Copy those of these files that exist from one model folder to another.

    Raises:
        OSError: the target cannot be written to.
    """
    for name in (CLASSES, SEEN):
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, target / name)
