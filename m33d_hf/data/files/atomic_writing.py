"""Atomic writing: a file is written beside its target under a hidden name, flushed, then renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

# Hidden and in front, so that the suffix, which writers such as numpy's look at, stays last.
TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 3600.0
# It flushes only what is open for writing; elsewhere a file of which we may only read is flushed as well.
_WINDOWS = sys.platform == "win32"
# The temporary file beside a model.safetensors that is being written.
_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")


def write_atomically(path: str | Path, writer: Callable[[Path], object]) -> Path:
    """Let `writer` write a temporary file in the folder of `path`, then rename it to `path`.

    A process killed at any moment leaves either the old file (or none) or the new one; any temporary file it leaves is
    hidden, is never read, and is removed when the same file is written again at least an hour later. If several
    processes write one `path` at once, the last one wins.

    Args:
        path: the file to write or replace; its folder is created if needed.
        writer: called with the temporary path, whose suffix is that of `path`; must write exactly that file.

    Returns:
        `path`.

    Raises:
        whatever `writer` raises; the temporary file is then removed. An OSError that names no file gets the name of
            `path`: errors of an open file name none, and users should know which file did not fit on the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{TEMPORARY}*-{glob.escape(path.name)}"):
        _remove_if_old(leftover)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        writer(temporary)
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _remove_if_old(leftover: Path) -> None:
    """A young one may belong to another rank that is writing this very moment."""
    with contextlib.suppress(FileNotFoundError):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
            leftover.unlink()


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed writers left in a folder: our temporary files, and those of safetensors.

    Use it only for a folder that no other process is writing to, such as one whose lock is held.
    """
    for path in Path(folder).glob(".tmp*"):
        if path.is_file() and (path.name.startswith(TEMPORARY) or _SAFETENSORS.fullmatch(path.name)):
            path.unlink(missing_ok=True)


def write_text_atomically(path: str | Path, text: str) -> Path:
    """`write_atomically` for UTF-8 text."""
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def flush_to_disk(path: Path) -> None:
    """Flush a file's contents to the disk: otherwise a rename may survive a crash while the contents do not."""
    descriptor = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
