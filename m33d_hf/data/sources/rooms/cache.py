"""Rendered rooms on disk: one folder of memory-mapped arrays per set of parameters, with a digest of its content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from m33d_hf.data.clock import clock
from m33d_hf.data.files.cache_folder import cache_folder
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CorruptFileError, DataError, decoding

logger = logging.getLogger(__name__)

INDEX_NAME = "rooms.json"
_PROGRESS_EVERY = 2.0  # seconds between progress lines
_LARGE = 2**24  # values of a set that is announced before it is rendered
_HASH_BLOCK = 1 << 20


class RenderSpec(Protocol):
    """What a folder of the cache holds; `generate.RoomsSpec` and `procedures.ProceduresSpec` are such."""

    @property
    def split(self) -> str:
        """Name of the split, for the folder's name and the progress line."""

    @property
    def unit(self) -> str:
        """What is counted: "frames", "clips", "procedures"."""

    @property
    def count(self) -> int:
        """How many of them."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def width(self) -> int:
        """Pixels."""

    def parameters(self) -> dict[str, Any]:
        """Plain values that name the content: what JSON gives back as it was."""

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Data type and shape of every array, by name."""

    def chunks(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Render: a number of items, and the rows that they add to each array, until all arrays are full."""


def default_cache_dir() -> Path:
    """`$M33D_CACHE/rooms`, else `~/.cache/m33d_hf/rooms`."""
    return cache_folder("rooms")


def render_chunks(spec: RenderSpec) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The content of `spec`, rendered piece by piece."""
    return spec.chunks()


def folder_name(spec: RenderSpec) -> str:
    """Readable start and a digest of all parameters, renderer version included."""
    text = json.dumps(spec.parameters(), sort_keys=True)
    size = f"{spec.height}x{spec.width}"
    return f"{spec.unit}-{spec.split}-{spec.count}-{size}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def prepare(spec: RenderSpec, cache_dir: Path) -> Path:
    """Folder with the rendered `spec`; renders it if it is missing or damaged.

    Several processes may ask at once: one renders and the others wait; where the file system knows no locks each
    renders and the first to finish wins, all with the same content.

    Raises:
        DataError: the cache folder cannot be written.
    """
    folder = cache_dir / folder_name(spec)
    if _usable(folder, spec):
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f".{folder.name}.lock") as alone:
            if not _usable(folder, spec):
                if alone:
                    _remove_leftovers(folder)
                _render_into(folder, spec)
                _hashed[folder] = _stamps(folder)
    except OSError as error:
        raise DataError(
            f"cannot write rendered rooms into {cache_dir}: {error}. Free some disk space, or choose another folder "
            "with the option cache_dir or the environment variable M33D_CACHE"
        ) from error
    return folder


def read_index(folder: Path) -> dict[str, Any]:
    """Parameters, digest and file stamps of a rendered folder.

    Raises:
        CorruptFileError: the index is missing or not what `prepare` wrote.
    """
    path = folder / INDEX_NAME
    try:
        index = read_sealed_json(path)
        listed = index["files"].items()
        files = {name: {key: entry[key] for key in ("sha256", "size", "mtime_ns")} for name, entry in listed}
        return {"parameters": index["parameters"], "digest": str(index["digest"]), "files": files}
    except (CorruptFileError, KeyError, TypeError, AttributeError) as error:
        reason = error.reason if isinstance(error, CorruptFileError) else error
        raise CorruptFileError(path, f"not a complete index of rendered rooms ({reason})") from error


def verify(folder: Path, spec: RenderSpec, full: bool = False) -> str:
    """Check a rendered folder and return its content digest.

    Cheap when every file still has the size and modification time written in the index; any other file is read and
    hashed. `full` hashes all of them anyway, as `prepare` does once per process: a damaged disk leaves both alone.

    Raises:
        CorruptFileError: index or array missing, of other parameters, or of other content than was rendered.
    """
    index = read_index(folder)
    if index["parameters"] != spec.parameters():
        raise CorruptFileError(folder / INDEX_NAME, "it was rendered with other parameters")
    if set(index["files"]) != set(spec.arrays()) or _combined(index["files"]) != index["digest"]:
        raise CorruptFileError(folder / INDEX_NAME, "the digest does not match the listed files")
    for name, entry in index["files"].items():
        path = folder / f"{name}.npy"
        try:
            status = path.stat()
            same = not full and [status.st_size, status.st_mtime_ns] == [entry["size"], entry["mtime_ns"]]
            intact = same or (status.st_size == entry["size"] and _sha256(path) == entry["sha256"])
        except OSError as error:
            raise CorruptFileError(path, f"missing or unreadable ({error})") from error
        if not intact:
            raise CorruptFileError(path, "its content was changed after rendering")
    return index["digest"]


