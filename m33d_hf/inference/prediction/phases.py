"""Phases of long videos, as timelines; the files are those of `detect_actions`."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m33d_hf.data.plural import plural
from m33d_hf.inference.detection_files import detection_targets, write_detection
from m33d_hf.inference.loading import model_digest, usable_device
from m33d_hf.inference.prediction.base import FrameSink, PredictionTask
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import notes_of_unused_depth, refuse_unusable_depth
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.timeline import ActionDetector, Detection


class PhaseTask(PredictionTask):
    """Timelines of an action detection model."""

    task = "phases"
    reads_options = frozenset({"fps"})
    reads_clips = True
    together = threads = 1  # a video of hours fills batches by itself
    known: Mapping[str, str] = {
        "timelines": "a picture of every video's phases, and CSV tables of its segments and clips",
    }
    usual_pictures = usual_videos = ("timelines",)

    def __init__(self, options: PredictionOptions, local_rank: int = 0) -> None:
        super().__init__(options)
        device = usable_device(options.device, local_rank)
        self.detector = ActionDetector.from_pretrained(
            options.model, device=device, batch_size=options.batch_size, precision=options.precision
        )
        refuse_unusable_depth(options, self.detector.model, reads_maps=False)
        self.notes += notes_of_unused_depth(options, self.detector.model, reads_maps=False)
        self.digest = model_digest(self.detector.model)
        self._drawing = threading.Lock()  # matplotlib has settings of the whole process

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        return {"model_digest": self.digest, "fps": self.options.fps}

    def describe(self) -> str:
        """See the base class."""
        return f"{plural(len(self.detector.names), 'phase')} by {self.options.model} (m33d) on {self.detector.device}"

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        return all(path.is_file() for path in detection_targets(self.output / "timelines", item.name))

    def look(self, pixels: np.ndarray) -> Any:
        """Videos are streamed; see `prepare`."""
        raise TypeError(f"{type(self).__name__} streams videos")

    def prepare(self, item: Item) -> Detection:
        """The phases of a video: reading and computing cannot be told apart, since its clips are encoded as they come.

        Raises:
            CorruptFileError: no part of it can be read.
        """
        return self.detector.detect(item.path, self.options.fps)

    def compute(self, prepared: Sequence[Detection]) -> list[Detection]:
        """They are there."""
        return list(prepared)

    def write(self, item: Item, prepared: Detection, result: Detection) -> None:
        """See the base class."""
        with self._drawing:
            write_detection(self.output / "timelines", item.name, result)
        for stretch in result.unreadable:
            where = f"frames {stretch.start} to {stretch.stop - 1}"
            self.notes.append(f"{item.path}: {where} cannot be read: {stretch.reason}")

    def frames(self, item: Item) -> FrameSink:
        """Videos are streamed; see `prepare`."""
        raise TypeError(f"{type(self).__name__} streams videos")
