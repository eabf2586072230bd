"""Frames that lie inside a larger file, named `FILE#STREAM-NUMBER`: `scene0000_00.sens#depth-120`.

Recordings and data sets that come as one file are read where they lie and never unpacked. `files.py` asks here first,
so that whatever reads a picture or a map by its path reads these as well.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np

_NAME = re.compile(r"(?P<file>.*(?P<suffix>\.[a-z0-9]+))#(?P<stream>[a-z]+)-(?P<number>\d{1,12})", re.IGNORECASE)
# suffix, or suffix and stream -> module with the two functions of `PackedFormat`
FORMATS = {
    ".sens": "m33d_hf.data.packed_formats.sens",
    ".mat": "m33d_hf.data.packed_formats.nyu_mat",
    ".mat#seglabel": "m33d_hf.data.packed_formats.sun_mat",
}


class PackedFormat(Protocol):
    """What the module of a format offers."""

    def read_frame(self, file: Path, stream: str, number: int) -> np.ndarray:
        """(H, W, 3) uint8 of a stream of pictures, else (H, W) as stored.

        Raises:
            CorruptFileError: the file, or this frame of it, cannot be read.
        """

    def frame_size(self, file: Path, stream: str, number: int) -> tuple[int, int]:
        """(height, width) of a frame, by the file's header; raises as `read_frame`."""


class PackedFrame(NamedTuple):
    """One frame of one stream of a file."""

    file: Path
    stream: str
    number: int

    @property
    def _format(self) -> PackedFormat:
        suffix = self.file.suffix.lower()
        module = FORMATS.get(f"{suffix}#{self.stream}", FORMATS[suffix])
        return cast(PackedFormat, importlib.import_module(module))

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 of a picture, (H, W) of a map as stored.

        Raises:
            CorruptFileError: the file, or this frame of it, cannot be read.
        """
        return self._format.read_frame(*self)

    def size(self) -> tuple[int, int]:
        """(height, width); raises as `read`."""
        return self._format.frame_size(*self)


def packed_name(file: str, stream: str, number: int) -> str:
    """The name of a frame, in place of a path."""
    return f"{file}#{stream}-{number}"


def packed_frame(path: Path | str) -> PackedFrame | None:
    """What `path` names inside a file of a known format; None where it is a path like any other."""
    if "#" not in (text := str(path)):
        return None
    found = _NAME.fullmatch(text)
    if found is None or found["suffix"].lower() not in FORMATS:
        return None
    return PackedFrame(Path(found["file"]), found["stream"], int(found["number"]))


def file_of(path: str) -> str:
    """The file that has to be there for `path`: the one that it lies in, else itself."""
    return path if (frame := packed_frame(path)) is None else str(frame.file)
