"""What every reader of an on-disk format offers: a list of lazily read videos (an image is a video of one frame)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from m33d_hf.data.sample import VideoHandle

if TYPE_CHECKING:
    from m33d_hf.modeling.depth_m33d import DepthSpec


@dataclass(frozen=True)
class Unpaired:
    """A file that takes no part, and why."""

    path: str
    reason: str


class LongVideo(Protocol):
    """A whole video behind the clips of a source."""

    @property
    def key(self) -> str:
        """Stable name of the video, that of its handle."""

    @property
    def handle(self) -> VideoHandle:
        """Reads its frames."""


class Source(ABC):
    """A data set as it lies on disk: it reads and aligns, and settles units; it never augments.

    A subclass says its length, its items and its digest, and its constructor annotates every option: that is all. The
    attributes below have defaults; whoever has more to tell sets them.

    Attributes:
        name: the name under which messages and digests know it.
        class_names: names of the segmentation classes, in id order; None without segmentation labels.
        action_names: names of the clip labels, in id order; None without clip labels.
        depth_spec: unit and kind of the depth that `VideoHandle.read` returns; None without depth.
        root: the folder that it reads; None where samples are made up.
        notes: sentences about what was found and assumed, for logs and the dry run.
        unpaired: files (relative to `root`) that take no part; listed in skipped_files.csv.
        items_have_labels: False where the items carry no clip label although there are `action_names` (whole videos).
        class_table: the classes with the numbers that annotations write for them (`labels.class_table.ClassTable`);
            None where those are not known.
        clip_span: source frames of each item, where the source cuts long videos into clips.
        videos: the whole videos behind the items, where items are clips of them.
        incomplete: key of a video -> what it and its annotation lack.
    """

    name: str = "source"
    class_names: list[str] | None = None
    action_names: list[str] | None = None
    depth_spec: DepthSpec | None = None
    root: Path | None = None
    notes: Sequence[str] = ()
    unpaired: Sequence[Unpaired] = ()
    items_have_labels: bool = True
    class_table: Any = None
    clip_span: int | None = None
    videos: Sequence[LongVideo] | None = None
    incomplete: Mapping[str, str] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Number of videos or images."""

    @abstractmethod
    def __getitem__(self, index: int) -> VideoHandle:
        """Handle number `index`: cheap, nothing is decoded before its `read`.

        Raises:
            IndexError: `index` lies outside the source.
        """

    @abstractmethod
    def digest(self) -> str:
        """Hexadecimal digest of the content (or, for large trees, of the listing): equal data, equal digest."""

    def labels(self) -> list[int] | None:
        """Clip label of every item, 255 for none; None where that is not known before reading."""
        return None

    def groups(self) -> list[str] | None:
        """Key of the video behind every item: low-label draws take videos. None: each item is one of its own."""
        return None
