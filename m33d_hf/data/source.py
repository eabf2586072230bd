"""The interface of every reader of an on-disk format: a list of lazily read videos (an image is a video of one
frame)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from m33d_hf.data.sample import VideoHandle

if TYPE_CHECKING:
    import numpy as np

    from m33d_hf.modeling.depth_m33d import DepthSpec


@dataclass(frozen=True)
class Unpaired:
    """A file that is not used, and why; `damaged` if that is because all or part of it cannot be read."""

    path: str
    reason: str
    damaged: bool = False


class LongVideo(Protocol):
    """A whole video behind the clips of a source."""

    @property
    def key(self) -> str:
        """Stable name of the video, that of its handle."""

    @property
    def group(self) -> str:
        """What splits and shares of labels keep together: the case that it shows, else its key."""

    @property
    def handle(self) -> VideoHandle:
        """Reads its frames."""


class LabelMaps(Protocol):
    """The label maps of some items, to be looked into before training."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[np.ndarray | None, np.ndarray, bool] | None:
        """Stored values (H, W), None where they are colours; class ids (H, W) uint8; whether stored 255 is ignored
        although no option speaks of it. None if there is no map.

        Raises:
            CorruptFileError: it cannot be decoded. LabelError: values outside the classes.
        """


class Source(ABC):
    """A data set as it lies on disk: it reads and aligns, and settles units; it never augments.

    A subclass defines its length, its items and its digest, and its constructor annotates every option; nothing else is
    required. The attributes below have defaults and may be set.

    Attributes:
        name: its name in messages and digests.
        class_names: names of the segmentation classes, in id order; None without segmentation labels.
        action_names: names of the clip labels, in id order; None without clip labels.
        depth_spec: unit and kind of the depth that `VideoHandle.read` returns; None without depth.
        root: the folder that it reads; None if samples are generated.
        notes: sentences about what was found and assumed, for logs and the dry run.
        unpaired: files (relative to `root`) that are not used; listed in skipped_files.csv.
        items_have_labels: False if the items have no clip label although there are `action_names` (whole videos).
        class_table: the classes with their numbers in annotations (`labels.class_table.ClassTable`); None if unknown.
        clip_span: source frames per item, if the source cuts long videos into clips.
        videos: the whole videos behind the items, if items are clips of them.
        group_word: what `groups` names, in the plural, for messages.
        incomplete: key of a video -> what is missing from it and its annotation.
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
    group_word: str = "videos"
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

    def unlabelled_digest(self) -> str:
        """As `digest`, of what is left without labels: which samples there are, their pictures and depth.

        Where labels cannot be told apart, as here, or there are none, it is `digest`.
        """
        return self.digest()

    def labels(self) -> list[int] | None:
        """Clip label of every item, 255 for none; None if labels are unknown before reading."""
        return None

    def groups(self) -> list[str] | None:
        """Key of the video behind every item: low-label draws take whole videos. None: each item is a separate
        video."""
        return None

    def keys(self) -> list[str] | None:
        """Key of every item, where the source knows them without asking each; None: ask the items."""
        return None

    def root_of(self, index: int) -> Path | None:
        """The folder in which an item's files lie; None where it has none. `root`, unless the source joins several."""
        return self.root

    def label_maps(self, rows: Sequence[int]) -> LabelMaps | None:
        """The label maps of some items; None without any."""
        return None

    def prefetch(self, items: Sequence[int]) -> None:
        """Items that will be read next; a source whose reads wait for a network may fetch them side by side. Nothing by
        default."""
        return
