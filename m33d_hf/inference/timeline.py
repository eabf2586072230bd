"""Phases of videos of any length: frames are streamed, clips encoded as they complete, only their features are kept.

A causal model can also follow a video that is still being recorded, see `live_detector`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.files.skips import SkipLedger
from m33d_hf.data.plural import plural
from m33d_hf.data.progress import Say
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import CheckpointError
from m33d_hf.inference.detection.camera_clips import RecordedView, detected, see_cameras
from m33d_hf.inference.detection.cameras import Given, given_cameras
from m33d_hf.inference.detection.deep_clips import SourceVideo, deep_detection
from m33d_hf.inference.detection.detections import Detection, Stretch
from m33d_hf.inference.detection.trained_geometry import trained_geometry
from m33d_hf.inference.live_detector import LiveDetector
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.weights.files import whole_weights

__all__ = ["ActionDetector", "Detection", "Stretch"]


class ActionDetector(LiveDetector):
    """Finds phases in video files and frame folders.

    Args:
        model: a trained second stage; its configuration remembers how its clips were cut.
        options: geometry of the frames (`eval_crop`, `resize_mode`), as in its training.
        device: where to compute.
        batch_size: clips per forward pass.
        precision: of the encoder, "no" (float32), "bf16" or "fp16".
        frames: reads a video; None takes `iterate_wanted`.
    """

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> ActionDetector:
        """Load the output folder of `run_action_detection.py`, or what was published of it, with the frame geometry of
        that run (see `trained_geometry`).

        Raises:
            CheckpointError: the folder holds no trained detection, or a damaged one; a first stage alone is none.
        """
        try:
            with whole_weights(folder):
                loaded: Any = M33DForVideoActionDetection.from_pretrained(folder, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} holds no trained action detection model: {error}") from error
        model, info = loaded
        if info["missing_keys"]:
            first = sorted(info["missing_keys"])[0]
            raise CheckpointError(
                f"{folder} holds no trained action detection model: it lacks "
                f"{plural(len(info['missing_keys']), 'weight')}, such as {first!r}. Train one with "
                f"run_action_detection.py --init_from {folder}."
            )
        return cls(model, trained_geometry(folder, model.config), **options)

    def detect(
        self,
        path: Given,
        fps: float | None = None,
        say: Say | None = None,
        work: str = "",
        offsets: Mapping[str, float] | None = None,
    ) -> Detection:
        """Find the phases of a video, or of the videos of several cameras that show one case at the same time.

        The first camera that can be read leads: its frames are counted, its clips are cut, and those of the others
        begin with them. What one does not show, or what cannot be read of it, is left to the others.

        Args:
            path: a video file or a folder of frames; several, of one camera each; or camera -> video. A model that
                reads cameras side by side takes a list of all of them in its order, or a mapping, in which some may be
                missing.
            fps: frames per second, evenly; None takes the times of the file's frames.
            say: receives lines of progress; None says nothing.
            work: begins these lines.
            offsets: camera -> seconds from the beginning of the case's clock to its first frame; 0 where not given.

        Raises:
            ConfigError: other cameras than the model knows; see `given_cameras`.
            DataError: nothing tells how the frames of two cameras lie beside each other.
            CorruptFileError: no part of it can be read.
        """
        cameras = given_cameras(path, self.model.config.temporal_cameras, offsets)
        seen = see_cameras(self, [RecordedView(self, camera, fps) for camera in cameras], say, work)
        return detected(self, seen, several=not isinstance(path, (str, Path)), rate=None)

    def detect_source(
        self,
        source: PhaseSource,
        number: int,
        say: Say | None = None,
        work: str = "",
        ledger: SkipLedger | None = None,
    ) -> Detection:
        """Find the phases of a video with depth beside it, by all inputs of the model, read as training reads it.

        Args:
            source: such as `build_source("phases", root=..., unit="videos", annotations="none")`.
            number: of the video in `source.videos`; of a case by several cameras that of its first one. They are fused
                as `detect` does, each by all inputs of the model.
            say: receives lines of progress; None says nothing.
            work: begins these lines.
            ledger: lists the depth that is missing or damaged, a hole in its clips; None only counts it.

        Raises:
            ConfigError: other cameras than the model knows, or a further camera of a case.
            DataError: nothing tells how the frames of two cameras lie beside each other.
            CorruptFileError: no part of it can be read.
        """
        return deep_detection(self, SourceVideo(source, number), say, work, ledger)
