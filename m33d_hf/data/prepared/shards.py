"""Writes the parts of a prepared data set: a folder each, of files below a number of bytes, complete or redone.

What a part holds depends on the plan alone, never on who writes it or when; its marker notes when the files that could
not be read were changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.markers import MARKER, mark_complete
from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.data.prepared.encoding import Encoder
from m33d_hf.data.prepared.layout import Manifest, file_number, part_name
from m33d_hf.data.prepared.unread import Unread, rows_of
from m33d_hf.data.prepared.writing import PartFiles
from m33d_hf.data.source import Source


@dataclass(frozen=True)
class PartResult:
    """What one part became.

    Attributes:
        number: of the part.
        items: of the source, the skipped ones included.
        rows: frames written.
        size: bytes of its files.
        skipped: items that could not be read.
        holes: frames of clips, and those whose depth is missing or damaged.
    """

    number: int
    items: int
    rows: int
    size: int
    skipped: list[SkippedFile] = field(default_factory=list)
    holes: HoleCount = field(default_factory=HoleCount)


def part_ranges(length: int, per_part: int) -> list[range]:
    """The items of each part: `per_part` neighbours."""
    return [range(start, min(start + per_part, length)) for start in range(0, length, per_part)]


def write_part(
    root: Path,
    number: int,
    items: Sequence[int],
    source: Source,
    encoder: Encoder,
    manifest: Manifest,
    most_bytes: int,
    groups: Sequence[str] | None = None,
    step: Callable[[], object] | None = None,
    form: str = "parquet",
) -> PartResult:
    """Write one part anew; its marker comes last.

    Args:
        root: of the prepared data set.
        number: of the part.
        items: of the source.
        source: read from.
        encoder: how frames are stored.
        manifest: goes into every file.
        most_bytes: of the maps in one file, which holds at least one frame.
        groups: `source.groups()`.
        step: called after every item.
        form: one of `layout.FORMATS`.

    Raises:
        DepthUnitError, LabelError, ConfigError: the data set was described wrongly. OSError: the disk is full.
    """
    folder = root / part_name(number, manifest.parts)
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    unread, holes = Unread(), HoleCount()
    files = PartFiles(folder, manifest, most_bytes, form)
    try:
        for index in items:
            for row in rows_of(source, index, encoder, groups, unread, holes):
                files.add(row)
            if step is not None:
                step()
    finally:
        files.close()
    mark_complete(folder, files.names, notes=unread.notes())
    size = sum((folder / name).stat().st_size for name in files.names)
    return PartResult(number, len(items), files.rows, size, unread.files, holes)


def _clear(folder: Path) -> None:
    """Remove what an interrupted process left of a part; files of others stay, and make the marker fail."""
    (folder / MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if file_number(path) is not None:
            path.unlink()
