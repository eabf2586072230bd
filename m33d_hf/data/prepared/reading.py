"""Random access to the rows of Parquet files: only the columns that are asked for, of prepared data row by row, of
others a row group at a time."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.prepared.layout import (
    END_KEY,
    META_KEY,
    PARQUET,
    Manifest,
    file_name,
    file_number,
    part_name,
    part_of,
)
from m33d_hf.data.prepared.parquet import is_picture, open_parquet, reading
from m33d_hf.data.prepared.places import Places, have_places
from m33d_hf.data.walking import files_ending
from m33d_hf.errors import DataError, decoding

# Files whose footers are kept parsed (a megabyte each at most), and row groups whose columns are, in each process.
_OPEN_FILES = 64
_KEPT_COLUMNS = 12


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder, in order of their names; raises as `files_ending`."""
    return files_ending(folder, PARQUET)


class ParquetRows:
    """Rows of several files of one schema, numbered through; files are opened when they are read.

    Args:
        files: in order.

    Attributes:
        schema: Arrow's, of the first file.
        manifest: of a data set that was prepared here; None for others.

    Raises:
        CorruptFileError: a file is damaged where its footer is. DataError: no row; or parts, or files of a part, of a
            prepared data set are missing, or files differ in their columns.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        starts: list[int] = []
        file_of: list[int] = []
        group_of: list[int] = []
        total = 0
        self.schema: Any = None
        self.manifest: Manifest | None = None
        ends: dict[Path, bool] = {}
        counts: dict[Path, int] = {}
        for number, path in enumerate(self.files):
            with self._opened(path) as file:
                schema, footer = file.schema_arrow, file.metadata
                if number == 0:
                    self.schema, self.manifest = schema, _manifest(schema, path)
                elif not schema.equals(self.schema) or _manifest(schema, path) != self.manifest:
                    raise DataError(
                        f"{path} has other columns, or was made from something else, than {self.files[0]}: they are "
                        "files of different data sets. Keep these in different folders."
                    )
                ends[path], counts[path] = _is_last(footer), footer.num_rows
                for group in range(footer.num_row_groups):
                    starts.append(total)
                    file_of.append(number)
                    group_of.append(group)
                    total += footer.row_group(group).num_rows
        if self.manifest is not None:
            refuse_missing(ends, self.manifest)
        if not total:
            raise DataError(f"the {len(self.files)} Parquet files, the first {self.files[0]}, hold no rows.")
        self._starts = np.array(starts, np.int64)
        self._file_of = np.array(file_of, np.int32)
        self._group_of = np.array(group_of, np.int32)
        self._length = total
        maps = [name for name in self.schema.names if is_picture(self.schema.field(name).type)]
        self._places = Places(counts, self.schema, maps) if self._has_places() else None
        self._leaves = {name: f"{name}.bytes" if name in maps else name for name in self.schema.names}
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._most_columns = _KEPT_COLUMNS
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._columns: OrderedDict[tuple[int, str], Any] = OrderedDict()
        if self._places is not None:
            self._places.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_columns": OrderedDict()}

    def __len__(self) -> int:
        return self._length

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def where(self, row: int) -> tuple[Path, int]:
        """The file of a row, and its number there."""
        group = self._group_with(row)
        file = int(self._file_of[group])
        return self.files[file], row - int(self._starts[int(np.searchsorted(self._file_of, file))])

    def read(self, rows: Sequence[int], columns: Collection[str]) -> list[dict[str, Any]]:
        """The named columns of some rows, in order; a picture as its bytes.

        Raises:
            CorruptFileError: a checksum does not fit, or the file is gone.
        """
        if self._process != os.getpid():
            self._forget()  # files that a parent opened are not read by several
        if self._places is not None and self._places.names.issuperset(columns):
            return [{name: self._places.value(self._known(row), name) for name in columns} for row in rows]
        found: list[dict[str, Any]] = []
        for row in rows:
            group = self._group_with(row)
            place = row - int(self._starts[group])
            self._fetch(group, columns)
            found.append({name: _plain(self._column(group, name)[place].as_py()) for name in columns})
        return found

    def whole(self, column: str) -> list[Any]:
        """A column of small values, of all rows; raises as `read`."""
        if self._places is not None and column in self._places.small:
            return self._places.small[column].to_pylist()
        values: list[Any] = []
        for path in self.files:
            with self._opened(path) as file, reading(path):
                values += file.read(columns=[column]).column(0).to_pylist()
        return values

    def _known(self, row: int) -> int:
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        return row

    def _group_with(self, row: int) -> int:
        return int(bisect_right(self._starts, self._known(row))) - 1

    def _fetch(self, group: int, names: Collection[str]) -> None:
        """Read the columns of a row group that are not kept, in one call."""
        missing = []
        for name in names:
            if (group, name) in self._columns:
                self._columns.move_to_end((group, name))  # not the ones to make room
            else:
                missing.append(name)
        if missing:
            file = int(self._file_of[group])
            with reading(self.files[file]):
                # Of a picture only its bytes are read, not the path beside them.
                leaves = [self._leaves[name] for name in missing]
                table = self._file(file).read_row_group(int(self._group_of[group]), columns=leaves, use_threads=False)
                self._columns |= {(group, name): table.column(name).combine_chunks() for name in missing}
            while len(self._columns) > max(self._most_columns, len(names)):
                self._columns.popitem(last=False)

    def _column(self, group: int, name: str) -> Any:
        return self._columns[group, name]

    def _opened(self, path: Path) -> Any:
        """An open file; raises as `open_parquet`."""
        return open_parquet(path)

    def _has_places(self) -> bool:
        return self.manifest is not None and have_places(self.files)

    def _file(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = self._opened(self.files[number])
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]


def _plain(value: Any) -> Any:
    return value["bytes"] if isinstance(value, dict) and "bytes" in value else value


def _manifest(schema: Any, path: Path) -> Manifest | None:
    text = (schema.metadata or {}).get(META_KEY)
    if text is None:
        return None
    with decoding(path, "its metadata cannot be read"):
        return Manifest.from_json(text.decode(), path)


def _is_last(footer: Any) -> bool:
    """Whether a file says that it is the last of its part; files of others do not say."""
    return bool(json.loads((footer.metadata or {}).get(END_KEY, b"{}")).get("last", False))


def refuse_missing(ends: Mapping[Any, bool], manifest: Manifest, suffix: str = ".parquet") -> None:
    """Compare the files of a prepared data set with what they say of each other.

    Args:
        ends: file -> whether it says that it is the last of its part.
        manifest: of all.
        suffix: of the files.

    Raises:
        DataError: names the first missing part or file.
    """
    by_part: dict[int, dict[int, bool]] = {}
    roots = {path.parent.parent for path in ends}
    for path, last in ends.items():
        part, number = part_of(path.parent), file_number(path)
        if part is None or number is None or part[1] != manifest.parts:
            raise DataError(f"{path} was renamed, or lies among the parts of another preparation: {path.parent}.")
        by_part.setdefault(part[0], {})[number] = last
    place: Any = min(roots) if len(roots) == 1 else Path(os.path.commonpath(roots))
    advice = "Finish it with the same scripts/prepare_data.py command, or copy or download what is missing."
    absent = [number for number in range(manifest.parts) if number not in by_part]
    if absent:
        names = _listing(part_name(number, manifest.parts) for number in absent)
        raise DataError(f"{place} lacks {len(absent)} of {manifest.parts} parts: {names}. {advice}")
    for which, files in sorted(by_part.items()):
        if sorted(files) != list(range(len(files))) or not files[max(files)]:
            missing = next(number for number in range(len(files) + 1) if number not in files)
            folder = place / part_name(which, manifest.parts)
            raise DataError(f"{folder} lacks {file_name(missing, suffix)}. {advice}")


def _listing(names: Iterable[str], most: int = 5) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
