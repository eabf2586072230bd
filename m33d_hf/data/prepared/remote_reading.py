"""Rows of Parquet files that lie elsewhere: their footers are read once, and then the row groups that are asked for."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from m33d_hf.data.files.remote import RangeFile, RemotePath
from m33d_hf.data.prepared.parquet import reading
from m33d_hf.data.prepared.reading import ParquetRows
from m33d_hf.errors import CorruptFileError, MissingDependencyError, decoding

_THREADS = 16


class RemoteParquetRows(ParquetRows):
    """`ParquetRows` by requests of byte ranges. A row costs a request or two for the columns of its row group, which
    mostly lie together; nothing is kept on the disk.

    The footers of all files stay in memory, for a row must not cost another request.

    Raises:
        UnreachableError: the storage does not answer. Others as `ParquetRows`.
    """

    def __init__(self, files: Sequence[RemotePath]) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            self._footers: dict[RemotePath, Any] = dict(zip(files, pool.map(_footer, files), strict=True))
        self._asked: dict[str, None] = {}
        super().__init__(cast("Sequence[Path]", files))

    def _opened(self, path: Path) -> Any:
        remote = cast("RemotePath", path)
        return _open(remote, self._footers[remote])

    def _fetch(self, group: int, names: Collection[str]) -> None:
        """With whatever was asked for so far: names and maps of a row come in one go, and not one after the other."""
        self._asked |= dict.fromkeys(names)
        super()._fetch(group, list(self._asked))

    def prefetch(self, rows: Sequence[int]) -> None:
        """Fetch the row groups of rows that will be read next, side by side: one after the other, each would wait for
        its answer. What cannot be read is left to whoever reads it.

        Raises:
            UnreachableError: the storage does not answer.
        """
        if self._process != os.getpid():
            self._forget()
        groups = sorted({self._group_with(row) for row in rows})
        missing = [group for group in groups if any((group, name) not in self._columns for name in self._asked)]
        if not self._asked or not missing:
            return
        self._most_columns = max(self._most_columns, len(groups) * len(self._asked))
        for group in set(groups) - set(missing):
            for name in self._asked:
                self._columns.move_to_end((group, name))
        with ThreadPoolExecutor(min(_THREADS, len(missing))) as pool:
            for group, table in zip(missing, pool.map(self._group, missing), strict=True):
                for name in self._asked if table is not None else ():
                    self._columns[group, name] = table.column(name).combine_chunks()
        while len(self._columns) > self._most_columns:
            self._columns.popitem(last=False)

    def _group(self, group: int) -> Any:
        """The columns of a row group that have been asked for, through a file of its own; None if it is damaged."""
        path = self.files[int(self._file_of[group])]
        leaves = [self._leaves[name] for name in self._asked]
        try:
            with self._opened(path) as file, reading(path):
                return file.read_row_group(int(self._group_of[group]), columns=leaves, use_threads=False)
        except CorruptFileError:
            return None

    def _has_places(self) -> bool:
        return False  # a row group is a request, and so would be a picture

    def request_rows(self) -> float:
        """Rows of a row group, on average: as many are fetched for one."""
        return len(self) / max(1, sum(footer.num_row_groups for footer in self._footers.values()))

    def request_bytes(self, columns: Sequence[str]) -> float:
        """Bytes of the named columns in a row group, on average."""
        total = groups = 0
        for footer in self._footers.values():
            groups += footer.num_row_groups
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                chunks = (group.column(place) for place in range(group.num_columns))
                total += sum(
                    chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns
                )
        return total / max(1, groups)


def _open(path: RemotePath, footer: Any = None) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path} requires pyarrow, which comes with `pip install datasets`.") from error
    with decoding(path, "cannot be read as Parquet"):
        return parquet.ParquetFile(RangeFile(path), metadata=footer, page_checksum_verification=True, pre_buffer=True)


def _footer(path: RemotePath) -> Any:
    with _open(path) as file:
        return file.metadata
