"""What every task of prediction provides; `running` drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.picture_files_m33d import read_picture
from m33d_hf.modeling.video_reading_m33d import VideoInfo


class FrameSink(Protocol):
    """Takes what is predicted of the frames of one video, in order, and can go on where an earlier run stopped."""

    next_frame: int

    def append(self, prepared: Any, result: Any) -> None:
        """The next frame, as it was prepared, and what is predicted of it."""

    def finish(self) -> None:
        """All frames are there."""

    def discard(self) -> None:
        """The video cannot be read to its end: remove what was written of it."""


class PredictionTask(ABC):
    """One model, and the files that are written of what it predicts.

    Attributes:
        task: its name, as in `loading.AUTO_CLASSES`.
        known: kinds of output (folders, mostly) and what they hold.
        usual_pictures, usual_videos: kinds that are written unless the user chooses.
        reads_clips: the model sees clips, so that videos are the items and pictures are their frames.
        together: inputs that are computed together; None for the batch size.
        threads: that read, and that write; None for those of the options.
        reads_options: those of `options.PARTICULAR` that have a say.
        turned: pictures that their EXIF data says to turn, so far.
    """

    task: ClassVar[str]
    known: Mapping[str, str]
    usual_pictures: ClassVar[tuple[str, ...]]
    usual_videos: ClassVar[tuple[str, ...]]
    reads_clips: ClassVar[bool] = False
    together: ClassVar[int | None] = None
    threads: ClassVar[int | None] = None
    reads_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, options: PredictionOptions) -> None:
        """Take the options.

        Raises:
            ConfigError: a kind of output that the task does not have, or an option that it does not read.
        """
        options.refuse_unread(self.task, self.reads_options)
        self.options = options
        self.output = Path(options.output)
        self.of_pictures = tuple(
            kind for kind in options.kinds(self.known, self.usual_pictures) if kind != "videos" or self.reads_clips
        )
        self.of_videos = options.kinds(self.known, self.usual_videos)
        self.turned = 0
        self.notes: list[str] = []

    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What two calls that write into one folder must have in common; JSON values."""

    @abstractmethod
    def describe(self) -> str:
        """Model, unit and device, in one line."""

    def begin(self, items: Sequence[Item]) -> None:  # noqa: B027 - most have nothing to do
        """Called once the output folder is ours, before the first item."""

    @abstractmethod
    def is_done(self, item: Item) -> bool:
        """Whether every file of an item is there."""

    def prepare(self, item: Item) -> Any:
        """Read a picture; from several threads.

        Raises:
            DataError: it cannot be read.
        """
        pixels, orientation = read_picture(item.path)
        self.turned += orientation != 1
        return self.look(np.ascontiguousarray(pixels))

    @abstractmethod
    def look(self, pixels: np.ndarray) -> Any:
        """Model inputs of a picture or a frame, (H, W, 3) uint8; from several threads."""

    @abstractmethod
    def compute(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """What the model predicts of several pictures."""

    @abstractmethod
    def write(self, item: Item, prepared: Any, result: Any) -> None:
        """The files of a picture; from several threads."""

    @abstractmethod
    def frames(self, item: Item) -> FrameSink:
        """Where the predictions of a video's frames go."""

    def render(self, item: Item, info: VideoInfo, step: Callable[[], None]) -> None:  # noqa: B027
        """Files of a video that need the predictions of all of its frames; `step` is called after every frame."""

    def finish(self, items: Sequence[Item]) -> None:  # noqa: B027
        """Tables over all items."""

    def closing(self) -> list[str]:
        """What the user should know in the end, beyond which files are where."""
        turned = f"Pictures that are stored turned (EXIF): {self.turned}; what is written of them is upright."
        return [*self.notes, *([turned] if self.turned else [])]

    def path(self, kind: str, item: Item, suffix: str) -> Path:
        """The file of one kind of an item."""
        return self.output / kind / f"{item.name}{suffix}"

    def kinds_of(self, item: Item) -> tuple[str, ...]:
        """Kinds of output of an item."""
        return self.of_videos if item.is_video else self.of_pictures
