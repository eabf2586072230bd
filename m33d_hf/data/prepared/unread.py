"""What of a part's items could not be read: noted in its marker, counted again, and looked at again when continuing.

The digest of a source knows sizes, not contents. A picture that was repaired is found by its times of change; where
these differ, or do not tell, the frames at which it failed are read, and no others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.markers import MARKER, marker_notes
from m33d_hf.data.files.skips import SkippedFile, unreadable
from m33d_hf.data.prepared.encoding import TOGETHER, Encoder, sequence_of
from m33d_hf.data.sample import holes_of, read_sample
from m33d_hf.data.source import Source
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError, LabelError
from m33d_hf.modeling.picture_files_m33d import decode_picture

_KEY = "unread"
_DISK_ERRORS = (28, 122)  # no space, quota: of what is written, and never of what is read
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm")


class Failure(NamedTuple):
    """Where an item could not be read.

    Attributes:
        file: that stopped it.
        first: of the frames that were read together when it did.
        inside: path of the file in the folder of the source; None where it lies elsewhere, or is no file.
        stamp: of the file (`_stamp_of_damage`); None where that tells nothing: then it is read again.
    """

    file: SkippedFile
    first: int = 0
    inside: str | None = None
    stamp: list[int] | None = None

    @classmethod
    def of(cls, error: Exception, key: str, first: int, source: Source, index: int) -> Failure:
        """That of an error, by which the item `index` stopped."""
        file = unreadable(error, key)
        inside = None if file.path == key else _inside(file.path, source.root_of(index))
        return cls(file, first, inside, _stamp_of_damage(file.path))

    def row(self) -> list[Any]:
        """For the marker."""
        return [*self.file, *self[1:]]

    def moved_to(self, root: Path | None) -> Failure:
        """The same, of a source that lies there now."""
        if root is None or self.inside is None:
            return self
        return self._replace(file=self.file._replace(path=str(root / self.inside)))

    def is_where(self, other: Failure) -> bool:
        """Whether both are of one file, wherever the source lies."""
        return self.file.path == other.file.path if self.inside is None else self.inside == other.inside


@dataclass
class Unread:
    """What of the items of a part could not be read.

    Attributes:
        skipped: item -> where it stopped.
        damaged: item -> its frames whose depth is there, but cannot be decoded: they are holes.
    """

    skipped: dict[int, Failure] = field(default_factory=dict)
    damaged: dict[int, list[int]] = field(default_factory=dict)

    @property
    def files(self) -> list[SkippedFile]:
        """Those that stopped an item."""
        return [failure.file for failure in self.skipped.values()]

    def notes(self) -> dict[str, Any]:
        """For the marker of the part; nothing where everything was read."""
        if not self.skipped and not self.damaged:
            return {}
        damaged = [[index, *frames] for index, frames in self.damaged.items()]
        return {_KEY: {"skipped": [[index, *each.row()] for index, each in self.skipped.items()], "damaged": damaged}}

    @classmethod
    def of_part(cls, folder: Path, source: Source) -> Unread:
        """What the marker of a complete part says, of the source as it lies now.

        Raises:
            CorruptFileError: it says something else.
        """
        notes = marker_notes(folder).get(_KEY, {"skipped": [], "damaged": []})
        skipped: dict[int, Failure] = {}
        try:
            for index, path, reason, key, *rest in notes["skipped"]:
                failure = Failure(SkippedFile(str(path), str(reason), str(key)), *rest)
                skipped[int(index)] = failure.moved_to(source.root_of(int(index)))
            return cls(skipped, {int(index): [int(frame) for frame in frames] for index, *frames in notes["damaged"]})
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(folder / MARKER, f"{_KEY!r} does not list items that could not be read") from error

    def is_outdated(self, source: Source, encoder: Encoder) -> bool:
        """Whether any of it can be read now, or fails at another file: the part would become another one.

        Raises:
            DepthUnitError, LabelError, ConfigError: the data set was described wrongly.
        """
        return any(_fails_otherwise(source, encoder, *item) for item in self.skipped.items()) or any(
            _has_depth_now(source, *item) for item in self.damaged.items()
        )


def _fails_otherwise(source: Source, encoder: Encoder, index: int, before: Failure) -> bool:
    """Whether an item passes the place where it failed, or another file stops it there."""
    if before.stamp is not None and before.stamp == _stamp(before.file.path):
        return False
    now = Unread()
    for _ in rows_of(source, index, encoder, None, now, HoleCount(), before.first):
        pass
    after = now.skipped.get(index)
    return after is None or not after.is_where(before)


def _has_depth_now(source: Source, index: int, frames: Sequence[int]) -> bool:
    """Whether any of the frames of a clip, of which only the depth is read, has depth."""
    for start in range(0, len(frames), TOGETHER):
        numbers = frames[start : start + TOGETHER]
        try:
            sample = read_sample(source[index], numbers, ("depth",), align=False)
        except (DepthUnitError, LabelError):
            raise
        except (DataError, OSError):
            continue
        if sample.depth is not None and len(holes_of(sample)) < len(numbers):
            return True
    return False


def rows_of(
    source: Source,
    index: int,
    encoder: Encoder,
    groups: Sequence[str] | None,
    unread: Unread,
    holes: HoleCount,
    only: int | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of an item; none of an image that cannot be read, those before the damage of a clip.

    Args:
        source: of the item.
        index: of the item.
        encoder: how frames are stored.
        groups: `source.groups()`.
        unread: receives what cannot be read.
        holes: counts the frames of clips whose depth is missing or damaged.
        only: first of the frames that are read together, to take these alone; None for all.

    Raises:
        DepthUnitError, LabelError, ConfigError: the data set was described wrongly. OSError: the disk is full.
    """
    key, done = f"sample {index}", only or 0
    damaged: list[int] = []
    try:
        handle = source[index]
        key = handle.key
        sequence = sequence_of(None if groups is None else groups[index], handle)
        frames = None if only is None else range(only, min(only + TOGETHER, handle.length))
        for row in encoder.rows(handle, sequence, frames, holes, damaged):
            yield row
            done += 1
    except (DepthUnitError, LabelError):
        raise
    except (DataError, OSError) as error:
        if getattr(error, "errno", None) in _DISK_ERRORS:
            raise
        unread.skipped[index] = Failure.of(error, key, done - done % TOGETHER, source, index)
    if damaged:
        unread.damaged[index] = damaged


def _inside(path: str, root: Path | None) -> str | None:
    """A path within a folder, however the two are written; None of one elsewhere, and of what is no path."""
    if root is None:
        return None
    inside = Path(os.path.relpath(os.path.abspath(path), os.path.abspath(root)))
    return None if inside.parts[:1] == ("..",) else inside.as_posix()


def _stamp(path: str) -> list[int] | None:
    """Size and times of change of a file, its own (a copy may be given that of the content); None of what is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns] if stat.S_ISREG(found.st_mode) else None


def _stamp_of_damage(path: str) -> list[int] | None:
    """The stamp of a picture, or of a map that is one, whose bytes alone are why it cannot be read.

    None where the disk failed, memory was short, or a file beside it, with which it was compared, may be what is wrong:
    its own times of change would tell nothing.
    """
    stamp = _stamp(path)  # before it is read: a file that is repaired meanwhile has another one
    if stamp is None or Path(path).suffix.lower() not in _PICTURES:
        return None
    try:
        decode_picture(Path(path), Path(path).read_bytes())
    except CorruptFileError as error:
        return None if isinstance(error.__cause__, MemoryError | ImportError) else stamp
    except OSError:
        return None
    return None
