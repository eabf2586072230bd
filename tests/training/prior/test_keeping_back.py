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


def test_of_few_recordings_the_end_of_each_is_kept_back() -> None:
    one = keep_back(["office"] * 43)
    assert one.judged == list(range(34, 43)) and one.trained == list(range(34)) and one.said == "the last fifth"
    two = keep_back(["a", "b"] * 20)
    assert two.judged == [32, 33, 34, 35, 36, 37, 38, 39] and two.said == "the last fifth of each of 2 recordings"


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="12 training samples are too few to keep 5 back"):
        keep_back(["one"] * 12)
