"""Whole videos as sequences of clip features, for training and evaluating the temporal model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.loader.loading import SampleDataset, Views
from m33d_hf.data.loader.sampling import Row
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample, VideoHandle, frame_times, known_lacks
from m33d_hf.data.source import Source
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo
from m33d_hf.errors import DataError
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack
from m33d_hf.training.tasks.detection.cameras import all_cameras, fused_features
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore, VideoFeatures, VideoSummary


@dataclass
class FeatureSample(RGBDSample):
    """A whole video, as clips.

    Attributes:
        video: features and labels of its clips, in the model's class order.
        phases: (length,) uint8, the phase of every frame in the model's class order, 255 = not annotated.
        times: presentation time of each frame, None if unknown.
        lacks: what is missing from the recording.
    """

    video: VideoFeatures | None = None
    phases: np.ndarray | None = None
    times: FrameTimes | None = None
    lacks: tuple[Lack, ...] = ()


class WholeVideos(Source):
    """The videos of a phase source as items; `unit` "videos" would leave out their annotation (pre-training).

    Of several cameras of a case each is one, and stands for its case.

    Args:
        source: annotated videos.
    """

    videos: list[PhaseVideo]

    def __init__(self, source: PhaseSource) -> None:
        self.source, self.videos = source, source.videos
        self.name, self.depth_spec = source.name, source.depth_spec
        self.class_names, self.action_names = source.class_names, source.action_names
        self.class_table = source.class_table
        self.root, self.unpaired = source.root, source.unpaired

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> VideoHandle:
        """Return the whole video number `index`."""
        return self.videos[index].handle

    def groups(self) -> list[str]:
        """Case, or key, of every video."""
        return [video.group for video in self.videos]

    def digest(self) -> str:
        """Digest of the source."""
        return self.source.digest()


def phase_table(names: Sequence[str], known: Mapping[str, int]) -> np.ndarray:
    """(256,) uint8: from a source's phase ids to a model's classes, by name; unknown phases and 255 become 255."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    for number, name in enumerate(names):
        table[number] = known.get(name, IGNORE_INDEX)
    return table


def check_known_phases(source: PhaseSource, known: Mapping[str, int], rows: Sequence[int], what: str) -> None:
    """Refuse videos annotated with a phase for which the model has no class.

    Args:
        source: the videos.
        known: name -> class of the model.
        rows: the videos that count.
        what: "training" or "evaluation", for the message.

    Raises:
        DataError: names the phases, a video with each, and the model's phases.
    """
    names = source.action_names or []
    unknown = {number: name for number, name in enumerate(names) if name not in known}
    found: dict[str, str] = {}
    for row in rows:
        video = source.videos[row]
        for number in np.unique(video.phases).tolist():
            if number in unknown:
                found.setdefault(unknown[number], video.key)
    if found:
        listed = ", ".join(f"{name!r} (in {key})" for name, key in found.items())
        raise DataError(
            f"The {what} data has phases that the first-stage model was never trained on: {listed}. Its phases are "
            f"{', '.join(repr(name) for name in known)}. Names must match exactly: correct the annotation or its name "
            "list, or train the first stage on all phases."
        )


