"""evaluation/clip_floors and floor_table: floors of clip classification, against counts by hand."""

import numpy as np
import pytest

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.classification_metrics import ScoreTable
from m33d_hf.evaluation.clip_floors import FLOOR_METRICS, ClassFloor
from m33d_hf.evaluation.floor_table import floor_table


def table(labels: list[int], classes: int) -> ScoreTable:
    """Videos with a model's scores that the floor must not look at."""
    scores = np.random.default_rng(0).dirichlet(np.ones(classes), len(labels))
    keys = [f"v{number}" for number in range(len(labels))]
    return ScoreTable(keys, np.array(labels), scores, np.ones(len(labels)), np.ones(len(labels), np.int64))


def test_the_commonest_class_of_the_training_clips_is_right_as_often_as_it_occurs():
    floor = ClassFloor([0, 2, 2, 2, 1, IGNORE_INDEX, IGNORE_INDEX], ["wave", "clap", "jump"])
    found = floor.metrics(table([2, 0, 2, 1, IGNORE_INDEX], 3))
    # By hand: of four labelled videos two are "jump"; of three classes that occur one is always right.
    assert found == {"floor/top1": pytest.approx(2 / 4), "floor/mean_class_accuracy": pytest.approx(1 / 3)}


def test_the_lines_have_the_model_and_both_floors():
    floor = ClassFloor([0, 1, 1], ["wave", "clap"])
    metrics = {"top1": 0.75, "mean_class_accuracy": 0.7, **floor.metrics(table([1, 1, 0, 1], 2))}
    lines = [line.split() for line in floor.lines(metrics)]
    assert lines[0][-2:] == list(FLOOR_METRICS)
    assert lines[1] == ["this", "model", "0.750", "0.700"]
    assert lines[2] == ["commonest", "class", "of", "the", "training", "clips", "(clap)", "0.750", "0.500"]
    assert lines[3] == ["uniform", "chance", "among", "2", "classes", "0.500", "0.500"]


def test_figures_stand_below_their_names():
    lines = floor_table(["rmse", "mean_class_accuracy"], {"a": [0.5, 1.25], "a longer row": [10.0, 0.0]})
    assert [len(line) for line in lines] == [len(lines[0])] * 3
    assert all(line.endswith(end) for line, end in zip(lines, ("accuracy", "1.250", "0.000"), strict=True))
    assert all(line[lines[0].index("rmse") + 3] in "e0" for line in lines), "right-aligned"
