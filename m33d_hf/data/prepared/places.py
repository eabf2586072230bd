"""Where the pictures of a prepared Parquet file lie, so that a row is read without its neighbours or the footer.

A footer of 600 row groups takes 6 ms to parse and 12 MB of memory, more than a picture takes to decode, and of more
files than can be kept open nearly every random row would parse one. So beside `file-000.parquet` lies
`file-000.places`, itself Parquet: of each row the small columns, and of each picture the offset, the number of bytes
and a checksum. Nothing is lost without it: the same rows are then read by the footer.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from m33d_hf.data.prepared.parquet import open_parquet, reading
from m33d_hf.errors import CorruptFileError, DataError

SUFFIX = ".places"
SMALL = ("key", "depth_scale", "label", "fps")
_SIZE_KEY = b"m33d_file_size"
_PLACE = np.dtype([("at", "<i8"), ("bytes", "<u4"), ("crc", "<u4")])
_OPEN_FILES = 64


class PlaceNotes:
    """Notes the places of the rows of one file while it is written.

    Args:
        path: of the Parquet file.
        maps: its columns of pictures.
    """

    def __init__(self, path: Path, maps: Sequence[str]) -> None:
        self.path = path
        self.maps = tuple(maps)
        self._columns: dict[str, list[Any]] = {name: [] for name in SMALL}
        for name in self.maps:
            self._columns |= {f"{name}_{part}": [] for part in _PLACE.names or ()}

    def note(self, begin: int, end: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Find the pictures of a row group among the bytes of the file, in which they lie as they are.

        Raises:
            DataError: they do not, because the library has written them in another way.
        """
        with self.path.open("rb") as file:
            file.seek(begin)
            held = file.read(end - begin)
        for name in self.maps:
            after = 0
            for row in rows:
                data = b"" if row[name] is None else row[name]["bytes"]
                at = 0
                if data:
                    at = held.find(struct.pack("<I", len(data)) + data, after) + 4  # behind its length
                    if at < 4:
                        raise DataError(f"{self.path}: pyarrow has not written the column {name} as plain bytes")
                    after = at + len(data)
                for part, value in zip(_PLACE.names or (), (begin + at, len(data), zlib.crc32(data))):
                    self._columns[f"{name}_{part}"].append(value)
        for name in SMALL:
            self._columns[name] += [row[name] for row in rows]

    def write(self, schema: Any) -> str:
        """Write them beside the finished file, and return the name.

        Args:
            schema: Arrow's, of the file.
        """
        import pyarrow
        import pyarrow.parquet as parquet

        place = self.path.with_suffix(SUFFIX)
        metadata = {_SIZE_KEY: str(self.path.stat().st_size).encode()}
        table = pyarrow.table(self._columns, schema=_schema(schema, self.maps).with_metadata(metadata))
        parquet.write_table(table, place, compression="none", write_statistics=False, write_page_checksum=True)
        return place.name


class Places:
    """The places of all rows of some files, in memory: about 100 bytes a row.

    Args:
        files: the Parquet files, each with its places, and their numbers of rows, in order.
        schema: Arrow's, of all of them.
        maps: their columns of pictures.

    Attributes:
        names: of the columns that can be read.

    Raises:
        CorruptFileError: places are damaged, or those of another file.
    """

    def __init__(self, files: Mapping[Path, int], schema: Any, maps: Sequence[str]) -> None:
        import pyarrow

        expected = _schema(schema, maps)
        tables = [_read(file, rows, expected) for file, rows in files.items()]
        self.files = list(files)
        self.names = frozenset((*SMALL, *maps))
        self.starts = np.cumsum([0, *(table.num_rows for table in tables)])
        whole = pyarrow.concat_tables(tables)
        self.small = {name: _as_one(whole.column(name)) for name in SMALL}
        self.maps = {name: np.empty(whole.num_rows, _PLACE) for name in maps}
        for name, places in self.maps.items():
            for part in _PLACE.names or ():
                places[part] = whole.column(f"{name}_{part}").to_numpy()
        self.forget()

    def forget(self) -> None:
        """Close the files, which a forked process must open for itself."""
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def value(self, row: int, name: str) -> Any:
        """The value of a row; of a picture its bytes, None where there is none.

        Raises:
            CorruptFileError: the bytes are not what was written, or the file is gone.
        """
        if name not in self.maps:
            return self.small[name][row].as_py()
        at, count, checksum = self.maps[name].item(row)
        if not count:
            return None
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        with reading(self.files[number]):
            file = self._file(number)
            file.seek(at)
            data = file.read(count)
        if len(data) < count or zlib.crc32(data) != checksum:
            place = row - int(self.starts[number])
            raise CorruptFileError(self.files[number], f"the checksum of the {name} of row {place} does not fit")
        return data

    def _file(self, number: int) -> BinaryIO:
        if number not in self._open:
            self._open[number] = io.FileIO(self.files[number])  # type: ignore[assignment]
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]


def have_places(files: Sequence[Path]) -> bool:
    """Whether every one of some Parquet files has its places beside it."""
    return all(file.with_suffix(SUFFIX).is_file() for file in files)


def _schema(schema: Any, maps: Sequence[str]) -> Any:
    """Arrow's schema of the places of files with this one."""
    import pyarrow

    kinds = {"at": pyarrow.int64(), "bytes": pyarrow.uint32(), "crc": pyarrow.uint32()}
    fields = [pyarrow.field(name, schema.field(name).type) for name in SMALL]
    fields += [pyarrow.field(f"{name}_{part}", kind) for name in maps for part, kind in kinds.items()]
    return pyarrow.schema(fields)


def _read(file: Path, rows: int, schema: Any) -> Any:
    """The table of the places of a file; raises CorruptFileError."""
    place = file.with_suffix(SUFFIX)
    with open_parquet(place) as opened, reading(place):
        table = opened.read(use_threads=False)
        stated = int(table.schema.metadata[_SIZE_KEY])
    if file.stat().st_size != stated:
        raise CorruptFileError(file, f"has {file.stat().st_size:,} bytes, but {place.name} was made of {stated:,}")
    table = table.replace_schema_metadata(None)
    if table.num_rows != rows or not table.schema.equals(schema):
        raise CorruptFileError(place, f"holds {table.num_rows} rows of {table.schema.names}, unlike those of its file")
    return table


def _as_one(column: Any) -> Any:
    """A column as one Arrow array; text with offsets that do not end at 2 GB."""
    import pyarrow

    text = pyarrow.types.is_string(column.type)
    return (column.cast(pyarrow.large_string()) if text else column).combine_chunks()