def open_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Memory-map the arrays of a rendered folder, read-only.

    Raises:
        CorruptFileError: the index or an array is missing or truncated.
    """
    arrays = {}
    for name in read_index(folder)["files"]:
        path = folder / f"{name}.npy"
        with decoding(path, "cannot be mapped", "; delete the folder to render it again"):
            # A plain view: np.memmap's own indexing costs more than what it reads here.
            arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
    return arrays


class MappedArrays:
    """Base of readers of a rendered folder: arrays are mapped at first use in each process, never pickled.

    Attributes:
        folder: in the cache; set by the subclass.
    """

    folder: Path
    _arrays: dict[str, np.ndarray] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The memory-mapped arrays, by the names of the spec's `arrays`.

        Raises:
            CorruptFileError: an array has gone or is damaged.
        """
        if self._arrays is None:
            self._arrays = open_arrays(self.folder)
        return self._arrays

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as its whole content; loader workers map the files themselves.
        return {**self.__dict__, "_arrays": None}


# Stamps of the files of each folder when this process hashed them.
_hashed: dict[Path, dict[str, tuple[int, int]]] = {}


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def _usable(folder: Path, spec: RenderSpec) -> bool:
    if not folder.exists():
        return False
    try:
        verify(folder, spec, full=_stamps(folder) != _hashed.get(folder))
        _hashed[folder] = _stamps(folder)
    except CorruptFileError as error:
        logger.warning("rendered rooms are damaged and will be rendered again: %s", error)
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock if the platform has one; yields whether it is held. The kernel frees a dead holder's."""
    try:
        import fcntl
    except ImportError:  # Windows: the atomic rename alone has to do
        yield False
        return
    with path.open("a") as handle:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            held = False
        yield held


def _remove_leftovers(folder: Path) -> None:
    """Delete what interrupted processes left; only called by the holder of the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _render_into(folder: Path, spec: RenderSpec) -> None:
    """Render into a temporary folder beside `folder`, then rename it."""
    temporary = folder.parent / f".{folder.name}.tmp-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        _write_arrays(temporary, spec)
        _write_index(temporary, spec)
        if folder.exists() and not _usable(folder, spec):
            os.replace(folder, temporary.with_name(temporary.name + "-damaged"))
        try:
            os.replace(temporary, folder)
        except OSError:
            # Another process without a lock was first; a folder that verifies is as good as ours.
            if not _usable(folder, spec):
                raise
    finally:
        for leftover in (temporary, temporary.with_name(temporary.name + "-damaged")):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_arrays(folder: Path, spec: RenderSpec) -> None:
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=dtype, shape=shape)
        for name, (dtype, shape) in spec.arrays().items()
    }
    filled = dict.fromkeys(arrays, 0)
    start = shown = time.monotonic()
    done = 0
    if sum(array.size for array in arrays.values()) >= _LARGE:  # the first chunk alone takes a while
        print(f"rendering rooms, {spec.split}: {spec.count} {spec.unit} into the cache", file=sys.stderr, flush=True)
    for count, rendered in render_chunks(spec):
        for name, rows in rendered.items():
            arrays[name][filled[name] : filled[name] + len(rows)] = rows
            filled[name] += len(rows)
        done += count
        now = time.monotonic()
        if now - shown >= _PROGRESS_EVERY:
            _show_progress(spec, done, now - start)
            shown = now
    for array in arrays.values():
        array.flush()
    if shown > start:
        _show_progress(spec, done, time.monotonic() - start)


def _show_progress(spec: RenderSpec, done: int, seconds: float) -> None:
    """One line to stderr with rate and remaining time."""
    rate = done / max(seconds, 1e-9)
    left = (spec.count - done) / max(rate, 1e-9)
    line = f"rendering rooms, {spec.split}: {done}/{spec.count} {spec.unit}, {rate:.0f}/s, {clock(left)} left"
    print(line, file=sys.stderr, flush=True)


def _write_index(folder: Path, spec: RenderSpec) -> None:
    files = {}
    for name in spec.arrays():
        path = folder / f"{name}.npy"
        status = path.stat()
        files[name] = {"sha256": _sha256(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    index = {"parameters": spec.parameters(), "digest": _combined(files), "files": files}
    write_sealed_json(folder / INDEX_NAME, index)


def _combined(files: dict[str, Any]) -> str:
    """Digest of the whole folder out of those of its files."""
    listing = "\n".join(f"{name} {files[name].get('sha256')}" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
