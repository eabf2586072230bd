"""Counts the frames of clips whose depth is missing or damaged: they are holes, as pixels are that a sensor could not
measure.

A reader of clips leaves what it found in the sample's meta (`m33d_hf.data.sample.holes_of`); a picture of its own
without its depth is none of these, but unpaired or unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sample import Hole, RGBDSample, holes_of
from m33d_hf.errors import CorruptFileError

# A recorder may lose a frame or two at the end of one of its files; more is another clock.
_SHARE_WITHOUT_PARTNER = 0.02
_FRAMES_WITHOUT_PARTNER = 3


@dataclass
class HoleCount:
    """Counts the frames of clips that were read with depth, and those of them that lack it.

    Attributes:
        frames: frames that were read, each as often as it was.
        holes: how many of them lack depth.
        first: one of these, by its file and what is wrong.
    """

    frames: int = 0
    holes: int = 0
    first: tuple[str, str] | None = None

    def add(self, frames: int, holes: Iterable[Hole]) -> None:
        """Count some frames."""
        self.frames += frames
        for hole in holes:
            self.holes += 1
            self.first = self.first or (hole.path, hole.reason)

    def add_sample(self, sample: RGBDSample) -> None:
        """Count a sample as it was read; one that never has depth counts for nothing."""
        holes = holes_of(sample)
        if sample.depth is not None or holes:
            self.add(sample.num_frames, holes)

    def merge(self, other: HoleCount) -> None:
        """Add another count to this one."""
        self.frames += other.frames
        self.holes += other.holes
        self.first = self.first or other.first

    def words(self) -> str:
        """A sentence; empty where nothing was missing."""
        if self.first is None:
            return ""
        path, reason = self.first
        what = f"the depth of {self.holes} of {plural(self.frames, 'frame')} read is missing or damaged"
        return f"{what}: {agree(self.holes, 'it is a hole', 'they are holes')}; the first: {path}: {reason.rstrip('.')}"


def frames_without_partner(count: int) -> int:
    """How many frames at the end of a recording may lack their depth before it counts as that of other frames.

    Args:
        count: frames of its video.
    """
    return max(_FRAMES_WITHOUT_PARTNER, round(_SHARE_WITHOUT_PARTNER * count))


def first_number(numbers: Collection[int], video: object, count: int, lost: float) -> int:
    """The number that a video's first frame has in the names of its depth: 0, or 1 where they say that it is.

    ffmpeg numbers pictures from 1; then the lowest number is 1 and the highest that of the last frame, which a video
    whose frames count from 0 does not have.

    Args:
        numbers: those of the depth files.
        video: for messages.
        count: frames of the video that there are.
        lost: those that are missing behind them (`frames_lost_at_the_end`).

    Raises:
        CorruptFileError: of the video: numbers from 1, and nobody knows how many frames it had.
    """
    if not numbers or min(numbers) != 1:
        return 0
    if lost == math.inf and max(numbers) >= count:
        raise CorruptFileError(
            video,
            "it was cut short and nothing says by how much, so that its first frame may be number 0 or 1 in the names "
            "of its depth, whose lowest number is 1; rename the depth files to count from 0",
        )
    return int(max(numbers) == count + lost)
