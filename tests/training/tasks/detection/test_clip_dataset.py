"""Clips of whole videos: read in passing, each frame once, and the same as each clip by itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.videos import number_in, write_video
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource, PhaseVideo
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.modeling import video_pyav_m33d, video_reading_m33d
from m33d_hf.training.tasks.detection.clip_dataset import ClipDataset, ClipRow
from m33d_hf.training.tasks.detection.feature_extraction import dealt_batches
from m33d_hf.training.tasks.detection.features import ClipRule

LENGTH = 150


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PhaseSource:
    """Two videos with reordered frames and a start point every 40 frames."""
    folder = tmp_path_factory.mktemp("videos")
    videos = []
    for name in ("a", "b"):
        path = write_video(folder / f"{name}.mp4", LENGTH, codec="libx264", gop=40, options={"bf": "2"})
        videos.append(PhaseVideo(VideoFile(name, path), np.zeros(LENGTH, np.uint8)))
    return PhaseSource(videos, ["only"])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of the frames that were asked for, of every time that a file was opened."""
    found: list[list[int]] = []
    begin, fetch = video_pyav_m33d.Cursor.__init__, video_pyav_m33d.Cursor.fetch

    def opens(cursor: Any, *given: Any) -> None:
        found.append([])
        begin(cursor, *given)

    def fetches(cursor: Any, number: int, wanted: bool = True) -> Any:
        found[-1].append(number)
        return fetch(cursor, number, wanted)

    monkeypatch.setattr(video_pyav_m33d.Cursor, "__init__", opens)
    monkeypatch.setattr(video_pyav_m33d.Cursor, "fetch", fetches)
    return found


def rows_of(rule: ClipRule, video: int = 0) -> list[ClipRow]:
    starts = range(0, LENGTH - rule.span + 1, rule.clip_stride)
    return [ClipRow(video, place, ClipSpan(start, start + rule.span, 0)) for place, start in enumerate(starts)]


def dataset_of(source: PhaseSource, rule: ClipRule) -> ClipDataset:
    return ClipDataset(source, rule, build_transform(TransformOptions(), False, 48, 16))


@pytest.mark.parametrize("rule", [ClipRule(4, 2, 8), ClipRule(4, 3, 5), ClipRule(8, 1, 25), ClipRule(4, 4, 1)], ids=str)
def test_clips_in_passing_are_those_read_one_by_one(
    source: PhaseSource, rule: ClipRule, opened: list[list[int]]
) -> None:
    dataset = dataset_of(source, rule)
    rows = [*rows_of(rule), *rows_of(rule, 1)]
    batches = [rows[place : place + 3] for place in range(0, len(rows_of(rule)), 3)]
    batches += [rows[place : place + 3] for place in range(len(rows_of(rule)), len(rows), 3)]
    batches = [[row for row in batch if row.video == batch[0].video] for batch in batches]
    together = [sample for batch in batches for sample in dataset.__getitems__(batch)]
    dataset.close()
    assert len(opened) == 2, "each video once"
    assert all(numbers == sorted(set(numbers)) for numbers in opened), "each frame once"
    assert {sample.meta["row"] for sample in together} == set(rows)
    for sample in together:
        alone = dataset[sample.meta["row"]]
        assert torch.equal(sample.rgb, alone.rgb) and sample.key == alone.key and sample.depth is None


def test_clips_before_those_just_read_are_read_as_well(source: PhaseSource) -> None:
    rule = ClipRule(4, 2, 8)
    dataset, rows = dataset_of(source, rule), rows_of(rule)
    found = [dataset.__getitems__([row])[0] for row in (rows[9], rows[2], rows[2], rows[3])]
    assert all(torch.equal(sample.rgb, dataset[sample.meta["row"]].rgb) for sample in found)


def test_a_clip_that_cannot_be_read_leaves_the_others(source: PhaseSource, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = video_pyav_m33d.Cursor._walk_to
    monkeypatch.setattr(
        video_pyav_m33d.Cursor, "_walk_to", lambda self, number: None if number == 20 else walk(self, number)
    )
    rule = ClipRule(4, 2, 8)  # the third clip takes frame 20
    dataset = dataset_of(source, rule)
    rows = rows_of(rule)[:8]
    found = [sample for place in (0, 4) for sample in dataset.__getitems__(rows[place : place + 4])]
    dataset.close()
    assert ["skipped" in sample.meta for sample in found] == [place == 2 for place in range(8)]
    assert "frame 20" in found[2].meta["skipped"].reason


def test_a_video_that_was_closed_is_opened_again(source: PhaseSource, opened: list[list[int]]) -> None:
    handle = source.videos[0].handle
    assert isinstance(handle, VideoFile)
    forwards = handle.forwards()
    first = forwards.read([3, 1])
    forwards.close()
    again = forwards.read([3, 1])
    assert opened == [[1, 3], [1, 3]] and forwards.key == handle.key
    assert torch.equal(first.rgb, again.rgb) and torch.equal(first.rgb, handle.read([3, 1]).rgb)
    forwards.close()


def test_a_reader_goes_on_where_it_was(tmp_path: Path, opened: list[list[int]]) -> None:
    path = write_video(tmp_path / "a.mp4", 90, codec="libx264", gop=30, options={"bf": "2"})
    reader = video_reading_m33d.ForwardReader(path, video_reading_m33d.probe_video(path))
    opened.clear()
    for numbers in ([0, 5, 2], [6], [40, 40, 41], [75]):
        assert [number_in(frame) for frame in reader.read(numbers)] == numbers
    assert opened == [[0, 2, 5, 6, 40, 41, 75]]
    assert [number_in(frame) for frame in reader.read([75, 10])] == [75, 10], "backwards, at the price of opening"
    assert len(opened) == 2
    with pytest.raises(IndexError, match="frame 90 of a video of 90 frames"):
        reader.read([90])
    assert [number_in(frame) for frame in reader.read([89])] == [89]
    reader.close()


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 5])
def test_every_worker_goes_forward_through_a_stretch_of_its_own(workers: int) -> None:
    videos = [
        [ClipRow(video, clip, ClipSpan(clip, clip + 1, 0)) for clip in range(n)] for video, n in enumerate((23, 1, 16))
    ]
    dealt = dealt_batches(videos, 3, workers)
    ordered = [rows[place : place + 3] for rows in videos for place in range(0, len(rows), 3)]
    assert sorted(dealt, key=lambda rows: (rows[0].video, rows[0].clip)) == ordered
    assert [rows[0].video for rows in dealt] == [rows[0].video for rows in ordered], "video after video"
    if workers < 2:
        assert dealt == ordered
        return
    for worker in range(workers):
        places = [ordered.index(rows) for rows in dealt[worker::workers]]
        jumps = [
            (ordered[a][0].video, b - a) for a, b in pairwise(places) if ordered[a][0].video == ordered[b][0].video
        ]
        assert all(step == 1 for _, step in jumps), "its batches of a video follow one another"
