"""Leaves out the samples that a list of unusable files names: that of scripts/check_data.py, or of an earlier run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.files.skips import SkippedFile, read_skipped
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.remembering import remembered
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class SkipList:
    """The entries of a skipped_files.csv, without files that are used up to where they end.

    An entry is met by a sample of its key, or by one that reads its file: the same list serves frames, and clips of
    other lengths. Entries without a key leave nothing out: they are of files that a source had no use for, such as
    pictures of frames without depth, and that nobody tried to read. It leaves them out by itself; another may use them.

    Raises:
        ConfigError: there is no such file, or it is no such list.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise ConfigError(
                f"data.skip_list {str(path)!r} is no file; scripts/check_data.py writes a skipped_files.csv."
            )
        entries = read_skipped(self.path)
        if not entries and self.path.read_bytes().strip() not in (b"", b"path,reason,key"):
            raise ConfigError(f"data.skip_list {str(path)!r} is no list of the columns path, reason, key.")
        self.entries: list[SkippedFile] = [entry for entry in entries if not entry.is_used]
        self._keys = {entry.key for entry in self.entries if entry.key}
        self._paths = {os.path.abspath(entry.path) for entry in self.entries if entry.key}
        self._unused = {os.path.abspath(entry.path) for entry in self.entries if not entry.key} - self._paths

    def names(self, handle: Any) -> bool:
        """Whether the list names this sample or one of its files."""
        return handle.key in self._keys or any(path in self._paths for path in _files(handle))

    def rows(self, source: Source, rows: Sequence[int] | None) -> list[int]:
        """Those of `rows` (None: all rows of the source) that the list does not name.

        Raises:
            DataError: none is left.
        """
        asked = range(len(source)) if rows is None else rows
        if not self.entries:
            return list(asked)
        keys = source.keys()  # of sources that would read something for each item
        if keys is None:
            kept = [row for row in asked if not self.names(source[row])]
        else:
            kept = [row for row in asked if keys[row] not in self._keys]
        self._tell_of_kept(source, kept if keys is None else [])
        if len(asked) and not kept:
            raise DataError(f"data.skip_list {self.path} names all {len(asked)} samples of the source {source.name!r}")
        return kept

    def _tell_of_kept(self, source: Source, rows: Sequence[int]) -> None:
        """Say that samples stay whose files are listed without a key, should somebody mean to leave them out."""
        if not self._unused:
            return
        files = [path for row in rows for path in _files(source[row]) if path in self._unused]
        if files:
            count = len(dict.fromkeys(files))
            told = (
                f"{self.path}: {plural(count, 'file')} that it lists without a key {agree(count, 'is', 'are')} used, "
                f"the first: {files[0]}; an entry leaves out what reads its file where it has a key"
            )
            remembered(f"said {told}", lambda: logger.warning("%s", told))  # by all splits at once


def _files(handle: Any) -> Iterator[str]:
    """Absolute paths of what a handle reads, as far as it says so."""
    handle = getattr(handle, "handle", handle)  # of one folder or member among several
    root = str(getattr(getattr(handle, "reader", None), "root", ""))
    for frame in getattr(handle, "frames", ()):
        for name in getattr(frame, "files", {}).values():
            yield os.path.abspath(os.path.join(root, name))
    file = getattr(handle, "file", None)
    if file is not None:
        yield os.path.abspath(file)
