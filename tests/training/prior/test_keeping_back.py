"""training/prior/keeping_back.py: whole recordings or the end of each, nothing in both parts, about a fifth."""

from __future__ import annotations

import random

import pytest

from m33d_hf.errors import DataError
from m33d_hf.training.prior.keeping_back import keep_back


@pytest.mark.parametrize(("recordings", "frames"), [(5, 8), (8, 30), (40, 8), (60, 1)])
def test_of_many_recordings_whole_ones_are_kept_back(recordings: int, frames: int) -> None:
    groups = [f"room{number:02d}" for number in range(recordings) for _ in range(frames)]
    random.Random(0).shuffle(groups)
    found = keep_back(groups)
    assert sorted([*found.trained, *found.judged]) == list(range(len(groups)))
    judged, trained = ({groups[row] for row in rows} for rows in (found.judged, found.trained))
    assert not judged & trained and f"{len(judged)} of {recordings} recordings" == found.said
    assert abs(len(found.judged) / len(groups) - 0.2) <= 0.5 / recordings
    assert keep_back(groups) == found, "nothing is drawn anew"


def test_of_few_recordings_stretches_of_each_are_kept_back() -> None:
    one = keep_back(["office"] * 43)
    assert one.judged == [8, 9, 19, 20, 30, 31, 41, 42] and one.said == "4 stretches"
    assert sorted([*one.trained, *one.judged]) == list(range(43))
    two = keep_back(["a", "b"] * 20)
    assert two.judged == [8, 9, 18, 19, 28, 29, 38, 39] and two.said == "4 stretches of each of 2 recordings"


@pytest.mark.parametrize("frames", [5, 7, 12, 30, 200, 1001])
def test_stretches_are_about_a_fifth_and_lie_apart(frames: int) -> None:
    found = keep_back(["one"] * frames) if frames >= 12 else None
    if found is None:
        with pytest.raises(DataError, match="too few"):
            keep_back(["one"] * frames)
        return
    assert abs(len(found.judged) - 0.2 * frames) <= 2 + 0.01 * frames
    gaps = [b - a for a, b in zip(found.judged, found.judged[1:], strict=False) if b - a > 1]
    assert len(gaps) == 3 and min(gaps) > 0.15 * frames and len(found.trained) >= 2 * len(found.judged)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="11 training samples are too few to keep 4 back"):
        keep_back(["one"] * 11)
    with pytest.raises(DataError, match="too few"):
        keep_back(list("abcde"))
