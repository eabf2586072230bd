"""The index of a tar shard: where each frame begins. Read from beside it, or made once of a shard by someone else."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.files.cache_folder import cache_folder
from m33d_hf.data.files.remote import AnyPath, RemotePath, read_whole
from m33d_hf.data.plural import plural
from m33d_hf.data.prepared.layout import END_KEY, INDEX, META_KEY, Manifest, file_number, part_of
from m33d_hf.errors import CorruptFileError, DataError, MissingDependencyError, decoding

logger = logging.getLogger(__name__)
_ADVICE = "Copy it, too, or finish it with the same scripts/prepare_data.py command."


@dataclass(frozen=True)
class TarIndex:
    """Where the frames of one shard lie.

    Attributes:
        starts: (N,) int64, first byte of each frame.
        sizes: (N,) int64, its bytes.
        crcs: (N,) uint32 CRC-32 of its bytes; None of a shard by others.
        manifest: of a prepared data set; None of others.
        last: the shard is the last of its part.
        length: bytes of the whole shard; None of a shard by others.
        columns: ends of the names in a shard by others.
    """

    starts: np.ndarray
    sizes: np.ndarray
    crcs: np.ndarray | None = None
    manifest: Manifest | None = None
    last: bool = True
    length: int | None = None
    columns: tuple[str, ...] = ()


def read_index(tar: AnyPath) -> TarIndex:
    """The index beside a shard; else, of a local shard by others, its headers are read once and kept in a cache.

    Raises:
        CorruptFileError: the index, or the archive, is damaged. DataError: a prepared or a remote shard without index.
    """
    beside = tar.with_suffix(INDEX)
    if isinstance(tar, Path) and not Path(beside).is_file():
        if part_of(tar.parent) is not None and file_number(tar) is not None:
            raise DataError(f"{beside} is missing; without it {tar.name} cannot be read. {_ADVICE}")
        return _index_of_others(tar)
    try:
        table = _table(beside, ["start", "size", "crc"])
    except CorruptFileError as error:
        if isinstance(tar, RemotePath) and "does not exist" in error.reason:
            raise DataError(
                f"{beside} does not exist. A shard that is read over a network needs its index, which "
                f"scripts/prepare_data.py --format shards writes. {_ADVICE}"
            ) from error
        raise
    metadata = table.schema.metadata or {}
    with decoding(beside, "its metadata cannot be read"):
        manifest = Manifest.from_json(metadata[META_KEY].decode(), Path(beside))
        end = json.loads(metadata[END_KEY])
        starts, sizes, crcs = (table.column(name).to_numpy() for name in ("start", "size", "crc"))
        return TarIndex(starts, sizes, crcs.astype(np.uint32), manifest, bool(end["last"]), int(end["bytes"]))


def read_columns(tar: AnyPath, names: Sequence[str]) -> dict[str, list[Any]]:
    """Small values of every frame of a shard, from its index.

    Raises:
        CorruptFileError: the index is damaged.
    """
    beside = tar.with_suffix(INDEX)
    if isinstance(beside, Path) and not beside.is_file():
        return {"key": _keys_of_others(Path(tar))}
    table = _table(beside, names)
    return {name: table.column(name).to_pylist() for name in names}


def _table(path: AnyPath, columns: Sequence[str]) -> Any:
    """Columns of an index, whose pages are checked."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path} requires pyarrow, which comes with `pip install datasets`.") from error
    data = read_whole(path)
    with decoding(path, "cannot be read as the index of a shard"):
        file = parquet.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        return file.read(columns=list(columns)).replace_schema_metadata(file.schema_arrow.metadata)


def _index_of_others(tar: Path) -> TarIndex:
    kept = _kept(tar)
    if (found := _load_kept(kept, ("starts", "sizes", "columns"))) is not None:
        return TarIndex(found[0], found[1], columns=tuple(str(name) for name in found[2]))
    starts, sizes, keys, columns = _scan(tar)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}.tmp")
        arrays: dict[str, Any] = {"starts": starts, "sizes": sizes}
        with temporary.open("wb") as file:
            np.savez(file, **arrays, columns=np.array(columns, dtype=str), keys=np.array(keys, dtype=str))
        temporary.replace(kept)
    except OSError as error:  # without a cache, only time is lost
        logger.info("the index of %s cannot be cached in %s (%s)", tar, kept.parent, error)
    return TarIndex(starts, sizes, columns=tuple(columns))


def _keys_of_others(tar: Path) -> list[str]:
    found = _load_kept(_kept(tar), ("keys",))
    return _scan(tar)[2] if found is None else [str(key) for key in found[0]]


def _load_kept(kept: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """Arrays from the cache; None where they are missing, or damaged (the checksums of zip detect this)."""
    if not kept.is_file():
        return None
    try:
        with decoding(kept), np.load(kept, allow_pickle=False) as found:
            return [found[name] for name in names]
    except CorruptFileError:
        return None


def _kept(tar: Path) -> Path:
    state = tar.stat()
    name = f"{tar.resolve()} {state.st_size} {state.st_mtime_ns}".encode("utf-8", "surrogatepass")
    return cache_folder("shards") / f"{tar.stem}-{hashlib.sha256(name).hexdigest()[:24]}.npz"


def _scan(tar: Path) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """(first bytes, bytes, keys, ends of names) of the frames of a shard; headers alone are read.

    Raises:
        CorruptFileError: not a plain tar archive, or one that was cut short.
    """
    starts: list[int] = []
    stops: list[int] = []
    keys: list[str] = []
    columns: dict[str, None] = {}
    length = tar.stat().st_size
    with decoding(tar, "cannot be read as a tar archive"), tarfile.open(tar, "r:") as archive:
        for info in archive:
            if not info.isreg():
                continue
            key, end = split_name(info.name)
            stop = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if stop > length:
                raise CorruptFileError(tar, f"was cut short: {info.name} ends at byte {stop}, the file at {length}")
            if keys and keys[-1] == key:
                stops[-1] = stop
            else:
                starts.append(info.offset)
                stops.append(stop)
                keys.append(key)
            columns[end] = None
            archive.members = []  # type: ignore[attr-defined]  # else all are kept
    if stops and length < stops[-1] + 2 * tarfile.BLOCKSIZE:
        raise CorruptFileError(
            tar, f"was cut short after {plural(len(keys), 'frame')}: a tar archive ends with blocks of zeros"
        )
    first = np.array(starts, np.int64)
    return first, np.array(stops, np.int64) - first, keys, list(columns)


def split_name(name: str) -> tuple[str, str]:
    """(key, end) of a member, as `webdataset` cuts names: at the first dot of the last word, ends in lower case."""
    folder, slash, last = name.rpartition("/")
    begin, _, end = last.partition(".")
    return f"{folder}{slash}{begin}", end.lower()
