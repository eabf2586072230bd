"""What of a part's items could not be read: noted in its marker, counted again, and looked at again when continuing.

The digest of a source knows sizes, not contents: a file that was repaired is found by reading it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.markers import MARKER, marker_notes
from m33d_hf.data.files.skips import SkippedFile, unreadable
from m33d_hf.data.prepared.encoding import Encoder, sequence_of
from m33d_hf.data.source import Source
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError, LabelError

_KEY = "unread"
_DISK_ERRORS = (28, 122)  # no space, quota: of what is written, and never of what is read


@dataclass
class Unread:
    """What of the items of a part could not be read.

    Attributes:
        skipped: item -> the file that stopped it.
        damaged: item -> its frames whose depth is there, but cannot be decoded: they are holes.
    """

    skipped: dict[int, SkippedFile] = field(default_factory=dict)
    damaged: dict[int, list[int]] = field(default_factory=dict)

    def notes(self) -> dict[str, Any]:
        """For the marker of the part; nothing where everything was read."""
        if not self.skipped and not self.damaged:
            return {}
        damaged = [[index, *frames] for index, frames in self.damaged.items()]
        return {_KEY: {"skipped": [[index, *file] for index, file in self.skipped.items()], "damaged": damaged}}

    @classmethod
    def of_part(cls, folder: Path) -> Unread:
        """What the marker of a complete part says.

        Raises:
            CorruptFileError: it says something else.
        """
        notes = marker_notes(folder).get(_KEY, {"skipped": [], "damaged": []})
        try:
            skipped = {int(index): SkippedFile(*map(str, file)) for index, *file in notes["skipped"]}
            return cls(skipped, {int(index): [int(frame) for frame in frames] for index, *frames in notes["damaged"]})
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(folder / MARKER, f"{_KEY!r} does not list items that could not be read") from error

    def is_outdated(self, source: Source, encoder: Encoder) -> bool:
        """Whether any of it can be read now, or fails at another file: the part would become another one.

        Raises:
            DepthUnitError, LabelError, ConfigError: the data set was described wrongly.
        """
        return any(self._reads_otherwise(source, encoder, index) for index in self.skipped) or any(
            _has_depth_now(source, encoder, index, frames)
            for index, frames in self.damaged.items()
            if index not in self.skipped
        )

    def _reads_otherwise(self, source: Source, encoder: Encoder, index: int) -> bool:
        now, before = Unread(), self.skipped[index]
        for _ in rows_of(source, index, encoder, None, now, HoleCount()):
            pass
        after = now.skipped.get(index)
        return after is None or after.path != before.path or now.damaged.get(index) != self.damaged.get(index)


def _has_depth_now(source: Source, encoder: Encoder, index: int, frames: Sequence[int]) -> bool:
    """Whether any of the frames of a clip, which is not read as a whole, has depth, or the clip fails."""
    now, holes = Unread(), HoleCount()
    for _ in rows_of(source, index, encoder, None, now, holes, frames):
        pass
    return bool(now.skipped) or holes.holes < len(frames)


def rows_of(
    source: Source,
    index: int,
    encoder: Encoder,
    groups: Sequence[str] | None,
    unread: Unread,
    holes: HoleCount,
    frames: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of an item; none of an image that cannot be read, those before the damage of a clip.

    Args:
        source: of the item.
        index: of the item.
        encoder: how frames are stored.
        groups: `source.groups()`.
        unread: receives what cannot be read.
        holes: counts the frames of clips whose depth is missing or damaged.
        frames: those to take; None for all.

    Raises:
        DepthUnitError, LabelError, ConfigError: the data set was described wrongly. OSError: the disk is full.
    """
    key = f"sample {index}"
    damaged: list[int] = []
    try:
        handle = source[index]
        key = handle.key
        sequence = sequence_of(None if groups is None else groups[index], handle)
        yield from encoder.rows(handle, sequence, frames, holes, damaged)
    except (DepthUnitError, LabelError):
        raise
    except (DataError, OSError) as error:
        if getattr(error, "errno", None) in _DISK_ERRORS:
            raise
        unread.skipped[index] = unreadable(error, key)
    if damaged:
        unread.damaged[index] = damaged
