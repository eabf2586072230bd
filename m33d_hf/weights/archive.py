"""Is a zip archive, the container of `torch.save`, whole? torch.load compares no checksum; this does, to the last bit.

The checksums cover what is stored. Names, sizes and places stand twice in an archive, and torch writes all other bytes
alike for every entry; so whatever differs between two copies, or fills a gap otherwise than torch does, is damage.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from m33d_hf.errors import CheckpointError, first_line

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_TAIL = struct.Struct("<4sQ2H2I4Q" + "4sIQI" + "4s4H2IH")
_PADDING = b"FB"  # the mark of the field with which torch aligns every entry
_WRITER, _READER = 0x031E, 0x002D  # versions in the record for large archives
_PIECE = 1 << 22


def is_archive(file: Path) -> bool:
    """Whether the file begins as a zip archive does."""
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def check_archive(file: Path) -> bool:
    """Read everything once and compare every checksum, name, size and place.

    Returns:
        Whether there are checksums: False for files that torch was told to save without them.

    Raises:
        CheckpointError: what differs, and in which entry.
    """
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
            entries = archive.infolist()
            if not entries:
                raise _damage(file, "an archive without entries")
            has_checksums = any(entry.CRC for entry in entries)
            for entry in entries if has_checksums else []:
                _check_content(archive, entry, file)
            if any(_padding(stream, entry).startswith(_PADDING) for entry in entries):
                _check_layout(stream, entries, archive.start_dir, file)
            return has_checksums
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged directory brings a reader to
        raise _damage(file, f"its zip directory cannot be read ({first_line(error)}); it may be cut short") from error


def _damage(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: cannot be read as a torch file because it is damaged: {what}. Download or copy it again."
    )


def _check_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> None:
    if entry.flag_bits & 1:
        raise _damage(file, f"entry {entry.filename!r} is marked as encrypted")
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size > file.stat().st_size:
        raise _damage(file, f"entry {entry.filename!r} is longer than the file")
    try:
        with archive.open(entry) as content:
            while content.read(_PIECE):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # its last read compares the checksum
        what = f"the checksum of entry {entry.filename!r} does not match its content ({first_line(error)})"
        raise _damage(file, what) from error


def _local(stream: BinaryIO, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], bytes, bytes]:
    """The numbers, the name and the extra field of an entry's own header."""
    stream.seek(entry.header_offset)
    _, *numbers = _LOCAL.unpack(stream.read(_LOCAL.size))
    return tuple(numbers), stream.read(numbers[-2]), stream.read(numbers[-1])


def _padding(stream: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    return _local(stream, entry)[2]


def _check_layout(stream: BinaryIO, entries: list[zipfile.ZipInfo], directory: int, file: Path) -> None:
    """Compare an archive of torch with what torch writes around the same content."""
    stream.seek(0, 2)
    if stream.tell() >= 0xFFFFFFFF:
        return  # sizes move into further fields there; contents have been compared
    kinds, place = _kinds(stream, entries[0]), 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        name = entry.filename.encode("utf-8")
        numbers, written_name, padding = _local(stream, entry)
        ours = (entry.CRC, entry.compress_size, entry.file_size)
        expected_padding = padding[:2] + struct.pack("<H", len(padding) - 4) + b"Z" * (len(padding) - 4)
        start = entry.header_offset + _LOCAL.size + len(name) + len(padding)
        stream.seek(start + entry.compress_size)
        # Of an entry without content nothing is told afterwards.
        expected_trailer = struct.pack("<4s3I", b"PK\x07\x08", *ours) if entry.file_size else b""
        trailer = stream.read(len(expected_trailer))
        whole = (
            entry.header_offset == place
            and entry.compress_type == zipfile.ZIP_STORED
            and written_name == name
            and numbers[:8] == (*_kinds_of(entry, kinds), 0, 0, 0)
            and padding == expected_padding
            and padding.startswith(_PADDING)
            and trailer == expected_trailer
        )
        if not whole:
            raise _damage(file, f"the header of entry {entry.filename!r} was changed after it was written")
        place = start + entry.compress_size + len(trailer)
    stream.seek(place)
    if place != directory or stream.read() != _directory(entries, kinds, directory):
        raise _damage(file, "the directory at its end was changed after it was written")


def _kinds(stream: BinaryIO, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """(version, flags, method, time, date), which torch writes alike for every entry: those of the first."""
    return _local(stream, entry)[0][:5]


def _kinds_of(entry: zipfile.ZipInfo, kinds: tuple[int, ...]) -> tuple[int, ...]:
    """The same for one entry: of an empty one, a flag that a checksum follows is not set."""
    version, flags, *others = kinds
    return (version, flags if entry.file_size else flags & ~8, *others)


def _directory(entries: list[zipfile.ZipInfo], kinds: tuple[int, ...], start: int) -> bytes:
    """The bytes with which torch ends an archive of these entries."""
    rows = b""
    for entry in entries:
        name = entry.filename.encode("utf-8")
        sizes = (entry.CRC, entry.compress_size, entry.file_size)
        own = (*_kinds_of(entry, kinds), *sizes)
        head = _CENTRAL.pack(b"PK\x01\x02", 0, *own, len(name), 0, 0, 0, 0, 0, entry.header_offset)
        rows += head + name
    count, size = len(entries), len(rows)
    large = (b"PK\x06\x06", 44, _WRITER, _READER, 0, 0, count, count, size, start)
    locator = (b"PK\x06\x07", 0, start + size, 1)
    short = min(count, 0xFFFF)
    end = (b"PK\x05\x06", 0, 0, short, short, size, start, 0)
    return rows + _TAIL.pack(*large, *locator, *end)
