"""Annotations of single videos, for a look at them beside what was detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from m33d_hf.data.sample import VideoHandle, frame_times, known_lacks
from m33d_hf.data.sources.phases.alignment import PhaseNames, Timing, ends_are_inclusive, frame_phases
from m33d_hf.data.sources.phases.annotations import Annotation
from m33d_hf.data.sources.phases.files import find_annotations
from m33d_hf.data.sources.phases.numbering import first_number
from m33d_hf.data.sources.phases.reading import check_clock
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, LabelError, nearest_name_hint
from m33d_hf.inference.detection.cameras import CameraVideo
from m33d_hf.inference.detection.deep_clips import SourceVideo
from m33d_hf.inference.review.truth_options import TruthOptions, in_own_words
from m33d_hf.inference.timeline import Detection
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack, frames_lost_at_the_end

Video: TypeAlias = Path | SourceVideo | Sequence[CameraVideo]
"""A video, one with depth, or those of the cameras of a case."""


class Truth:
    """The annotations below a folder, or in one file, of some videos, counted as a training counts them.

    Args:
        place: folder or file, in any layout of `phases`.
        videos: name -> video.
        fps: frames per second where stated.
        options: what the files do not say of themselves.

    Attributes:
        by_name: name -> annotation of those that have one.

    Raises:
        ConfigError: no such place, or it has no annotation of any of the videos; options that contradict it, or are
            missing: whether numbers begin at 0 or 1, or what times of two parts are.
        DataError: annotations that cannot be read, or that contradict each other.
    """

    def __init__(
        self,
        place: str | Path,
        videos: Mapping[str, Video],
        fps: float | None = None,
        options: TruthOptions | None = None,
    ) -> None:
        place = Path(place).resolve()
        if not place.exists():
            raise ConfigError(f"--truth: {place} does not exist; give a file or a folder of annotations.")
        root = place if place.is_dir() else place.parent
        self._options = options = options or TruthOptions()
        deep = any(isinstance(video, SourceVideo) for video in videos.values())
        self._rate = "--options fps" if deep else "--fps"  # what states it
        with in_own_words(self._rate):
            found = find_annotations(root, list(videos), str(place), options.reading)
            self.by_name: Mapping[str, Annotation] = found.by_key
            if not self.by_name:
                raise ConfigError(
                    f"--truth: {place} has no annotation of any of the videos ({', '.join(list(videos)[:3])}, ...); "
                    "annotations have the name of their video, such as NAME.txt, NAME-phase.csv or NAME_segments.srt."
                )
            # Those of other videos tell how a data set counts, too, as in training.
            others = {f"{number}, {each.path}": each for number, each in enumerate(found.others)}
            inclusive, _ = ends_are_inclusive(found.all, options.segment_end)
            self._rules = Timing(0, fps, options.label_fps, options.length_tolerance, inclusive)
            self._timings = {name: self._timing_of(videos[name]) for name in self.by_name}
            check_clock(self.by_name, self._timings.get)
            first, _ = first_number({**self.by_name, **others}, self._timings.get, options.label_start)
            self._rules = replace(self._rules, first=first)

    def check(self, names: Sequence[str]) -> dict[str, DataError | ConfigError]:
        """Look, before hours go into detection, for phases that the model does not know and for annotations that do not
        fit their video.

        Args:
            names: of the model's phases.

        Returns:
            Video -> what is wrong with its annotation, naming the file, and what would mend it.

        Raises:
            LabelError, DataError, ConfigError: there is none that can be shown; what is wrong with the first.
        """
        wrong: dict[str, DataError | ConfigError] = {}
        for name, annotation in self.by_name.items():
            timing = self._timings[name]
            try:
                with in_own_words(self._rate):
                    ids = self._ids(annotation, names)
                    if timing is not None:
                        frame_phases(annotation, ids, replace(timing, first=self._rules.first), name)
            except (DataError, ConfigError) as error:
                wrong[name] = error
        if len(wrong) == len(self.by_name):
            raise next(iter(wrong.values()))
        return wrong

    def phases(self, name: str, detection: Detection) -> np.ndarray | None:
        """(length,) uint8 phase of every frame, 255 where nothing is annotated; None without an annotation.

        Raises:
            LabelError: a phase that the model does not know.
            DataError: an annotation that does not fit the video.
            ConfigError: times, and nothing says how long a frame lasts.
        """
        annotation = self.by_name.get(name)
        if annotation is None:
            return None
        with in_own_words(self._rate):
            ids = self._ids(annotation, detection.names)
            timing = self._timing(detection.length, detection.fps, detection.times, detection.lacks)
            return frame_phases(annotation, ids, timing, name)

    def _ids(self, annotation: Annotation, names: Sequence[str]) -> np.ndarray:
        ignored = self._options.ignored
        for phase in annotation.names:
            if phase not in names and phase not in ignored:
                hint = nearest_name_hint(phase, names)
                raise LabelError(
                    f"{annotation.place_of(phase)}: the phase {phase!r} is none of the model's: "
                    f"{', '.join(names)}.{hint}"
                )
        return PhaseNames(tuple(names), ignored=ignored).ids(annotation)

    def _timing_of(self, video: Video) -> Timing | None:
        """Frames and rates of a video, of a case those of the camera that leads; None where it cannot be read, which
        is said when its turn comes."""
        stated = self._rules.fps
        handles: list[VideoHandle]
        if isinstance(video, SourceVideo):
            handles = [each.source.videos[each.number].handle for each in video.cameras]
        elif isinstance(video, Path):
            handles = [VideoFile(video.name, video, stated_fps=stated)]
        else:
            handles = [VideoFile(each.name, each.path, stated_fps=stated) for each in video]
        for handle in handles:
            try:
                return self._timing(handle.length, handle.fps, frame_times(handle), known_lacks(handle))
            except CorruptFileError:
                continue
        return None

    def _timing(self, length: int, fps: float | None, times: FrameTimes | None, lacks: tuple[Lack, ...]) -> Timing:
        rate = self._rules.fps or fps or (times.fps if times is not None else None)
        lacking = "; ".join(lack.reason for lack in lacks)
        lost = frames_lost_at_the_end(lacks, length)
        return replace(self._rules, num_frames=length, fps=rate, times=times, lacking=lacking, lost=lost)
