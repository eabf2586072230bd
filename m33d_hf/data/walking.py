"""What is done where a folder of the user's data cannot be listed, which Python passes over without a word."""

from __future__ import annotations

import os
from pathlib import Path

from m33d_hf.errors import DataError

_OF_THE_FILE_SYSTEM = "lost+found"  # at the top of a disk; only its administrator may read it


def refuse_unreadable(error: OSError) -> None:
    """What `os.walk` is to do with a folder that it cannot list, which it leaves out without a word.

    Raises:
        DataError: naming the folder; only one that is gone since, a hidden one, such as another user's bin, and the one
            that file systems keep for themselves are left out.
    """
    folder = os.fspath(error.filename) if error.filename is not None else "a folder"
    name = os.path.basename(folder)
    if isinstance(error, FileNotFoundError) or name == _OF_THE_FILE_SYSTEM or name.startswith("."):
        return
    raise DataError(
        f"{folder} cannot be read ({error.strerror or error}), so that what lies in it would be missing: allow reading "
        "it, or move it away"
    ) from error


def files_ending(folder: Path, suffix: str = "") -> list[Path]:
    """The files below a folder whose names end so, sorted; hidden files are left out, links to folders not followed.

    Raises:
        DataError: a folder that cannot be read.
    """
    return sorted(
        Path(here, name)
        for here, _, names in os.walk(folder, onerror=refuse_unreadable)
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    )
