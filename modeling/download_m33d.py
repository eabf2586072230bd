# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Videos and pictures at addresses as files, so that one reader reads both: pixels and times cannot differ."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from .errors_m33d import CorruptFileError, decoding

_ADDRESSES = ("http://", "https://")
_SILENCE = 30  # seconds
_SAFE = "%/:=&?~#+!$,;'@()*[]"  # what addresses may hold as it is


def is_address(given: object) -> bool:
    """Whether a video or a picture is named by the address of its file."""
    return isinstance(given, str) and given.startswith(_ADDRESSES)


@contextmanager
def downloaded(address: str) -> Iterator[Path]:
    """The file behind an address, which is removed when the block ends.

    Raises:
        CorruptFileError: it cannot be downloaded; what the block says of the file is said of the address.
    """
    name = f"{address:.200}"
    with decoding(name, "is no address"):
        suffix = PurePosixPath(urlsplit(address).path).suffix[:10]  # some containers are told apart by it alone
    with tempfile.TemporaryDirectory(prefix="m33d-download-") as folder:
        path = Path(folder) / f"file{suffix}"
        _fetch(address, name, path)
        try:
            yield path
        except CorruptFileError as error:
            raise CorruptFileError(name, error.reason) from error


def _fetch(address: str, name: str, path: Path) -> None:
    asked = Request(quote(address, safe=_SAFE), headers={"User-Agent": "m33d-hf"})  # some servers refuse Python's own
    with decoding(name, "cannot be downloaded"), urlopen(asked, timeout=_SILENCE) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
        promised, came = answer.headers.get("Content-Length"), file.tell()
        if promised is not None and came != int(promised):
            raise CorruptFileError(name, f"cannot be downloaded ({came} of {promised} bytes came)")


__all__ = ["downloaded", "is_address"]
