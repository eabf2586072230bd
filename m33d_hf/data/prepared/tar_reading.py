"""Random access to the frames of tar shards, local or remote: one read of neighbouring bytes for a frame.

A shard is read by an index of where each frame begins, not as a stream: a frame has a number, so that whatever orders,
splits and resumes any source does so exactly with shards. (`webdataset` itself reads a shard from its beginning only;
its shuffling cannot be repeated from the middle of an epoch, and processes with unequal shards end at different times.)
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from m33d_hf.data.files.remote import AnyPath, RemotePath, file_size, read_range
from m33d_hf.data.prepared.layout import COLUMNS, INDEX, MAPS, TAR, VALUES, Manifest
from m33d_hf.data.prepared.reading import refuse_missing
from m33d_hf.data.prepared.tar_index import TarIndex, read_columns, read_index, split_name
from m33d_hf.errors import CorruptFileError, DataError, decoding

_KEPT_FRAMES = 32  # whose bytes are kept, in each process: a name is asked for first, and then its maps
_OPEN_FILES = 64
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_THREADS = 16  # that read indices: each is a request or two
_LONGEST_NUMBER = 18  # digits of a class number; any such fits 64 bits


@dataclass(frozen=True)
class _Shard:
    path: AnyPath
    columns: tuple[str, ...]


class TarRows:
    """The frames of several shards, numbered through.

    Args:
        files: the tar files, in order; each with an index beside it, or made by someone else and local.

    Attributes:
        manifest: of a data set that was prepared here; None for others.

    Raises:
        CorruptFileError: a shard that was cut short, or a damaged index. DataError: no frame; or parts, shards or
            indices of a prepared data set are missing, or shards of different data sets lie together.
    """

    def __init__(self, files: Sequence[AnyPath]) -> None:
        self._threads = _THREADS if any(isinstance(file, RemotePath) for file in files) else 1
        with ThreadPoolExecutor(self._threads) as pool:
            indices = list(pool.map(read_index, files))
            sizes = dict(zip(files, pool.map(file_size, files), strict=True))
        self.files = list(files)
        self.manifest = self._one_manifest(indices, sizes)
        self._shards = [_Shard(file, index.columns) for file, index in zip(files, indices, strict=True)]
        counts = [len(index.starts) for index in indices]
        self._ends = np.cumsum(counts)
        self._length = int(self._ends[-1]) if counts else 0
        if not self._length:
            raise DataError(f"the {len(self.files)} shards, the first {self.files[0]}, hold no frames.")
        self._starts = np.concatenate([index.starts for index in indices])
        self._sizes = np.concatenate([index.sizes for index in indices]).astype(np.int32)
        self._crcs = None if self.manifest is None else np.concatenate([_crcs(index) for index in indices])
        self._forget()

    def _one_manifest(self, indices: Sequence[TarIndex], sizes: Mapping[AnyPath, int]) -> Manifest | None:
        first = indices[0].manifest if indices else None
        for file, index in zip(self.files, indices, strict=True):
            if index.manifest != first:
                raise DataError(
                    f"{file} was made from something else than {self.files[0]}: they are shards of different data "
                    "sets. Keep these in different folders."
                )
            if index.length is not None and (found := sizes[file]) != index.length:
                raise CorruptFileError(
                    file, f"has {found} bytes, but {index.length} were written: it was cut short; copy it again"
                )
        if first is not None:
            refuse_missing(
                {path: index.last for path, index in zip(self.files, indices, strict=True)}, first, suffix=TAR
            )
        return first

    def _forget(self) -> None:
        self._process = os.getpid()
        self._most_frames = _KEPT_FRAMES
        self._open: OrderedDict[int, IO[bytes]] = OrderedDict()
        self._frames: OrderedDict[int, dict[str, bytes]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_frames": OrderedDict()}

    def __len__(self) -> int:
        return self._length

    @property
    def column_names(self) -> list[str]:
        """Names of the columns: those of prepared data, else `key` and the ends of the names in the shards."""
        if self.manifest is not None:
            return list(COLUMNS)
        return ["key", *dict.fromkeys(name for shard in self._shards for name in shard.columns)]

    def where(self, row: int) -> tuple[AnyPath, int]:
        """The shard of a frame, and its number there."""
        shard = self._shard_of(row)
        return self.files[shard], row - self._first(shard)

    def contents(self) -> Iterator[str]:
        """A line for each shard: part, name, frames and their bytes; the same on a disk and in object storage."""
        for shard, file in enumerate(self.files):
            first, end = self._first(shard), int(self._ends[shard])
            yield f"{file.parent.name}/{file.name} {end - first} {int(self._sizes[first:end].sum(dtype=np.int64))}"

    def read(self, rows: Sequence[int], columns: Collection[str]) -> list[dict[str, Any]]:
        """The named columns of some frames, in order; neighbours are read together.

        Raises:
            CorruptFileError: a frame is not what was written, or its shard is gone. UnreachableError: its storage does
                not answer.
        """
        if self._process != os.getpid():
            self._forget()  # files that a parent opened are not read by several
        if not columns:
            return [{} for _ in rows]
        frames: dict[int, dict[str, bytes]] = {}
        for run in _runs(sorted({row for row in rows if row not in self._frames}), self._shard_of):
            frames |= self._fetch(run)
        for row in rows:
            if row in self._frames:
                self._frames.move_to_end(row)
                frames[row] = self._frames[row]
        self._frames |= frames
        while len(self._frames) > self._most_frames:
            self._frames.popitem(last=False)
        return [self._values(row, frames[row], columns) for row in rows]

    def prefetch(self, rows: Sequence[int]) -> None:
        """Fetch remote frames that will be read next, side by side, since each would wait for the answer before it.
        What cannot be read is left to whoever reads it.

        Raises:
            UnreachableError: the storage does not answer.
        """
        if self._threads == 1:  # on a disk
            return
        if self._process != os.getpid():
            self._forget()
        self._most_frames = max(self._most_frames, len(rows))
        missing = _runs(sorted({row for row in rows if row not in self._frames}), self._shard_of)
        for row in rows:
            if row in self._frames:
                self._frames.move_to_end(row)
        if missing:
            with ThreadPoolExecutor(min(_THREADS, len(missing))) as pool:
                for found in pool.map(self._fetched, missing):
                    self._frames |= found

    def _fetched(self, rows: range) -> dict[int, dict[str, bytes]]:
        try:
            return self._fetch(rows)
        except CorruptFileError:
            return {}

    def whole(self, column: str) -> list[Any]:
        """A column of small values, of all frames; from the indices, no frame is read.

        Raises:
            CorruptFileError: an index is damaged, or changed since it was opened. DataError: a column of maps.
        """
        if column not in (VALUES if self.manifest is not None else ("key",)):
            if self.manifest is None:  # classes in files of their own
                return [self.read([row], [column])[0].get(column) for row in range(len(self))]
            raise DataError(f"the column {column!r} of shards cannot be read as a whole")
        values: list[Any] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for found in pool.map(lambda file: read_columns(file, [column])[column], self.files):
                values += found
        if len(values) != self._length:
            raise CorruptFileError(self.files[0].with_suffix(INDEX), "or another index has changed while it was in use")
        return values

    def _shard_of(self, row: int) -> int:
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        return bisect_right(self._ends, row)

    def _first(self, shard: int) -> int:
        return int(self._ends[shard - 1]) if shard else 0

    def _fetch(self, rows: range) -> dict[int, dict[str, bytes]]:
        """Name of member -> bytes, of neighbouring frames of one shard."""
        shard = self._shard_of(rows[0])
        start = int(self._starts[rows[0]])
        stop = int(self._starts[rows[-1]]) + int(self._sizes[rows[-1]])
        data = self._bytes(shard, start, stop)
        found = {}
        for row in rows:
            at = int(self._starts[row]) - start
            part = data[at : at + int(self._sizes[row])]
            path, number = self.where(row)
            if self._crcs is not None and zlib.crc32(part) != self._crcs[row]:
                raise CorruptFileError(path, f"frame {number} is not what was written: the shard is damaged")
            found[row] = members(part, f"{path}, frame {number}")
        return found

    def _bytes(self, shard: int, start: int, stop: int) -> bytes:
        path = self.files[shard]
        if isinstance(path, RemotePath):
            return read_range(path, start, stop)
        if shard not in self._open:
            try:
                self._open[shard] = path.open("rb", buffering=0)
            except OSError as error:
                raise CorruptFileError(path, f"cannot be opened ({error.strerror})") from error
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard)
        file = self._open[shard]
        file.seek(start)
        data = file.read(stop - start)
        if len(data) < stop - start:
            raise CorruptFileError(path, f"was cut short: it ends before byte {stop}")
        return data

    def _values(self, row: int, frame: dict[str, bytes], columns: Collection[str]) -> dict[str, Any]:
        if self.manifest is None:
            return {name: _of_others(name, frame) for name in columns}
        values: dict[str, Any] = {}
        if set(columns) - set(MAPS):
            with decoding(self.where(row)[0], f"frame {self.where(row)[1]} has no readable JSON"):
                values = json.loads(frame["json"])
        for name, data in frame.items():
            if name.partition(".")[0] in MAPS:
                values[name.partition(".")[0]] = data
        return {name: values.get(name) for name in columns}


def _of_others(name: str, frame: dict[str, bytes]) -> Any:
    """A value of a frame that others wrote: the key, the class number of `cls`, or bytes."""
    if name == "key":
        return frame["__key__"].decode("utf-8", "surrogateescape")
    data = frame.get(name)
    if data is None or name.rpartition(".")[2] not in ("cls", "cls2", "txt"):
        return data
    text = data.decode("utf-8", "replace").strip()
    plain = text.removeprefix("-").isdecimal() and len(text) <= _LONGEST_NUMBER
    return int(text) if plain else text


def members(data: bytes, where: str) -> dict[str, bytes]:
    """End of the name -> content of the files of one frame, and `__key__` -> the beginning that they share.

    Raises:
        CorruptFileError: of `where`: headers that cannot be read.
    """
    found: dict[str, bytes] = {}
    at = 0
    with decoding(where, "cannot be read as part of a tar archive"):
        while at < len(data):
            info = tarfile.TarInfo.frombuf(data[at : at + tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
            if info.type in _EXTENDED:  # a name over 100 bytes stands in headers of its own, before the member's
                with tarfile.open(fileobj=io.BytesIO(data[at:]), mode="r:", errors="surrogateescape") as archive:
                    info = archive.next() or info
                at += info.offset_data
            else:
                at += tarfile.BLOCKSIZE
            if info.isreg():
                key, end = split_name(info.name)
                found[end] = data[at : at + info.size]
                found["__key__"] = key.encode("utf-8", "surrogateescape")
            at += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return found


def _runs(rows: Sequence[int], shard_of: Any) -> list[range]:
    """Ascending rows as neighbours of one shard."""
    found: list[range] = []
    for row in rows:
        if found and found[-1].stop == row and shard_of(row) == shard_of(row - 1):
            found[-1] = range(found[-1].start, row + 1)
        else:
            found.append(range(row, row + 1))
    return found


def _crcs(index: TarIndex) -> np.ndarray:
    assert index.crcs is not None  # an index with a manifest has them
    return index.crcs
