"""Videos with depth beside them, whose clips are read as training reads them, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.depth.maps import how_to_extract
from m33d_hf.data.files.skips import SkipLedger, hole_entries
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.progress import Say
from m33d_hf.data.sample import RGBDSample, holes_of, known_lacks
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource, cut_clips
from m33d_hf.data.sources.phases.synchrony import Placed
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.detection.camera_clips import detected, see_cameras
from m33d_hf.inference.detection.cameras import given_cameras
from m33d_hf.inference.detection.clip_encoder import BATCHES_AHEAD, ClipEncoder, gathered
from m33d_hf.inference.detection.detections import Detection, Stretch, add_stretch
from m33d_hf.modeling.video_times_m33d import Lack
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.feature_extraction import NOTHING, Inputs, encode, stacked_inputs

DeepClip = tuple[ClipSpan, "Tensor | None", "Tensor | None"]
"""(frames of the clip, features (D,), clip-wise logits (L,)); None where it could not be read."""

_FIXED = ("root", "split", "unit", "annotations", "clip_span", "clip_stride")


class SourceVideo(NamedTuple):
    """Video `number` of a source, and where several cameras show its case, the others with it."""

    source: PhaseSource
    number: int

    @property
    def path(self) -> Path:
        """Its file, or the folder of its frames."""
        video = self.source.videos[self.number]
        folder = Path(getattr(self.source, "root", "")) / video.key
        return Path(getattr(video.handle, "file", folder))

    @property
    def cameras(self) -> list[SourceVideo]:
        """The videos of its case, itself in front.

        Raises:
            ConfigError: it is by a further camera of one.
        """
        case = next(case for case in self.source.cases if self.number in case)
        if self.number != case[0]:
            raise ConfigError(
                f"{self.source.videos[self.number].key} is by a further camera of its case; pass the number of the "
                f"first one, {self.source.videos[case[0]].key}."
            )
        return [SourceVideo(self.source, number) for number in case]

    @property
    def camera(self) -> str:
        """Name of its camera; empty where the data does not tell cameras."""
        return self.source.videos[self.number].camera

    def check_cameras(self, names: Sequence[str] | None) -> None:
        """Refuse other cameras than the model knows.

        Args:
            names: of the cameras that the model reads side by side; None for the mean over any.

        Raises:
            ConfigError: see `given_cameras`.
        """
        named = self.source.videos[self.number].case is not None
        given_cameras({each.camera: each.path for each in self.cameras} if named else self.path, names)


def find_deep_videos(root: str | Path, options: Mapping[str, Any]) -> dict[str, SourceVideo]:
    """Name for the output -> video, of all videos below a folder; of each case the first camera.

    As in training, a video without any depth is seen by RGB alone (`without_depth` names them), and frames of a clip
    that lack theirs are holes (`DeepClips.holes`).

    Args:
        root: folder of the data, as training takes it.
        options: of the source `phases`, such as depth_scale, calibration, fps and cameras.

    Raises:
        ConfigError: options that are no such ones, or that this decides itself; two videos of one name.
        DataError: nothing to read, or none of it has depth.
    """
    own = next((name for name in options if name in _FIXED), None)
    if own is not None:
        raise ConfigError(f"the option {own} is not for detection; leave it out.")
    source = build_source("phases", root=str(root), unit="videos", annotations="none", **options)
    if not isinstance(source, PhaseSource):
        raise TypeError("the source phases holds phases")
    if not any(video.may_have_depth for video in source.videos):
        advice = how_to_extract(Path(root), Path(root, "depth"))
        raise DataError(
            f"no depth was found for the videos of {root}. Extract it: {advice}; if it is in another folder, pass "
            "--options depth=FOLDER; without --depth the videos are seen by RGB alone"
        )
    found: dict[str, SourceVideo] = {}
    for number in (case[0] for case in source.cases):
        name = source.videos[number].group.replace("/", "_")
        if name in found:
            before = source.videos[found[name].number].group
            raise ConfigError(
                f"{before} and {source.videos[number].group} would both be written as {name!r}; give one of them "
                "another name."
            )
        found[name] = SourceVideo(source, number)
    return found


def without_depth(videos: Iterable[SourceVideo]) -> list[str]:
    """Keys of the videos of these cases, of all cameras, that have no depth."""
    seen = [camera for video in videos for camera in video.cameras]
    shown = [each.source.videos[each.number] for each in seen]
    return [video.key for video in shown if not video.may_have_depth]


def source_options(words: Sequence[str], flag: str = "--options", example: str = "depth_scale=1000") -> dict[str, Any]:
    """{"depth_scale": 1000} of ["depth_scale=1000"], values as in YAML.

    Args:
        words: NAME=VALUE each.
        flag, example: for messages.

    Raises:
        ConfigError: a word of another form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{flag} takes NAME=VALUE, such as {example}, not {word!r}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag}: the value of {name} cannot be read: {value!r}") from error
    return found


