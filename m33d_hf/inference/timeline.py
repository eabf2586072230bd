"""Phases of videos of any length: frames are streamed, clips encoded as they complete, only their features are kept.

A causal model can follow a video that is still being recorded (`ActionDetector.follow`): its recurrent state is carried
from clip to clip, and its prediction for a clip never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.acceleration import place
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError
from m33d_hf.evaluation.detection_metrics import segments
from m33d_hf.evaluation.frame_votes import frame_probabilities
from m33d_hf.modeling.video_reading_m33d import iterate_video
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack, restated
from m33d_hf.training.run.reporting import CONFIG
from m33d_hf.training.tasks.detection.feature_extraction import encode
from m33d_hf.training.tasks.detection.features import ClipRule
from m33d_hf.training.tasks.detection.first_stage import known_phases

# Batches that wait for the model: enough to bridge a slow stretch of the file, and memory stays constant.
_BATCHES_AHEAD = 2

Frames = Callable[[Path, int], Iterable[tuple[int, np.ndarray]]]
"""(path, first frame) -> (frame number, (H, W, 3) uint8 RGB) to the end; CorruptFileError at a frame that fails."""


@dataclass(frozen=True)
class Stretch:
    """Frames [start, stop) that could not be read."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class Clip:
    """Frames [start, stop) of a video and the frames taken from them.

    Attributes:
        frames: (T, 3, H, W) uint8 at the model's size; None where one of them could not be read.
    """

    start: int
    stop: int
    frames: Tensor | None = field(repr=False)


@dataclass(frozen=True)
class ClipPrediction:
    """The prediction for a clip.

    Attributes:
        start, stop: its frames, [start, stop).
        readable: False where a frame of it could not be read; the probabilities then come from its neighbours alone.
        probabilities: (L,) of the temporal model.
        clipwise: (L,) of the clip classifier, which sees this clip alone; even where it is not readable.
        start_time, stop_time: seconds from the first frame at which its first frame begins and its last one ends; None
            where the times of the video are unknown.
    """

    start: int
    stop: int
    readable: bool
    probabilities: np.ndarray
    clipwise: np.ndarray
    start_time: float | None = None
    stop_time: float | None = None


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
    """

    path: Path
    length: int
    fps: float | None
    names: list[str]
    clips: list[ClipPrediction]
    unreadable: list[Stretch]
    times: FrameTimes | None = None
    lacks: tuple[Lack, ...] = ()

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


class ClipAssembler:
    """Builds clips out of frames that come one by one, as `cut_clips` would cut the whole video.

    Args:
        rule: how videos are cut.
    """

    def __init__(self, rule: ClipRule) -> None:
        self.rule = rule
        self._offsets = set(rule.frames(rule.span))
        self._open: dict[int, list[Tensor | None]] = {}
        self._next_start = 0

    def wants(self, number: int) -> bool:
        """Whether some clip takes frame `number`; frames that none does need not be prepared."""
        starts = [*self._open, *([self._next_start] if number >= self._next_start else [])]
        return any(number - start in self._offsets for start in starts)

    def push(self, number: int, frame: Tensor | None) -> list[Clip]:
        """Take frame `number`, the next one, (3, H, W) uint8, None where unreadable; returns the clips it completes."""
        if number == self._next_start:
            self._open[number] = []
            self._next_start += self.rule.clip_stride
        for start, frames in self._open.items():
            if number - start in self._offsets:
                frames.append(frame)
        done = [start for start in self._open if number - start == self.rule.span - 1]
        return [self._closed(start, start + self.rule.span) for start in done]

    def finish(self, length: int) -> list[Clip]:
        """The clips that the end of the video cuts short, but for those that a clip before covers already."""
        rule = self.rule
        kept = [start for start in self._open if start == 0 or start - rule.clip_stride + rule.span < length]
        return [self._closed(start, length) for start in kept]

    def _closed(self, start: int, stop: int) -> Clip:
        found = self._open.pop(start)
        taken = [found[offset // self.rule.frame_stride] for offset in self.rule.frames(stop - start)]
        frames = [frame for frame in taken if frame is not None]
        return Clip(start, stop, torch.stack(frames) if len(frames) == len(taken) else None)


class ActionDetector:
    """Finds phases in video files and frame folders.

    Args:
        model: a trained second stage; its configuration remembers how its clips were cut.
        options: geometry of the frames (`eval_crop`, `resize_mode`), as in its training.
        device: where to compute.
        batch_size: clips per forward pass.
        precision: of the encoder, "no" (float32), "bf16" or "fp16".
        frames: reads a video; None takes `iterate_video`.
    """

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
        self.frames = frames or (lambda path, start: iterate_video(path, start=start, info=cached_info(path)))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> ActionDetector:
        """Load the output folder of `run_action_detection.py`, with the frame geometry of that run.

        Raises:
            CheckpointError: the folder holds no trained detection; a first stage alone is none.
        """
        try:
            loaded: Any = M33DForVideoActionDetection.from_pretrained(folder, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} holds no trained action detection model: {error}") from error
        model, info = loaded
        if info["missing_keys"]:
            first = sorted(info["missing_keys"])[0]
            raise CheckpointError(
                f"{folder} holds no trained action detection model: it lacks {len(info['missing_keys'])} weights, such "
                f"as {first!r}. Train one with run_action_detection.py --init_from {folder}."
            )
        return cls(model, _trained_geometry(Path(folder)), **options)

    def detect(self, path: str | Path, fps: float | None = None) -> Detection:
        """Find the phases of a video.

        Args:
            path: a video file or a folder of frames.
            fps: frames per second, evenly; None takes the times of the file's frames.

        Raises:
            CorruptFileError: no part of it can be read.
        """
        watched = _Video(Path(path), self.frames)
        encoded = list(self._encoded(watched))
        if not any(features is not None for _, features, _ in encoded):
            reason = watched.unreadable[0].reason if watched.unreadable else "it has no frames"
            raise CorruptFileError(path, f"no clip of it can be read ({reason})")
        features, mask = _stacked([features for _, features, _ in encoded], self.model.config.hidden_size)
        # A causal model steps over unreadable clips to the very end, as it does when it follows a video.
        known = None if self.model.config.temporal_causal else mask.to(self.device)
        with torch.inference_mode():
            logits, _ = self.model.temporal(features.to(self.device), known)
        temporal = logits[0].float().softmax(-1).cpu().numpy()
        times = FrameTimes(watched.length, fps) if fps else watched.times
        clips = [self._prediction(clip, row, logit, times) for (clip, _, logit), row in zip(encoded, temporal)]
        rate = times.fps if times is not None else None
        lacks = restated(watched.lacks, watched.length, fps) if fps else watched.lacks
        return Detection(watched.path, watched.length, rate, self.names, clips, watched.unreadable, times, lacks)

    def follow(self, path: str | Path) -> Iterator[ClipPrediction]:
        """Predictions clip by clip, each as soon as it is encoded (with batch_size 1: as soon as its last frame has
        arrived).

        The results equal those of `detect`.

        Raises:
            ConfigError: the model reads both directions of time.
        """
        if not self.model.config.temporal_causal:
            raise ConfigError(
                "this model reads the whole video before it predicts; to follow a video, use a model trained with "
                "--model.temporal_causal true"
            )
        state: Tensor | None = None
        watched = _Video(Path(path), self.frames)
        for clip, features, logit in self._encoded(watched):
            row, _ = _stacked([features], self.model.config.hidden_size)
            with torch.inference_mode():
                logits, state = self.model.temporal(row.to(self.device), state=state)
            yield self._prediction(clip, logits[0, 0].float().softmax(-1).cpu().numpy(), logit, watched.times)

    def _prediction(
        self, clip: Clip, temporal: np.ndarray, logit: Tensor | None, times: FrameTimes | None
    ) -> ClipPrediction:
        even = np.full(len(self.names), 1.0 / len(self.names), np.float32)
        clipwise = even if logit is None else logit.softmax(-1).numpy()
        begins, ends = (None, None) if times is None else times.at([clip.start, clip.stop]).tolist()
        return ClipPrediction(clip.start, clip.stop, logit is not None, temporal, clipwise, begins, ends)

    def _encoded(self, video: _Video) -> Iterator[tuple[Clip, Tensor | None, Tensor | None]]:
        """(clip without frames, features (D,), clip-wise logits (L,)) in the order of time; None where unreadable.

        Frames are read, resized and cut into clips by a thread, while the model works on the clips before.
        """
        with read_ahead(self._batches(video), _BATCHES_AHEAD) as batches:
            for clips in batches:
                yield from self._encode(clips)

    def _batches(self, video: _Video) -> Iterator[list[Clip]]:
        waiting: list[Clip] = []
        for clip in self._clips(video):
            waiting.append(clip)
            if len(waiting) == self.batch_size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _clips(self, video: _Video) -> Iterator[Clip]:
        assembler = ClipAssembler(self.rule)
        number = -1
        for number, frame in video:
            prepared = self._prepared(frame) if frame is not None and assembler.wants(number) else None
            yield from assembler.push(number, prepared)
        yield from assembler.finish(number + 1)

    def _prepared(self, frame: np.ndarray) -> Tensor:
        """(3, H, W) uint8 at the model's size."""
        rgb = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        return self.transform(RGBDSample("frame", rgb=rgb)).rgb[0]  # type: ignore[index]

    def _encode(self, clips: list[Clip]) -> Iterator[tuple[Clip, Tensor | None, Tensor | None]]:
        frames = [clip.frames for clip in clips if clip.frames is not None]
        if frames:
            features, logits = encode(self.model, torch.stack(frames), self.device, self.precision)
            rows = iter(zip(features, logits))
        for clip in clips:
            found: tuple[Tensor | None, Tensor | None] = (None, None) if clip.frames is None else next(rows)
            yield Clip(clip.start, clip.stop, None), *found


