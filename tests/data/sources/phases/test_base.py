"""Cutting annotated videos into clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource, PhaseVideo, cut_clips
from m33d_hf.errors import ConfigError, DataError


@dataclass(frozen=True)
class Counting:
    """A video whose frames hold their own number."""

    key: str
    length: int
    fps: float | None = 25.0

    def read(self, indices: Sequence[int]) -> RGBDSample:
        frames = torch.tensor(list(indices), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        return RGBDSample(self.key, rgb=frames.clone())


def _source(phases: list[list[int]], **options: object) -> PhaseSource:
    videos = [PhaseVideo(Counting(f"v{i}", len(row)), np.array(row, np.uint8)) for i, row in enumerate(phases)]
    return PhaseSource(videos, ["cut", "sew"], **options)  # type: ignore[arg-type]


def test_clips_cover_every_frame_and_take_the_commonest_phase() -> None:
    phases = np.array([0, 0, 1, 1, 1, 0, 255, 255, 255, 255, 1], np.uint8)
    spans = cut_clips(phases, 4, 4)
    assert spans == [ClipSpan(0, 4, 0), ClipSpan(4, 8, 1), ClipSpan(8, 11, 1)]
    assert cut_clips(phases[6:10], 4, 4) == [ClipSpan(0, 4, IGNORE_INDEX)]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9, 17])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_frame_is_in_a_clip_and_no_clip_repeats_a_tail(length: int, stride: int) -> None:
    spans = cut_clips(np.zeros(length, np.uint8), 4, stride)
    assert sorted({frame for span in spans for frame in range(span.start, span.stop)}) == list(range(length))
    assert len({span.stop for span in spans}) == len(spans)


def test_items_read_their_frames_and_label() -> None:
    source = _source([[0] * 4 + [1] * 4, [255] * 4 + [1] * 2], clip_span=4)
    assert len(source) == 4 and source.labels() == [0, 1, IGNORE_INDEX, 1]
    sample = source[1].read([0, 3])
    assert sample.key == "v0@4-8" and sample.label == 1
    assert sample.rgb is not None and sample.rgb[:, 0, 0, 0].tolist() == [4, 7]
    assert source[2].read([0]).label is None
    assert source.groups() == ["v0", "v0", "v1", "v1"]
    assert len(_source([[0] * 4, [255] * 4], clip_span=4, drop_unlabelled=True)) == 1


def test_whole_videos_are_items_for_pre_training() -> None:
    source = _source([[0] * 9, [1] * 5], unit="videos")
    assert len(source) == 2 and source[0].length == 9 and source.labels() is None


def test_digest_sees_labels() -> None:
    assert _source([[0, 0, 1]]).digest() != _source([[0, 1, 1]]).digest()
    assert _source([[0, 0, 1]]).digest() == _source([[0, 0, 1]]).digest()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="two phases are called 'cut' and 'Cut '"):
        PhaseSource([PhaseVideo(Counting("v", 1), np.zeros(1, np.uint8))], ["cut", "Cut "])
    with pytest.raises(DataError, match="2 phase labels for 3 frames"):
        PhaseSource([PhaseVideo(Counting("v", 3), np.zeros(2, np.uint8))], ["cut"])
    with pytest.raises(DataError, match="no clip has an annotated frame"):
        _source([[255, 255]], drop_unlabelled=True)
    with pytest.raises(ConfigError, match="clips or videos"):
        _source([[0]], unit="clip")
    with pytest.raises(ConfigError, match="at least 1"):
        _source([[0]], clip_stride=0)