def deep_detection(
    encoder: ClipEncoder, video: SourceVideo, say: Say | None, work: str, ledger: SkipLedger | None = None
) -> Detection:
    """See `ActionDetector.detect_source`."""
    video.check_cameras(encoder.model.config.temporal_cameras)
    source, number = video
    seen = see_cameras(encoder, [DeepView(encoder, each, ledger) for each in video.cameras], say, work)
    rate = source.videos[number].handle.fps
    return detected(encoder, seen, several=source.videos[number].case is not None, rate=rate)


class DeepView:
    """A video with depth beside it; see `View`."""

    def __init__(self, encoder: ClipEncoder, video: SourceVideo, ledger: SkipLedger | None = None) -> None:
        self.encoder, self.video = encoder, video
        self._video = video.source.videos[video.number]
        self.name, self.path, self.offset = self._video.camera, video.path, self._video.offset
        self._clips = DeepClips(encoder, video.source, video.number, ledger)

    @property
    def unreadable(self) -> list[Stretch]:
        """See `View`."""
        return self._clips.unreadable

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """See `View`."""
        return known_lacks(self._video.handle)

    @property
    def notes(self) -> list[str]:
        """See `View`."""
        return [words] if (words := self._clips.holes.words()) else []

    @property
    def place(self) -> Placed:
        """See `View`."""
        return Placed.of(self._video)

    def clips(self, spans: list[ClipSpan] | None, say: Say | None, work: str) -> list[DeepClip]:
        """See `View`."""
        rule, length = self.encoder.rule, self._video.handle.length
        wanted = cut_clips(self._video.phases, rule.span, rule.clip_stride) if spans is None else spans
        return gathered(self._clips.stream(wanted), self.path, length, self.unreadable, say, work)


class DeepClips:
    """The clips of one video of a source, by all inputs of the model.

    Args:
        encoder: of clips.
        source: that holds the video; its clips are cut by the rule of the model, whatever the source says.
        number: of the video.
        ledger: lists the depth that is missing or damaged; None only counts it.

    Attributes:
        unreadable: clips that could not be read so far, those that touch as one.
        holes: frames that were read with depth so far, and those of them that lack it.
    """

    def __init__(
        self, encoder: ClipEncoder, source: PhaseSource, number: int, ledger: SkipLedger | None = None
    ) -> None:
        self.encoder, self.number, self.ledger = encoder, number, ledger
        self.dataset = ClipDataset(source, encoder.rule, encoder.transform, encoder.model.task_inputs)
        self.unreadable: list[Stretch] = []
        self.holes = HoleCount()

    def stream(self, spans: list[ClipSpan]) -> Iterator[DeepClip]:
        """The given clips in order; the next batch is read by a thread while the model has this one."""
        size = self.encoder.batch_size
        rows = [ClipRow(self.number, clip, span) for clip, span in enumerate(spans)]
        batches = (self._read(rows[place : place + size]) for place in range(0, len(rows), size))
        names = self.encoder.model.task_inputs
        stacked = ((samples, stacked_inputs(samples, names)) for samples in batches)
        try:
            with read_ahead(stacked, BATCHES_AHEAD) as read:
                for samples, inputs in read:
                    yield from self._encoded(samples, inputs)
        finally:
            self.dataset.close()

    def _read(self, rows: list[ClipRow]) -> list[RGBDSample]:
        """A batch of clips; those of folders of frames one by one: nothing has to be opened for several, and in the
        size that they were taken in, the frames of one clip are large enough."""
        if hasattr(self.dataset.source.videos[self.number].handle, "file"):
            return self.dataset.__getitems__(rows)
        return [sample for row in rows for sample in self.dataset.__getitems__([row])]

    def _encoded(self, samples: list[RGBDSample], inputs: Inputs) -> Iterator[DeepClip]:
        rows = iter(()) if inputs is NOTHING else iter(zip(*self._encode(inputs)))
        for sample in samples:
            self.holes.add_sample(sample)
            if self.ledger is not None:
                self.ledger.record({"holes": hole_entries(holes_of(sample), sample.key)})
            span = sample.meta["row"].span
            if "skipped" in sample.meta:
                add_stretch(self.unreadable, Stretch(span.start, span.stop, sample.meta["skipped"].reason))
                yield span, None, None
            else:
                yield span, *next(rows)

    def _encode(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        return encode(encoder.model, inputs.frames, encoder.device, encoder.precision, inputs.depth)
