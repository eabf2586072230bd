"""Annotations of single videos, for a look at them beside what was detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from m33d_hf.data.sources.phases.alignment import PhaseNames, Timing, ends_are_inclusive, frame_phases
from m33d_hf.data.sources.phases.annotations import Annotation
from m33d_hf.data.sources.phases.files import find_annotations
from m33d_hf.errors import ConfigError, LabelError, nearest_name_hint
from m33d_hf.inference.timeline import Detection


class Truth:
    """The annotations below a folder, or in one file, of some videos.

    Args:
        place: folder or file, in any layout of `phases`.
        videos: names of the videos.

    Attributes:
        by_name: name -> annotation of those that have one.

    Raises:
        ConfigError: no such place, or it has no annotation of any of the videos.
        DataError: annotations that cannot be read.
    """

    def __init__(self, place: str | Path, videos: Sequence[str]) -> None:
        place = Path(place).resolve()
        if not place.exists():
            raise ConfigError(f"--truth: {place} does not exist; give a file or a folder of annotations.")
        root = place if place.is_dir() else place.parent
        self.by_name: Mapping[str, Annotation] = find_annotations(root, list(videos), str(place)).by_key
        if not self.by_name:
            raise ConfigError(
                f"--truth: {place} has no annotation of any of the videos ({', '.join(list(videos)[:3])}, ...); "
                "annotations have the name of their video, such as NAME.txt, NAME-phase.csv or NAME_segments.srt."
            )
        self._inclusive, _ = ends_are_inclusive(list(self.by_name.values()))

    def check(self, names: Sequence[str]) -> dict[str, LabelError]:
        """Look, before hours go into detection, for phases that the model does not know.

        Args:
            names: of the model's phases.

        Returns:
            Video -> what is wrong with its annotation, naming the file, its line and the phase.

        Raises:
            LabelError: every annotation has such a phase; that of the first.
        """
        wrong: dict[str, LabelError] = {}
        for name, annotation in self.by_name.items():
            try:
                self._check(annotation, names)
            except LabelError as error:
                wrong[name] = error
        if len(wrong) == len(self.by_name):
            raise next(iter(wrong.values()))
        return wrong

    @staticmethod
    def _check(annotation: Annotation, names: Sequence[str]) -> None:
        for phase in annotation.names:
            if phase not in names:
                hint = nearest_name_hint(phase, names)
                raise LabelError(
                    f"{annotation.place_of(phase)}: the phase {phase!r} is none of the model's: "
                    f"{', '.join(names)}.{hint}"
                )

    def phases(self, name: str, detection: Detection) -> np.ndarray | None:
        """(length,) uint8 phase of every frame, 255 where nothing is annotated; None without an annotation.

        Raises:
            LabelError: a phase that the model does not know.
            DataError: an annotation that does not fit the video.
        """
        annotation = self.by_name.get(name)
        if annotation is None:
            return None
        self._check(annotation, detection.names)
        ids = PhaseNames(tuple(detection.names)).ids(annotation)
        timing = Timing(detection.length, detection.fps, inclusive=self._inclusive, times=detection.times)
        return frame_phases(annotation, ids, timing, name)
