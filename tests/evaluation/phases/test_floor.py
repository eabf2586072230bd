"""evaluation/phases/floor: what a model that looks at nothing reaches, counted by hand."""

import numpy as np
import pytest

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.detection_results import VideoResult
from m33d_hf.evaluation.phases.floor import FLOOR_METRICS, PhaseFloor

NAMES = ["rest", "cut", "sew"]


def video(row: int, phases: list[int]) -> VideoResult:
    """A video of one clip per frame, with predictions that are right: the floor must not look at them."""
    truth = np.array(phases, np.uint8)
    right = np.eye(len(NAMES), dtype=np.float32)[np.minimum(truth, len(NAMES) - 1)]
    starts, readable = np.arange(len(truth)), np.ones(len(truth), bool)
    return VideoResult(row, f"v{row}", 25.0, right, right, truth.astype(np.int64), readable, starts, starts + 1, truth)


def test_every_frame_is_of_the_commonest_phase_of_the_training_clips():
    floor = PhaseFloor([np.array([0, 1, 1, 1]), np.array([2, 1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX])], NAMES)
    assert floor.title == "commonest phase of the training clips (cut)"
    found = floor.metrics([video(0, [0] * 10 + [2] * 9 + [1] * 11), video(1, [1] * 9 + [0] * 4)])
    assert set(found) == {f"floor/{name}" for name in FLOOR_METRICS}
    assert found["floor/frame_accuracy"] == pytest.approx((11 + 9) / 43)
    # Equal scores are one threshold: the precision of a phase is how often it occurs, and these add up to one.
    assert found["floor/map"] == pytest.approx(1 / 3)
    # One segment where there are three, and two: all but one must be inserted.
    assert found["floor/edit"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    # Half of a segment is met in the second video alone: one hit, of two segments predicted and five annotated.
    assert found["floor/f1_50"] == pytest.approx(2 / 7)
    # Per video only "cut" overlaps; the other phases that occur have none. Means over videos, then over phases.
    assert found["floor/phase_jaccard"] == pytest.approx(np.mean([0, (11 / 30 + 9 / 13) / 2, 0]))


def test_without_a_labelled_clip_the_first_phase_stands_for_the_commonest():
    floor = PhaseFloor([np.array([IGNORE_INDEX])], NAMES)
    assert floor.shares.tolist() == [0, 0, 0]