class _Video:
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
                    self._note(Stretch(self.length, self.total, "the video ends before its announced length"))
                return
            except CorruptFileError as error:
                first, reason = self.length, error.reason
            self.length = self._next_readable(first + 1)
            self._note(Stretch(first, self.length, reason))
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

    def _note(self, stretch: Stretch) -> None:
        """Stretches that touch are one."""
        if self.unreadable and self.unreadable[-1].stop == stretch.start:
            stretch = Stretch(self.unreadable[-1].start, stretch.stop, self.unreadable[-1].reason)
            self.unreadable.pop()
        self.unreadable.append(stretch)


def _stacked(rows: list[Tensor | None], width: int) -> tuple[Tensor, Tensor]:
    """(1, S, D) features with zeros where there are none, and (1, S) bool which there are."""
    features = torch.stack([torch.zeros(width) if row is None else row for row in rows])
    return features[None], torch.tensor([row is not None for row in rows])[None]


def _trained_geometry(folder: Path) -> TransformOptions:
    """`eval_crop` and `resize_mode` of the run that left the folder; the defaults where it says nothing."""
    # A checkpoint lies in OUTPUT/checkpoints/NAME.
    file = next((p for p in (folder / CONFIG, folder.parent.parent / CONFIG) if p.is_file()), None)
    if file is None:
        return TransformOptions()
    try:
        said = read_sealed_json(file)["args"]["transforms"]
        return TransformOptions(eval_crop=said["eval_crop"], resize_mode=said["resize_mode"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; delete the file to use the default geometry") from error
