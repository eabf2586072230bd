"""Rows of Parquet files that lie elsewhere: their footers are read once, and then the row groups that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from m33d_hf.data.files.remote import RangeFile, RemotePath
from m33d_hf.data.prepared.reading import ParquetRows
from m33d_hf.errors import MissingDependencyError, decoding

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
