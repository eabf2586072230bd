"""Files that lie elsewhere: on the Hub, in object storage, on a web server. They are read in pieces, where they lie.

`fsspec` speaks the protocols (`hf://` and `https://` at once, `s3://` and `gs://` with their packages `s3fs` and
`gcsfs`). A storage that does not answer is asked again, and then stops the run: nothing is wrong with the data, and
other samples must not take the place of those that could not be fetched.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from m33d_hf.errors import (
    ConfigError,
    CorruptFileError,
    DataError,
    MissingDependencyError,
    UnreachableError,
    first_line,
    type_and_text,
)

Result = TypeVar("Result")
# Seconds before each further try.
DELAYS = (0.5, 2.0, 5.0, 15.0)


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder by its address; what of `Path` is needed to find prepared parts.

    Attributes:
        url: with its protocol.
        size: bytes, as the listing says; -1 if it does not. Not compared.
    """

    url: str
    size: int = field(default=-1, compare=False)

    @property
    def name(self) -> str:
        """The last word of the address."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The address above."""
        return RemotePath(self.url.rstrip("/").rpartition("/")[0])

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def with_suffix(self, suffix: str) -> RemotePath:
        """Another file beside this one; its size is not known."""
        return self.parent / f"{PurePosixPath(self.name).stem}{suffix}"

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url


AnyPath = Path | RemotePath


def is_remote(root: object) -> bool:
    """Whether a root is an address, such as s3://bucket/folder."""
    return "://" in str(root)


def file_size(path: AnyPath) -> int:
    """Bytes of a file; a request, where the listing did not say them.

    Raises:
        CorruptFileError: it does not exist. UnreachableError: its storage does not answer.
    """
    try:
        if isinstance(path, Path):
            return path.stat().st_size
        filesystem, name = _filesystem(path.url)
        return path.size if path.size >= 0 else int(patient(path.url, lambda: filesystem.info(name))["size"])
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error


def files_below(root: str | RemotePath, suffix: str) -> list[RemotePath]:
    """The files of one suffix below an address, by name.

    Raises:
        ConfigError: an unknown protocol. MissingDependencyError: a known one whose package is not installed.
        DataError: the address does not exist. UnreachableError: nobody answers.
    """
    address = str(root)
    filesystem, path = _filesystem(address)
    # A listing folder by folder leaves out those that do not answer, unless told otherwise.
    strictly = {"on_error": "raise"} if _lists_by_folder(filesystem) else {}
    try:
        found = patient(address, lambda: filesystem.find(path, detail=True, **strictly))
    except FileNotFoundError:
        found = {}
    if not found:
        raise DataError(f"{address} does not exist, or holds no files.")
    return sorted(
        RemotePath(filesystem.unstrip_protocol(name), _size(facts))
        for name, facts in found.items()
        if name.endswith(suffix) and not PurePosixPath(name).name.startswith(".")
    )


def read_range(path: AnyPath, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file, in one request.

    Raises:
        CorruptFileError: the file is gone, or ends earlier. UnreachableError: its storage does not answer.
    """
    try:
        if isinstance(path, RemotePath):
            filesystem, name = _filesystem(path.url)
            data: bytes = patient(path.url, lambda: _bytes(filesystem, name, start, stop))
        else:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(stop - start)
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist any more") from error
    if len(data) != stop - start:
        raise CorruptFileError(path, f"was cut short: it ends before byte {stop}")
    return data


def _bytes(filesystem: Any, name: str, start: int, stop: int) -> bytes:
    from fsspec.asyn import AsyncFileSystem

    if isinstance(filesystem, AsyncFileSystem):
        return bytes(filesystem.cat_file(name, start=start, end=stop))
    with filesystem.open(name, "rb", cache_type="none") as file:  # others read megabytes ahead
        file.seek(start)
        return bytes(file.read(stop - start))


def read_whole(path: AnyPath) -> bytes:
    """All bytes of a small file; raises as `read_range`."""
    try:
        if isinstance(path, RemotePath):
            filesystem, name = _filesystem(path.url)
            return bytes(patient(path.url, lambda: filesystem.cat_file(name)))
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error


class RangeFile(io.RawIOBase):
    """A remote file, of which each read is one request; nothing is kept or read ahead.

    Raises:
        CorruptFileError: it does not exist. UnreachableError: its storage does not answer.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self.length = file_size(path)
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self._at = offset + (0, self._at, self.length)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; raises as `read_range`."""
        stop = self.length if size < 0 else min(self._at + size, self.length)
        data = read_range(self.path, self._at, stop) if stop > self._at else b""
        self._at += len(data)
        return data


def patient(address: str, ask: Callable[[], Result]) -> Result:
    """What `ask` returns, which is tried several times.

    Raises:
        FileNotFoundError: as `ask` says. UnreachableError: every try failed otherwise.
    """
    for delay in (*DELAYS, None):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as error:  # of a dozen protocols: none says completely what it raises
            if delay is None:
                raise UnreachableError(
                    f"{address} cannot be read after {len(DELAYS) + 1} tries ({type_and_text(error)}). "
                    "Is there a network, and are you logged in where it is private? Once it answers, start the run "
                    "again: it resumes at its last checkpoint."
                ) from error
            time.sleep(delay)
    raise AssertionError("unreachable")


# By protocol and host: with their open connections, they belong to one process.
_FILESYSTEMS: dict[tuple[str, str], Any] = {}
_INHERITED: list[Any] = []


def _leave_alone() -> None:
    """In a forked process, keep what it inherits and never use or close it: closing a connection there would take it
    out of the parent's event loop, too, which then waits for its answer for ever."""
    _INHERITED.append(dict(_FILESYSTEMS))
    _FILESYSTEMS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_alone)


def _filesystem(address: str) -> tuple[Any, str]:
    """(file system, path in it)."""
    protocol, _, rest = address.partition("://")
    key = (protocol, rest.partition("/")[0])
    if (kept := _FILESYSTEMS.get(key)) is not None:
        return kept, kept._strip_protocol(address)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError(f"{address} needs fsspec, which comes with `pip install datasets`.") from error
    try:
        filesystem, path = url_to_fs(address, skip_instance_cache=True)  # fsspec's own cache is emptied after a fork
    except ImportError as error:
        raise MissingDependencyError(f"{address} needs a further package: {first_line(error)}.") from error
    except ValueError as error:
        raise ConfigError(f"{address}: {error}. Write it as fsspec does, such as s3://bucket/folder.") from error
    return _FILESYSTEMS.setdefault(key, filesystem), path


def _lists_by_folder(filesystem: Any) -> bool:
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(filesystem)
    if isinstance(filesystem, AsyncFileSystem):
        return bool(kind._find is AsyncFileSystem._find)
    return bool(kind.find is AbstractFileSystem.find)


def _size(facts: Any) -> int:
    size = facts.get("size")
    return size if isinstance(size, int) else -1
