"""What was found in one video: its clips, from them its frames and segments, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.detection_metrics import segments
from m33d_hf.evaluation.frame_votes import frame_probabilities
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack


@dataclass(frozen=True)
class Stretch:
    """Frames [start, stop) that could not be read."""

    start: int
    stop: int
    reason: str


def add_stretch(found: list[Stretch], stretch: Stretch) -> None:
    """Append a stretch, which begins no earlier than those before; one that touches the last becomes part of it."""
    if found and found[-1].stop >= stretch.start:
        last = found.pop()
        stretch = Stretch(last.start, stretch.stop, last.reason)
    found.append(stretch)


@dataclass
class Detection:
    """The phases of one video.

    Attributes:
        path: the video.
        length: its frames.
        fps: frames per second, None where unknown.
        names: phases in id order.
        clips: in the order of time.
        unreadable: stretches that could not be read.
        times: when each frame is shown; None where unknown.
        lacks: what is missing of the recording.
        cameras: names of the cameras of the case; the first one is `path`; empty where a single video was given.
        notes: sentences on what further cameras lacked.
    """

    path: Path
    length: int
    fps: float | None
    names: list[str]
    clips: list[ClipPrediction]
    unreadable: list[Stretch]
    times: FrameTimes | None = None
    lacks: tuple[Lack, ...] = ()
    cameras: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def frame_probabilities(self, clipwise: bool = False) -> np.ndarray:
        """(length, L) mean over the readable clips that cover a frame, see `frame_votes`; NaN where none was read."""
        rows = np.stack([clip.clipwise if clipwise else clip.probabilities for clip in self.clips])
        return frame_probabilities(rows, *self._places(), self.length)

    def frame_phases(self, clipwise: bool = False) -> np.ndarray:
        """(length,) uint8 phase ids, 255 for frames whose only clips could not be read."""
        starts, stops, readable = self._places()
        found = self.frame_probabilities(clipwise)
        lost, covered = np.zeros(self.length, bool), np.zeros(self.length, bool)
        for start, stop, good in zip(starts, stops, readable):
            (covered if good else lost)[start:stop] = True
        phases = np.nan_to_num(found).argmax(axis=1).astype(np.uint8)
        phases[lost & ~covered] = IGNORE_INDEX
        return phases

    def lost(self) -> list[tuple[int, int]]:
        """Runs [start, stop) of frames whose only clips could not be read."""
        gone = self.frame_phases() == IGNORE_INDEX
        return [(start, stop) for start, stop, _ in segments(np.where(gone, 0, IGNORE_INDEX))]

    def segments(self) -> list[tuple[int, int, str, float]]:
        """(start, stop, phase, mean probability of that phase) of every run of frames of one phase."""
        found = self.frame_probabilities()
        runs = segments(self.frame_phases())
        return [(start, stop, self.names[n], float(found[start:stop, n].mean())) for start, stop, n in runs]

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts = np.array([clip.start for clip in self.clips])
        stops = np.array([clip.stop for clip in self.clips])
        return starts, stops, np.array([clip.readable for clip in self.clips])
