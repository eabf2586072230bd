"""Clips of a video, encoded as they complete: frames are read ahead by a thread, and only features are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from m33d_hf.acceleration import place
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.progress import SECONDS_BETWEEN_LINES, Progress, Say
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.inference.detection.detections import Stretch
from m33d_hf.inference.detection.watched_video import Frames, WatchedVideo
from m33d_hf.inference.live.clips import Clip, ClipAssembler, ClipPrediction
from m33d_hf.inference.live.feed import Encoded
from m33d_hf.modeling.sequences_m33d import State
from m33d_hf.modeling.video_reading_m33d import iterate_wanted
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.modeling.video_times_m33d import FrameTimes
from m33d_hf.training.tasks.detection.feature_extraction import encode
from m33d_hf.training.tasks.detection.features import ClipRule
from m33d_hf.training.tasks.detection.first_stage import known_phases

# Batches that wait for the model: enough to bridge a slow stretch of the file, and memory stays constant.
BATCHES_AHEAD = 2
# Frames that wait to be resized, as they were decoded: few, as they are large.
FRAMES_AHEAD = 4

Told = TypeVar("Told", bound=tuple[Any, ...])


class Assembler(Protocol):
    """Makes clips of frames that come in order."""

    def takes(self, number: int) -> bool:
        """Whether a clip takes this frame."""

    def push(self, number: int, frame: Tensor | None) -> list[Clip]:
        """The clips that end with this frame, (3, H, W) uint8; None where it could not be read."""

    def finish(self, length: int) -> list[Clip]:
        """The clips that the end of the video, after so many frames, cuts short."""


class _Batch(NamedTuple):
    """Clips on their way to the model.

    Attributes:
        clips: without their frames.
        read: which of them could be read.
        frames: (B, T, 3, H, W) uint8 of these; None where none could be.
    """

    clips: list[Clip]
    read: list[bool]
    frames: Tensor | None

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> _Batch:
        """Clips with their frames, which are copied: in the thread that reads, not in the one that computes."""
        frames = [clip.frames for clip in clips if clip.frames is not None]
        bare = [Clip(clip.start, clip.stop, None) for clip in clips]
        return cls(bare, [clip.frames is not None for clip in clips], torch.stack(frames) if frames else None)


class ClipEncoder:
    """A detector's first half: frames to clips to features. See `ActionDetector` for its arguments."""

    def __init__(
        self,
        model: M33DForVideoActionDetection,
        options: TransformOptions | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 8,
        precision: str = "no",
        frames: Frames | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        config: Any = model.config
        self.device, self.batch_size, self.precision = torch.device(device), batch_size, precision
        self.model: M33DForVideoActionDetection = place(model, self.device).eval()
        self.names = list(known_phases(config))
        span = config.num_frames * config.temporal_frame_stride
        self.rule = ClipRule(config.num_frames, config.temporal_frame_stride, config.temporal_clip_stride or span)
        self.transform = build_transform(
            options or TransformOptions(), False, config.image_height_width, config.patch_height_width
        )
        self._frames = frames

    @property
    def feature_width(self) -> int:
        """D of the features of a clip by one camera."""
        return int(self.model.config.hidden_size)

    def check_rgb(self) -> None:
        """Refuse to look at RGB alone with a model that does not see it.

        Raises:
            ConfigError: it sees depth alone.
        """
        if "rgb" not in self.model.task_inputs:
            raise ConfigError(
                "this model sees depth alone, but the frames of a video file are RGB; for videos with depth beside "
                "them use detect_source, or detect_actions.py --depth."
            )

    def watched(self, path: Path, takes: Callable[[int], bool] | None = None) -> WatchedVideo:
        """A video whose frames are read where a clip takes them; by default a clip of its own."""
        self.check_rgb()
        if self._frames is not None:
            return WatchedVideo(path, self._frames)
        wanted = takes or self.rule.takes
        return WatchedVideo(path, lambda path, start: iterate_wanted(path, wanted, start, cached_info(path)))

    def stream(self, video: WatchedVideo, assembler: Assembler | None = None) -> Iterator[Encoded]:
        """(clip without frames, features (D,), clip-wise logits (L,)) in the order of time; None where unreadable.

        Frames are read by one thread and resized and cut into clips by another, while the model works on the clips
        before: where the model is fast, decoding alone decides how long it takes.

        Args:
            video: see `watched`.
            assembler: makes the clips; None cuts them by the rule of the model.
        """
        with read_ahead(self._batches(video, assembler or ClipAssembler(self.rule)), BATCHES_AHEAD) as batches:
            for batch in batches:
                yield from self._encoded(batch)

    def _batches(self, video: WatchedVideo, assembler: Assembler) -> Iterator[_Batch]:
        clips = self._clips(video, assembler)
        while waiting := list(islice(clips, self.batch_size)):
            yield _Batch.of(waiting)

    def _clips(self, video: WatchedVideo, assembler: Assembler) -> Iterator[Clip]:
        number = -1
        with read_ahead(video, FRAMES_AHEAD) as frames:
            for number, frame in frames:
                prepared = self.prepared(frame) if frame is not None and assembler.takes(number) else None
                yield from assembler.push(number, prepared)
        yield from assembler.finish(number + 1)

    def prepared(self, frame: np.ndarray) -> Tensor:
        """(3, H, W) uint8 at the model's size."""
        rgb = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        return self.transform(RGBDSample("frame", rgb=rgb)).rgb[0]  # type: ignore[index]

    def encoded(self, clips: list[Clip]) -> list[Encoded]:
        """Features and clip-wise logits of clips; None for those that could not be read."""
        return self._encoded(_Batch.of(clips))

    def _encoded(self, batch: _Batch) -> list[Encoded]:
        rows: Iterator[tuple[Tensor, Tensor]] = iter(())
        if batch.frames is not None:
            features, logits = encode(self.model, batch.frames, self.device, self.precision)
            rows = iter(zip(features, logits))
        found: list[Encoded] = []
        for clip, is_read in zip(batch.clips, batch.read, strict=True):
            told: tuple[Tensor | None, Tensor | None] = next(rows) if is_read else (None, None)
            found.append((clip, *told))
        return found

    def step(self, features: Tensor | None, state: State | None) -> tuple[np.ndarray, State]:
        """(probabilities (L,), state behind it) of the clip after those that made the state; None starts a video."""
        row, _ = stacked([features], self.feature_width)
        with torch.inference_mode():
            logits, state = self.model.step(row[0].to(self.device), state)
        return logits[0].float().softmax(-1).cpu().numpy(), state

    def temporal(self, features: Tensor, mask: Tensor) -> np.ndarray:
        """(S, L) probabilities of the temporal model.

        Args:
            features: (1, S, ...) of all clips, as the model reads them.
            mask: (1, S) bool, which could be read.
        """
        # A causal model steps over unreadable clips to the very end, as it does when it follows a video.
        known = None if self.model.config.temporal_causal else mask.to(self.device)
        with torch.inference_mode():
            logits, _ = self.model.temporal(features.to(self.device), known)
        return logits[0].float().softmax(-1).cpu().numpy()

    def prediction(
        self,
        clip: Clip,
        temporal: np.ndarray,
        logit: Tensor | None,
        times: FrameTimes | None,
        cameras: tuple[str, ...] = (),
    ) -> ClipPrediction:
        """What is predicted of a clip; without clip-wise logits it could not be read."""
        even = np.full(len(self.names), 1.0 / len(self.names), np.float32)
        clipwise = even if logit is None else logit.softmax(-1).numpy()
        begins, ends = (None, None) if times is None else times.at([clip.start, clip.stop]).tolist()
        return ClipPrediction(
            clip.start, clip.stop, logit is not None, temporal, clipwise, begins, ends, cameras=cameras
        )


def gathered(
    clips: Iterable[Told], path: Path, length: int, unreadable: Sequence[Stretch], say: Say | None, work: str
) -> list[Told]:
    """All clips of a video, with lines of progress.

    Args:
        clips: (with its last frame, features or None, ...) each.
        path: the video.
        length: its frames.
        unreadable: fills as clips are read.
        say, work: receives lines of progress, and how they begin; None says nothing.

    Raises:
        CorruptFileError: none of them can be read.
    """
    progress = None if say is None else Progress(length, SECONDS_BETWEEN_LINES, say, "frames", work)
    found = []
    for clip in clips:
        found.append(clip)
        if progress is not None:
            progress.done = float(clip[0].stop)
            progress.report()
    if not any(clip[1] is not None for clip in found):
        reason = unreadable[0].reason if unreadable else "it has no frames"
        raise CorruptFileError(path, f"no clip of it can be read ({reason})")
    return found


def stacked(rows: list[Tensor | None], width: int) -> tuple[Tensor, Tensor]:
    """(1, S, D) features with zeros where there are none, and (1, S) bool which there are."""
    features = torch.stack([torch.zeros(width) if row is None else row for row in rows])
    return features[None], torch.tensor([row is not None for row in rows])[None]
