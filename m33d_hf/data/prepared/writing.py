"""Writes frames into the files of one part: Parquet for `datasets`, or tar shards with an index for `webdataset`."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from m33d_hf.data.prepared.layout import (
    END_KEY,
    INDEX,
    MAPS,
    TAR,
    VALUES,
    Manifest,
    file_name,
    index_schema_of,
    part_of,
    schema_of,
)
from m33d_hf.data.prepared.places import PlaceNotes
from m33d_hf.modeling.picture_files_m33d import is_tiff

# Rows of a row group, which is what others read for one of them. Fewer make the footers of the files long.
ROW_GROUP = 4


def row_bytes(row: Mapping[str, Any]) -> int:
    """Bytes of the maps of a row, which are nearly all that it takes."""
    return sum(len(row[name]["bytes"]) for name in MAPS if row[name] is not None)


class PartFiles:
    """The files of one part, one after the other; a file that could grow beyond `most_bytes` of maps is followed by
    another.

    Args:
        folder: of the part.
        manifest: goes into every file.
        most_bytes: of the maps in one file, which holds at least one frame.
        form: one of `layout.FORMATS`.

    Attributes:
        names: of the files.
        rows: frames written so far.
    """

    def __init__(self, folder: Path, manifest: Manifest, most_bytes: int, form: str) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self.names: list[str] = []
        self.rows = 0
        self._kind: type[_ParquetFile] | type[_TarFile] = _ParquetFile if form == "parquet" else _TarFile
        self._schema = schema_of(manifest) if form == "parquet" else index_schema_of(manifest)
        self._number = 0
        self._file: _File = self._next()  # a part of which nothing can be read is an empty file, not a missing one
        self._size = 0

    def _next(self) -> _File:
        file = self._kind(self.folder, self._number, self._schema)
        self._number += 1
        return file

    def _end(self, last: bool) -> None:
        self._file.close(last)
        self.names += self._file.names

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row of `encoding.Encoder`."""
        size = row_bytes(row)
        if self._size and self._size + size > self.most_bytes:
            self._end(last=False)
            self._file = self._next()
            self._size = 0
        self._size += size
        self._file.add(row)
        self.rows += 1

    def close(self) -> None:
        """End the part."""
        self._end(last=True)


class _File(Protocol):
    names: list[str]

    def add(self, row: Mapping[str, Any]) -> None: ...

    def close(self, last: bool) -> None: ...


class _ParquetFile:
    """A Parquet file and the places of its rows."""

    def __init__(self, folder: Path, number: int, schema: Any) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        path = folder / file_name(number)
        self.names = [path.name]
        self.schema = schema
        self._sink = pyarrow.OSFile(str(path), "wb")
        # Pictures are compressed already, and repeated nowhere. Nothing but a checksum tells a damaged number.
        self._writer = parquet.ParquetWriter(
            self._sink, schema, compression="none", use_dictionary=False,
            write_statistics=False, write_page_checksum=True,
        )  # fmt: skip
        self._places = PlaceNotes(path, MAPS)
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(row)
        if len(self._waiting) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._waiting:
            begin = self._sink.tell()
            self._writer.write_table(pyarrow.Table.from_pylist(self._waiting, schema=self.schema))
            self._places.note(begin, self._sink.tell(), self._waiting)
            self._waiting = []

    def close(self, last: bool) -> None:
        self._flush()
        self._writer.add_key_value_metadata({END_KEY.decode(): json.dumps({"last": last})})
        self._writer.close()
        self._sink.close()
        self.names.append(self._places.write(self.schema))


class _TarFile:
    """A shard and its index.

    `tarfile` makes the headers, so that two runs write the same bytes: no time, owner or name of a machine is in them.
    """

    def __init__(self, folder: Path, number: int, schema: Any) -> None:
        self.names = [file_name(number, TAR), file_name(number, INDEX)]
        self.folder, self.schema = folder, schema
        part = part_of(folder)
        self._prefix = f"{0 if part is None else part[0]:05d}-{number:03d}"
        self._tar = (folder / self.names[0]).open("wb")
        self._index: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        name = f"{self._prefix}-{len(self._index):06d}"  # the key may hold dots, by which names of members are cut
        values = {value: row[value] for value in VALUES}
        data = b"".join(_member(f"{name}.{end}", content) for end, content in _contents(row))
        data += _member(f"{name}.json", json.dumps(values).encode())
        self._index.append({**values, "start": self._tar.tell(), "size": len(data), "crc": zlib.crc32(data)})
        self._tar.write(data)

    def close(self, last: bool) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        blocks = self._tar.tell() + 2 * tarfile.BLOCKSIZE  # the end of an archive is two blocks of zeros, or more
        length = -(-blocks // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        self._tar.truncate(length)
        self._tar.close()
        table = pyarrow.Table.from_pylist(self._index, schema=self.schema)
        end = {END_KEY: json.dumps({"last": last, "bytes": length}).encode()}
        parquet.write_table(
            table.replace_schema_metadata({**self.schema.metadata, **end}),
            self.folder / self.names[1], compression="zstd", write_statistics=False, write_page_checksum=True,
        )  # fmt: skip


def _contents(row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """(end of the name, bytes) of the maps that a row has."""
    found = []
    for name in MAPS:
        if row[name] is not None:
            data = row[name]["bytes"]
            found.append((f"{name}.{_ending(data)}", data))
    return found


def _ending(data: bytes) -> str:
    if is_tiff(data):
        return "tiff"
    return "jpg" if data.startswith(b"\xff\xd8") else "png"


def _member(name: str, data: bytes) -> bytes:
    """Header, content and padding of a file in a tar archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    stream = io.BytesIO()
    stream.write(info.tobuf(tarfile.USTAR_FORMAT))
    stream.write(data)
    stream.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return stream.getvalue()
