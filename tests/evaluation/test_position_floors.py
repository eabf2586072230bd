"""What a model that looks at nothing predicts, against counts by hand."""

from __future__ import annotations

import math

import torch

from m33d_hf.evaluation.position_floors import PositionMean, PositionMode


def test_the_mean_depth_of_a_position_leaves_holes_out() -> None:
    floor = PositionMean()
    for row in ([1.0, math.nan, math.nan], [3.0, 5.0, math.nan]):
        floor.update(torch.tensor([row]))
    assert floor.map().tolist() == [[2.0, 5.0, 3.0]], "a position without a measurement has the mean of all: 9 / 3"


def test_the_commonest_class_of_a_position_leaves_ignored_pixels_out() -> None:
    floor = PositionMode(3)
    for row in ([0, 255, 2], [0, 255, 1], [1, 2, 1]):
        floor.update(torch.tensor([row], dtype=torch.uint8))
    assert floor.map().tolist() == [[0, 2, 1]]
