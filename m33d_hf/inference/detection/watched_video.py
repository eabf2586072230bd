"""Every frame of a video in order, also of one that is damaged: what cannot be read is told, and the rest is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import CorruptFileError
from m33d_hf.inference.detection.detections import Stretch, add_stretch

Frames = Callable[[Path, int], Iterable[tuple[int, np.ndarray | None]]]
"""(path, first frame) -> (frame number, (H, W, 3) uint8 RGB) to the end; CorruptFileError at a frame that fails. Frames
that no clip takes may be None."""


class WatchedVideo:
    """Every frame of a video in order, None for those that cannot be read.

    After a failure the next frame that can be read is looked for in doubling steps, then halved back, so that a long
    damaged stretch costs few attempts.

    Attributes:
        length: frames told so far.
        unreadable: stretches met so far.
    """

    def __init__(self, path: Path, frames: Frames) -> None:
        self.path, self.frames = path, frames
        info = cached_info(path)
        self.total, self.times, self.lacks = info.num_frames, info.times, info.lacks
        self.length = 0
        self.unreadable: list[Stretch] = []

    def __iter__(self) -> Iterator[tuple[int, np.ndarray | None]]:
        while self.length < self.total:
            try:
                for number, frame in self.frames(self.path, self.length):
                    self.length = number + 1
                    yield number, frame
                if self.length < self.total:
                    lacking = Stretch(self.length, self.total, "the video ends before its announced length")
                    add_stretch(self.unreadable, lacking)
                return
            except CorruptFileError as error:
                first, reason = self.length, error.reason
            self.length = self._next_readable(first + 1)
            add_stretch(self.unreadable, Stretch(first, self.length, reason))
            yield from ((number, None) for number in range(first, self.length))

    def _next_readable(self, first: int) -> int:
        """The first frame from `first` on that can be read, as far as probing tells; the end where none can."""
        low, place, step = first, first, 1
        while place < self.total and not self._reads(place):
            low, place, step = place + 1, min(place + step, max(self.total - 1, place + 1)), 2 * step
        high = min(place, self.total)
        while low < high and high < self.total:
            middle = (low + high) // 2
            if self._reads(middle):
                high = middle
            else:
                low = middle + 1
        return high

    def _reads(self, number: int) -> bool:
        try:
            return next(iter(self.frames(self.path, number)), None) is not None
        except CorruptFileError:
            return False
