# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What is known about a video file before frames are read: its frames' time stamps and where decoding can start."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .video_times_m33d import FrameTimes, Lack, missing_between, missing_end, missing_start, times_of


@dataclass(frozen=True)
class VideoIndex:
    """The frames of one video stream in display order.

    Attributes:
        count: number of frames.
        pts: time stamp of every frame, ascending (a `range` for constant frame rates); empty where stamps cannot be
            trusted, as in AVI files with B-frames: then frames are counted from the start of the file.
        keys: (time stamp, the one to seek to, place in the file) of the frames at which decoding can start, ascending;
            the place is None where seeks need no check.
        skipped: frames that come out of the decoder before frame 0 (only used without time stamps).
        seekable_by_number: every start point has the same number in decoding and in display order and nothing is
            hidden by an edit list; decord's random access is right only then.
        container: FFmpeg's name of the file format.
        whole: the container is as its header says and no packet is damaged; on others decord can abort the process.
        counted: `count` was checked by decoding the end of the file; before that it may promise too much.
        rotation: quarter turns, counter-clockwise, that make the picture upright.
        tick: seconds per unit of `pts`.
        last: how long the last frame is shown, in ticks; 0 when unknown.
        lost: frames before frame 0 that have a time stamp and do not decode.
        announced: seconds from frame 0 to the end that the file's header states; None where it states none.
        breaks_off: the file ends inside a packet, and nothing says how long it was.
    """

    count: int
    pts: Sequence[int] = ()
    keys: tuple[tuple[int, int, int | None], ...] = ()
    skipped: int = 0
    seekable_by_number: bool = False
    container: str = ""
    whole: bool = False
    counted: bool = False
    rotation: int = 0
    tick: Fraction | None = None
    last: int = 0
    lost: int = 0
    announced: float | None = None
    breaks_off: bool = False

    def times(self, fps: float | None) -> FrameTimes | None:
        """When each frame is shown: by its stamp, or without stamps one every 1 / `fps`; None when neither is known."""
        if self.pts and self.tick:
            return times_of(self.pts, self.tick, fps, self.last)
        return FrameTimes(self.count, fps) if fps else None

    def lacks(self, times: FrameTimes | None) -> list[Lack]:
        """What is missing of the video, in the order of time; only to be asked of a `counted` index."""
        if times is None:
            return []
        # The stamps of MP4 and MOV lie in a table of their own: a hole there is a pause, not a loss.
        between = missing_between(times) if self.container != "mov" else []
        found = [*missing_start(times, self.lost), *between, *missing_end(times, self.announced)]
        if self.breaks_off and not (found and found[-1].after == self.count):
            reason = "the file ends inside a packet: it was truncated, and its original length is unknown"
            found.append(Lack(times.duration, None, 0, self.count, reason))
        return found

    def number_of(self, stamp: int | None) -> int:
        """The frame with this time stamp, -1 when there is none."""
        if stamp is None:
            return -1
        number = bisect_left(self.pts, stamp)
        return number if number < len(self.pts) and self.pts[number] == stamp else -1

    def key_before(self, number: int) -> int:
        """Place in `keys` of the last start point at or before a frame, -1 when there is none."""
        if not self.pts:
            return -1
        return bisect_right(self.keys, (self.pts[number], float("inf"))) - 1

    def number_of_key(self, key: int) -> int:
        """Number of the first frame at or after a start point."""
        return bisect_left(self.pts, self.keys[key][0])


def compact(stamps: Sequence[int]) -> Sequence[int]:
    """Ascending stamps as a `range` where they are evenly spaced (an hour of video has 90,000), else an array."""
    if len(stamps) > 1:
        even = range(stamps[0], stamps[-1] + 1, stamps[1] - stamps[0])
        if len(even) == len(stamps) and all(a == b for a, b in zip(even, stamps)):
            return even
    return array("q", stamps)
