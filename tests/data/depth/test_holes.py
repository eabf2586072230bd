"""data/depth/holes.py and the list of skipped files: frames of clips without depth are counted, told and used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from m33d_hf.data.augmentation.views import take_frames
from m33d_hf.data.depth.holes import HoleCount, first_number, frames_without_partner
from m33d_hf.data.files.skips import SkipLedger, SkippedFile, count_skipped, hole_entries, read_skipped
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.sample import HOLES, Hole, RGBDSample, holes_of
from m33d_hf.errors import CorruptFileError

GONE, TORN = Hole(1, "depth", "no depth for frame 1", False), Hole(3, "depth/3.png", "is truncated", True)


def clip(frames: int = 4, holes: tuple[Hole, ...] = (), depth: bool = True) -> RGBDSample:
    rgb = torch.zeros(frames, 3, 2, 2, dtype=torch.uint8)
    return RGBDSample("a", rgb, torch.ones(frames, 1, 2, 2) if depth else None, meta={HOLES: holes} if holes else {})


def test_holes_go_where_their_frames_go() -> None:
    taken = take_frames(clip(holes=(GONE, TORN)), [3, 0, 3, 2])
    assert [(hole.place, hole.path) for hole in holes_of(taken)] == [(0, TORN.path), (2, TORN.path)]
    assert holes_of(take_frames(clip(holes=(GONE, TORN)), [0, 2])) == ()
    assert holes_of(take_frames(clip(), [0])) == ()


def test_what_is_missing_is_counted_in_words() -> None:
    count = HoleCount()
    for sample in (clip(), clip(depth=False), clip(holes=(GONE, TORN))):
        count.add_sample(sample)
    assert (count.frames, count.holes) == (8, 2), "a clip of RGB alone has no depth to miss"
    assert count.words() == (
        "the depth of 2 of 8 frames read is missing or damaged: they are holes; the first: depth: no depth for frame 1"
    )
    other = HoleCount()
    assert other.words() == ""
    other.merge(count)
    assert other == count
    blank = clip(2, (GONE._replace(place=0), GONE), depth=False)
    other.add_sample(blank)
    assert (other.frames, other.holes) == (10, 4), "none of its frames has it"


@pytest.mark.parametrize(("frames", "allowed"), [(10, 3), (150, 3), (1000, 20)])
def test_a_few_frames_at_the_end_may_be_missing(frames: int, allowed: int) -> None:
    assert frames_without_partner(frames) == allowed


@pytest.mark.parametrize(
    ("numbers", "count", "lost", "first"),
    [
        (range(12), 12, 0.0, 0),
        (range(1, 13), 12, 0.0, 1),
        (range(1, 12), 12, 0.0, 0),  # the first frame has no depth
        (range(1, 61), 23, 37.0, 1),
        (range(1, 60), 23, 37.0, 0),
        (range(60), 23, math.inf, 0),
        (range(1, 23), 23, math.inf, 0),  # a number for each frame, and none for one that was lost
        ((), 23, math.inf, 0),
    ],
)
def test_depth_counts_from_1_where_its_last_number_is_that_of_the_last_frame(
    numbers: Sequence[int], count: int, lost: float, first: int
) -> None:
    assert first_number(numbers, "rgb.mp4", count, lost) == first


def test_nobody_knows_what_depth_counts_from_whose_video_had_any_number_of_frames() -> None:
    with pytest.raises(CorruptFileError, match=r"^rgb\.ts: it was cut short .* rename the depth files"):
        first_number(range(1, 61), "rgb.ts", 23, math.inf)


def test_the_list_names_holes_once_and_leaves_nothing_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = SkipLedger(tmp_path / "skipped_files.csv", 0.0, 10)
    entries = hole_entries([GONE, GONE._replace(reason="no depth for frame 9"), TORN], "a")
    ledger.record({"indices": [0], "holes": entries})
    ledger.record({"indices": [1], "holes": entries, "skipped": [SkippedFile("b.png", "is truncated", "b")]})
    found = read_skipped(tmp_path / "skipped_files.csv")
    assert [(file.path, file.bare_reason, file.is_used) for file in found] == [
        ("depth", "no depth for frame 1", True),
        ("depth/3.png", "is truncated", True),
        ("b.png", "is truncated", False),
    ]
    assert ledger.bad == 1 and [record.levelname for record in caplog.records] == ["WARNING"]
    assert "depth is missing, a hole in its clips: no depth for frame 1" in caplog.text
    assert count_skipped(tmp_path) == (
        "1 file left out, depth missing or damaged at 2 places, holes in its clips, see skipped_files.csv there"
    )
    assert [entry.path for entry in SkipList(tmp_path / "skipped_files.csv").entries] == ["b.png"]
    assert hole_entries([Hole(0, "x", "y", True)], "z")[0].listed_as != SkippedFile("x", "y", "z").listed_as