class FeatureDataset(SampleDataset):
    """The videos of a source as sequences of features; indexed by (epoch, index) like every data set of the loop.

    Videos without a clip that could be read are left out, and in training those without a labelled one.

    Args:
        source: the videos.
        store: their features; None gives zeros of the right shapes (a dry run before extraction).
        rule: how they were cut.
        known: name -> class of the model.
        rows: use only these videos of the source.
        feature_size: of what the temporal model reads of a clip, for zeros.
        train: training data.
        cameras: names of the cameras whose features stand side by side; None takes their mean.

    Attributes:
        bad_clips, clips: clips that could not be read, and all.
        longest: clips of the longest video.
        lacking: clips that not every camera of their case shows; they are counted once features are there.

    Raises:
        DataError: no video is left.
    """

    def __init__(
        self,
        source: PhaseSource,
        store: FeatureStore | None,
        rule: ClipRule,
        known: Mapping[str, int],
        rows: Sequence[int],
        *,
        feature_size: int,
        train: bool,
        cameras: Sequence[str] | None = None,
    ) -> None:
        self.store, self.rule, self.known, self.feature_size = store, rule, dict(known), feature_size
        self.phases, self.cameras = source, cameras
        self.table = phase_table(source.action_names or [], known)
        self.clips = self.bad_clips = self.longest = self.lacking = 0
        self._labels: dict[int, np.ndarray] = {}
        kept = [row for row in rows if self._usable(source, row, train)]
        if not kept:
            what = "labelled clip" if train else "clip"
            raise DataError(f"none of the {len(rows)} videos of source {source.name!r} has a readable {what}")
        super().__init__(
            WholeVideos(source), num_frames=rule.num_frames, frame_stride=rule.frame_stride, train=train, indices=kept
        )

    def _usable(self, source: PhaseSource, row: int, train: bool) -> bool:
        if self.store is None:
            self.clips += len(source.clips(row))
            self.longest = max(self.longest, len(source.clips(row)))
            self._labels[row] = self.table[np.array([span.label for span in source.clips(row)])]
            return True
        summary = self._summary(row)
        self.longest = max(self.longest, len(summary.valid))
        self.clips += len(summary.valid)
        self.bad_clips += int((~summary.valid).sum())
        labelled = summary.labels != IGNORE_INDEX
        self._labels[row] = summary.labels.masked_fill(~summary.valid, IGNORE_INDEX).numpy()
        return bool((summary.valid & labelled).any() if train else summary.valid.any())

    def _summary(self, row: int) -> VideoSummary:
        """What is known of the clips of a case; its features are only read where it has several cameras."""
        store = cast(FeatureStore, self.store)
        if self.cameras is None and len(all_cameras(self.phases, [row])) == 1:
            return store.summary(self.phases.videos[row].key)
        video = self._fused(row, store)
        assert video.cameras is not None
        wanted = len(all_cameras(self.phases, [row]) if self.cameras is None else self.cameras)
        self.lacking += int((video.cameras < wanted).sum())
        return VideoSummary(video.key, video.labels, video.valid, video.problems)

    def clip_labels(self) -> list[np.ndarray]:
        """Per video the (S,) model's classes of its clips; 255 where nothing is annotated or could be read."""
        return [self._labels[row] for row in self.indices]

    def __getitems__(self, rows: Sequence[Row]) -> list[RGBDSample | Views]:
        """The videos of `rows` as `FeatureSample`; the same in every epoch.

        Raises:
            CorruptFileError: a file was damaged after the run had started.
        """
        return [self._sample(index) for _, index in rows]

    def _sample(self, index: int) -> FeatureSample:
        number = self.indices[index]
        video = self.phases.videos[number]
        store = self.store
        features = self._planned(number) if store is None else self._fused(number, store)
        sample = FeatureSample(
            video.group,
            video=features,
            phases=self.table[video.phases],
            times=frame_times(video.handle),
            lacks=known_lacks(video.handle),
        )
        sample.meta.update(index=index, skipped=[])
        return sample

    def _fused(self, number: int, store: FeatureStore) -> VideoFeatures:
        return fused_features(self.phases, number, store.read, self.cameras)

    def _planned(self, number: int) -> VideoFeatures:
        """Zeros where features will be."""
        video, spans = self.phases.videos[number], self.phases.clips(number)
        count = len(spans)
        labels = self.table[np.array([span.label for span in spans])]
        return VideoFeatures(
            video.key,
            video.handle.length,
            video.handle.fps,
            torch.zeros(count, self.feature_size),
            torch.zeros(count, len(self.known)),
            torch.tensor([span.start for span in spans]),
            torch.tensor([span.stop for span in spans]),
            torch.from_numpy(labels.astype(np.int64)),
            torch.ones(count, dtype=torch.bool),
        )


class FeatureCollator:
    """Pads videos to the longest of the batch.

    The batch: ``features`` (B, S, D) float32, ``attention_mask`` (B, S) bool (False for padding and for clips that
    could not be read), ``labels`` (B, S) int64, 255 there and where nothing is annotated; and ``meta`` as of every
    collator, with "videos" (the samples themselves) in evaluation.

    Args:
        train: leave the samples out of ``meta``.
    """

    def __init__(self, train: bool) -> None:
        self.train = train

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Collate one batch."""
        videos: list[VideoFeatures] = [sample.video for sample in samples]
        longest = max(len(video.valid) for video in videos)
        meta: dict[str, Any] = {
            "keys": [sample.key for sample in samples],
            "indices": [sample.meta["index"] for sample in samples],
            "skipped": [],
        }
        if not self.train:
            meta["videos"] = list(samples)
        labels = [video.labels.masked_fill(~video.valid, IGNORE_INDEX) for video in videos]
        return {
            "features": torch.stack([_padded(video.features, longest, 0.0) for video in videos]),
            "attention_mask": torch.stack([_padded(video.valid, longest, 0) for video in videos]),
            "labels": torch.stack([_padded(rows, longest, IGNORE_INDEX) for rows in labels]),
            "meta": meta,
        }


def _padded(rows: Tensor, length: int, value: float) -> Tensor:
    fill = rows.new_full((length - len(rows), *rows.shape[1:]), value)
    return torch.cat([rows, fill])
