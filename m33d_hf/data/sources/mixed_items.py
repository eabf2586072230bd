"""Items of the members of a mixture under its own names, and their label maps together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from m33d_hf.data.sample import RGBDSample, VideoHandle, read_sample
from m33d_hf.data.source import LabelMaps
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack


class JoinedLabels:
    """The label maps of several members, one after the other."""

    def __init__(self, parts: Sequence[LabelMaps]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, number: int) -> tuple[np.ndarray | None, np.ndarray, bool] | None:
        """As the member says; raises as it does."""
        part = bisect_right(self._ends, number)
        return self.parts[part].read(number - (self._ends[part] - len(self.parts[part])))


@dataclass(frozen=True)
class MixedHandle:
    """An item of a member under the mixture's name for it."""

    handle: VideoHandle
    member: str
    repetition: int = 0

    def _named(self, key: str) -> str:
        return f"{self.member}/{key}" + (f"#{self.repetition}" if self.repetition else "")

    @property
    def key(self) -> str:
        """MEMBER/KEY, with #N for a repetition."""
        return self._named(self.handle.key)

    @property
    def sequence(self) -> str | None:
        """MEMBER/SEQUENCE that a clip is a window of, where the item says so."""
        own = getattr(self.handle, "sequence", None)
        return None if own is None else f"{self.member}/{own}"

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.handle.length

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        return self.handle.fps

    @property
    def times(self) -> FrameTimes | None:
        """Presentation times, where the item has them."""
        return getattr(self.handle, "times", None)

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What is missing from a video."""
        return tuple(getattr(self.handle, "lacks", ()))

    @property
    def file(self) -> str:
        """What lists of skipped files call it."""
        return str(getattr(self.handle, "file", self.handle.key))

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames; raises as the member's handle."""
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, with the named maps only; maybe not aligned yet."""
        sample = read_sample(self.handle, indices, maps, align=False)
        return replace(sample, key=self._named(sample.key), meta={**sample.meta, "member": self.member})
