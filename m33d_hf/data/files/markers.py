"""The marker of a complete folder: COMPLETE lists every file with its size and a digest, and is sealed itself.

A folder cut short by a crash, a full disk or a partial copy has no marker, or files of other sizes; damage that keeps
the size is found by the digests. Markers of earlier versions list sizes only: such folders can be used, but damage that
keeps the size goes unnoticed in them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from m33d_hf.data.files.atomic_writing import flush_to_disk
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CorruptFileError

MARKER = "COMPLETE"
# What a finished run leaves to be read back: weights, configuration, processor, and what it was started from.
FINAL = re.compile(r"model.*\.safetensors(\.index\.json)?|(config|\w*preprocessor_config|initialisation)\.json")

# Pieces are digested in parallel: hashing one after the other would take longer than reading them.
_PIECE = 1 << 25
_THREADS = 8


def mark_complete(
    folder: Path,
    names: Iterable[str] | None = None,
    known: Mapping[str, str] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Flush the files of `folder` to the disk, then write its marker.

    Args:
        folder: holds plain files only, unless `names` says which of them count.
        names: files to list; all of them by default.
        known: digests of files that have not changed since.
        notes: JSON values that the marker holds beside the list (`marker_notes`); none by default.

    Raises:
        OSError: the disk is full or not writable.
    """
    files = {}
    for name in sorted(names if names is not None else (path.name for path in folder.iterdir())):
        flush_to_disk(folder / name)
        digest = (known or {}).get(name) or file_digest(folder / name)
        files[name] = {"size": (folder / name).stat().st_size, "blake2b": digest}
    write_sealed_json(folder / MARKER, {"files": files, **(notes or {})})
    flush_folder(folder)


def is_complete(folder: Path) -> bool:
    """Tell whether `folder` has its marker and every file has the size that the marker lists; fast."""
    return _incomplete(folder) is None


def damage(folder: Path, only: Collection[str] | None = None) -> str | None:
    """What is wrong with a folder that should be complete, naming the file; None if nothing is. Reads every file.

    Args:
        folder: with a marker.
        only: files to check; the others are ignored.
    """
    missing = _incomplete(folder, only)
    if missing is not None:
        return missing
    for name, entry in _listed(folder, only).items():
        wanted = entry.get("blake2b")
        try:
            if wanted is not None and file_digest(folder / name) != wanted:
                return f"{name} is damaged: its content is not what was written"
        except OSError as error:
            return f"{name} cannot be read: {error}"
    return None


def has_digests(folder: Path) -> bool:
    """Whether the marker lists digests; those of earlier versions do not."""
    return len(listed_digests(folder)) == len(_listed(folder, None))


def listed_digests(folder: Path) -> dict[str, Any]:
    """Name -> digest, as the marker has them; names without one, as in earlier versions, are left out.

    Raises:
        CorruptFileError: the marker is missing, damaged or no marker.
    """
    return {name: entry["blake2b"] for name, entry in _listed(folder, None).items() if "blake2b" in entry}


def marker_notes(folder: Path) -> dict[str, Any]:
    """What the marker of a complete folder holds beside the list of files.

    Raises:
        CorruptFileError: the marker is missing or damaged.
    """
    content = read_sealed_json(folder / MARKER)
    return {name: value for name, value in content.items() if name != "files"} if "files" in content else {}


def file_digest(path: Path) -> str:
    """Digest of a file's content: BLAKE2b of the digests of its pieces of 32 MiB."""
    starts = range(0, path.stat().st_size, _PIECE)
    if len(starts) < 2:
        pieces = [_piece_digest(path, start) for start in starts]
    else:
        with ThreadPoolExecutor(min(_THREADS, len(starts))) as pool:
            pieces = list(pool.map(lambda start: _piece_digest(path, start), starts))
    return hashlib.blake2b(b"".join(pieces), digest_size=20).hexdigest()


def _piece_digest(path: Path, start: int) -> bytes:
    digest, left = hashlib.blake2b(), _PIECE
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (block := file.read(min(1 << 20, left))):
            digest.update(block)
            left -= len(block)
    return digest.digest()


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries; Windows cannot open folders, and its renames are journalled."""
    if os.name != "nt":
        flush_to_disk(folder)


def _listed(folder: Path, only: Collection[str] | None) -> dict[str, dict[str, Any]]:
    """Name -> {"size", "blake2b" unless the marker is old}.

    Raises:
        CorruptFileError: the marker is missing, damaged or no marker.
    """
    path = folder / MARKER
    content = read_sealed_json(path)
    old = all(isinstance(size, int) for size in content.values())
    files: Any = {name: {"size": size} for name, size in content.items()} if old else content.get("files")
    if not isinstance(files, dict) or not files:
        raise CorruptFileError(path, "lists no files")
    for name, entry in files.items():
        if Path(name).name != name or not isinstance(entry, dict) or not isinstance(entry.get("size"), int):
            raise CorruptFileError(path, f"the entry of {name!r} does not hold the size and digest of a file")
    return {name: entry for name, entry in files.items() if only is None or name in only}


def _incomplete(folder: Path, only: Collection[str] | None = None) -> str | None:
    """What the marker and the sizes tell."""
    if not (folder / MARKER).is_file():
        return f"it has no {MARKER}: it was cut short while being written or removed"
    try:
        listed = _listed(folder, only)
    except CorruptFileError as error:
        return f"{MARKER} {error.reason}"
    for name, entry in listed.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            return f"{name} is missing or cannot be read: {error.strerror}"
        if size != entry["size"]:
            return f"{name} has {size} bytes, but {entry['size']} were written"
    return None
