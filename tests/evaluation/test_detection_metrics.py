"""Detection metrics against formulas and searches written independently, on random and on worked examples."""

from __future__ import annotations

import itertools
import math
from functools import cache
from itertools import groupby

import numpy as np
import pytest

from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.evaluation.detection_metrics import (
    average_precision,
    edit_score,
    frame_accuracy,
    frame_scores,
    mean_average_precision,
    segmental_f1,
    segments,
)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _precision_at_each_threshold(scores: np.ndarray, positives: np.ndarray) -> float:
    """The definition, quadratically: walk the distinct scores downwards, weigh precision by the recall gained."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = (chosen & positives).sum() / positives.sum()
        area += (recall - before) * (chosen & positives).sum() / chosen.sum()
        before = recall
    return area


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("levels", [None, 4])
def test_average_precision_equals_the_definition_with_and_without_ties(seed: int, levels: int | None) -> None:
    rng = _rng(seed)
    number = int(rng.integers(1, 60))
    scores = rng.normal(size=number) if levels is None else rng.integers(0, levels, number).astype(float)
    positives = rng.random(number) < 0.3
    positives[rng.integers(number)] = True
    value = average_precision(scores, positives)
    assert value == pytest.approx(_precision_at_each_threshold(scores, positives), abs=1e-12)
    shuffled = rng.permutation(number)
    assert average_precision(scores[shuffled], positives[shuffled]) == pytest.approx(value, abs=1e-12)


def test_average_precision_equals_precision_at_the_ranks_of_positives_and_worked_values() -> None:
    # Without ties the area is the mean over positives of the precision at their rank.
    rng = _rng(0)
    scores, positives = rng.permutation(200) / 7.0, rng.random(200) < 0.2
    ranked = positives[np.argsort(scores)[::-1]]
    at_rank = [ranked[: i + 1].mean() for i in np.flatnonzero(ranked)]
    assert average_precision(scores, positives) == pytest.approx(np.mean(at_rank), abs=1e-12)
    # Worked by hand: thresholds .8, .4, .35, .1 give (recall, precision) (1/2, 1), (1/2, 1/2), (1, 2/3), (1, 1/2).
    assert average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(0.5 + 1 / 3)
    assert average_precision([0.5, 0.5, 0.5, 0.5], [True, False, False, False]) == pytest.approx(0.25)
    assert average_precision([-1.0, -2.0], [True, True]) == 1.0


@pytest.mark.extras
def test_average_precision_equals_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.metrics")
    rng = _rng(3)
    scores, positives = rng.integers(0, 9, 300) / 9.0, rng.random(300) < 0.3
    assert average_precision(scores, positives) == pytest.approx(reference.average_precision_score(positives, scores))


def test_mean_average_precision_leaves_absent_classes_out_and_unannotated_frames() -> None:
    rng = _rng(1)
    scores, labels = rng.random((80, 4)), rng.integers(0, 3, 80)
    labels[10:20] = 255
    mean, per_class = mean_average_precision(scores, labels)
    kept = labels != 255
    expected = [_precision_at_each_threshold(scores[kept, c], labels[kept] == c) for c in range(3)]
    assert per_class[:3] == pytest.approx(expected) and math.isnan(per_class[3])
    assert mean == pytest.approx(np.mean(expected))
    changed = scores.copy()
    changed[10:20] = 1e9  # what is said about unannotated frames does not count
    assert mean_average_precision(changed, labels)[0] == mean


def test_a_nan_score_shows() -> None:
    scores = np.full((4, 2), 0.5)
    scores[1, 0] = math.nan
    mean, per_class = mean_average_precision(scores, [0, 0, 1, 1])
    assert math.isnan(mean) and math.isnan(per_class[0]) and per_class[1] == 0.5


def test_what_is_empty_is_nan_and_what_does_not_fit_is_said() -> None:
    empty = np.empty(0)
    assert math.isnan(average_precision(empty, empty))
    assert math.isnan(average_precision([0.3], [False]))
    mean, per_class = mean_average_precision(np.empty((0, 2)), empty)
    assert math.isnan(mean) and np.isnan(per_class).all()
    assert math.isnan(frame_accuracy([1, 1], [255, 255])) and math.isnan(edit_score(empty, empty))
    assert segments(empty) == [] and math.isnan(edit_score([1], [255]))
    assert all(math.isnan(value) for value in segmental_f1([]).values())
    assert all(math.isnan(value) for value in segmental_f1([([0, 1], [255, 255])]).values())
    for nothing in ([], [([0, 1], [255, 255])]):
        assert all(math.isnan(value) for value in frame_scores(nothing).values())
    with pytest.raises(LabelError, match="outside the 2 classes"):
        mean_average_precision(np.zeros((1, 2)), [2])
    with pytest.raises(LabelError, match=r"must both be \(T,\)"):
        edit_score([1, 2], [1])
    with pytest.raises(LabelError, match=r"must both be \(N,\)"):
        average_precision([1.0], [True, False])
    with pytest.raises(LabelError, match=r"must both be \(T,\)"):
        frame_scores([([0, 0], [0, 0, 1])])
    with pytest.raises(ConfigError, match="overlap is 0"):
        segmental_f1([], overlaps=(0.0,))


def test_frame_accuracy_and_segments() -> None:
    assert frame_accuracy([0, 1, 2, 2], [0, 1, 1, 255]) == pytest.approx(2 / 3)
    assert segments([3, 3, 255, 3, 0, 0]) == [(0, 2, 3), (3, 4, 3), (4, 6, 0)]
    ids = _rng(4).integers(0, 3, 200)
    rebuilt = np.concatenate([np.full(stop - start, name) for start, stop, name in segments(ids)])
    assert np.array_equal(rebuilt, ids)


def _runs(ids: list[int]) -> list[tuple[int, set[int]]]:
    """Runs as (id, set of frames)."""
    parts = ((name, [i for i, _ in group]) for name, group in groupby(enumerate(ids), key=lambda pair: pair[1]))
    return [(name, set(frames)) for name, frames in parts]


def _recursive_edit(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        if first[i - 1] == second[j - 1]:
            return distance(i - 1, j - 1)
        return 1 + min(distance(i - 1, j), distance(i, j - 1), distance(i - 1, j - 1))

    return distance(len(first), len(second))


def _random_video(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, labels) of runs of random length, some frames without annotation."""
    rng = _rng(seed)

    def draw(length: int) -> np.ndarray:
        ids = np.repeat(rng.integers(0, 3, length), rng.integers(1, 8, length))
        return ids[:length]

    length = int(rng.integers(1, 60))
    labels = draw(length)
    predictions = np.where(rng.random(length) < 0.8, labels, draw(length))
    hole = int(rng.integers(0, length))
    labels[hole : hole + int(rng.integers(0, 6))] = 255
    return predictions, labels


def _kept(video: tuple[np.ndarray, np.ndarray]) -> tuple[list[int], list[int]]:
    kept = [i for i, label in enumerate(video[1].tolist()) if label != 255]
    return [int(video[0][i]) for i in kept], [int(video[1][i]) for i in kept]


def _f1_from_sets(videos: list[tuple[np.ndarray, np.ndarray]], overlap: float) -> float:
    right = wrong = missed = 0
    for video in videos:
        predicted, truth = (_runs(ids) for ids in _kept(video))
        used = [False] * len(truth)
        for name, frames in predicted:
            ratios = [len(frames & other) / len(frames | other) if name == n else 0.0 for n, other in truth]
            best = max(range(len(truth)), key=lambda i: (ratios[i], -i))
            if ratios[best] >= overlap and not used[best]:
                used[best], right = True, right + 1
            else:
                wrong += 1
        missed += used.count(False)
    precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
    return 2 * precision * recall / (precision + recall) if right else 0.0


@pytest.mark.parametrize("seed", range(30))
def test_edit_and_f1_equal_independent_searches(seed: int) -> None:
    videos = [_random_video(seed * 10 + i) for i in range(3)]
    videos = [video for video in videos if (video[1] != 255).any()]
    for video in videos:
        first, second = (tuple(name for name, _ in _runs(ids)) for ids in _kept(video))
        expected = 1 - _recursive_edit(first, second) / max(len(first), len(second))
        assert edit_score(*video) == pytest.approx(expected)
    for overlap, value in zip((0.1, 0.25, 0.5), segmental_f1(videos).values(), strict=True):
        assert value == pytest.approx(_f1_from_sets(videos, overlap))


@pytest.mark.parametrize("seed", range(15))
def test_properties(seed: int) -> None:
    predictions, labels = _random_video(seed)
    if not (labels != 255).any():
        labels[0] = 0
    scores = list(segmental_f1([(predictions, labels)]).values())
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    assert 0 <= edit_score(predictions, labels) <= 1
    assert edit_score(labels, labels) == 1 and set(segmental_f1([(labels, labels)]).values()) == {1.0}
    # Stretching time changes neither segments nor overlaps.
    slow = predictions.repeat(5), labels.repeat(5)
    assert edit_score(*slow) == edit_score(predictions, labels)
    assert segmental_f1([slow]) == pytest.approx(segmental_f1([(predictions, labels)]))
    assert frame_accuracy(*slow) == pytest.approx(frame_accuracy(predictions, labels))


def test_over_segmentation_costs_edit_and_f1_but_little_accuracy() -> None:
    labels = np.repeat([0, 1], 50)
    flicker = labels.copy()
    flicker[[10, 20, 30, 70, 80]] = 2
    assert frame_accuracy(flicker, labels) == 0.95
    # 0 2 0 2 0 2 0 1 2 1 2 1 against 0 1: ten of twelve segments are too many.
    assert edit_score(flicker, labels) == pytest.approx(1 - 10 / 12)
    assert segmental_f1([(flicker, labels)])["f1_10"] == pytest.approx(2 * 2 / (12 + 2))


def test_an_overlap_that_is_met_exactly_counts_and_a_segment_is_matched_once() -> None:
    labels = np.zeros(20, np.int64)
    half = np.repeat([0, 1], 10)
    assert segmental_f1([(half, labels)])["f1_50"] == pytest.approx(2 * 1 / (2 + 1))
    third = np.repeat([0, 1, 0], [5, 10, 5])  # both outer parts overlap the one segment by a quarter
    assert segmental_f1([(third, labels)])["f1_25"] == pytest.approx(2 * 1 / (3 + 1))


def test_f1_is_pooled_over_videos_and_not_averaged() -> None:
    good = (np.repeat([0, 1, 0, 1], 5), np.repeat([0, 1, 0, 1], 5))
    bad = (np.zeros(5, np.int64), np.ones(5, np.int64))
    assert segmental_f1([good, bad])["f1_50"] == pytest.approx(2 * 4 / (5 + 5))


def test_unannotated_frames_are_removed_before_segments_are_cut() -> None:
    labels = np.array([0, 0, 255, 255, 0, 0, 1])
    predictions = np.array([0, 0, 1, 1, 0, 0, 1])
    assert edit_score(predictions, labels) == 1.0
    assert segmental_f1([(predictions, labels)])["f1_50"] == 1.0


def test_all_scores_at_once_equal_the_single_ones() -> None:
    videos = [_random_video(seed) for seed in range(4)]
    videos[1][1][::3] = 255
    result = frame_scores([*videos, (np.ones(3), np.full(3, 255))])
    predicted, labels = (np.concatenate([video[side] for video in videos]) for side in (0, 1))
    assert result.keys() == {"frame_accuracy", "edit", "f1_10", "f1_25", "f1_50"}
    assert result["frame_accuracy"] == frame_accuracy(predicted, labels)
    assert result["edit"] == pytest.approx(np.mean([edit_score(*video) for video in videos]))
    assert segmental_f1(videos).items() <= result.items()


def test_evaluate_faces_equal_the_functions() -> None:
    pytest.importorskip("evaluate")
    from m33d_hf.evaluation.evaluate_metrics import mean_average_precision_metric, segmental_metric

    rng = _rng(9)
    scores, labels = rng.random((50, 3)).astype(np.float32), rng.integers(0, 2, 50)
    labels[:5] = 255
    face = mean_average_precision_metric(keep_in_memory=True)
    face.add_batch(predictions=scores[:20], references=labels[:20])
    face.add_batch(predictions=scores[20:], references=labels[20:])
    mean, per_class = mean_average_precision(scores, labels)
    result = face.compute()
    assert result["mean_average_precision"] == pytest.approx(mean)
    assert result["per_class_average_precision"] == pytest.approx(per_class, nan_ok=True)

    videos = [_random_video(seed) for seed in range(3)]
    whole = segmental_metric(keep_in_memory=True)
    whole.add_batch(predictions=[video[0] for video in videos], references=[video[1] for video in videos])
    found = whole.compute()
    assert {key: found[key] for key in ("f1_10", "f1_25", "f1_50")} == pytest.approx(segmental_f1(videos))
    pooled = [np.concatenate(list(ids)) for ids in zip(*videos)]
    assert found["frame_accuracy"] == pytest.approx(frame_accuracy(*pooled))
    assert found["edit"] == pytest.approx(np.mean([edit_score(*video) for video in videos]))


def test_random_orders_of_the_videos_do_not_matter() -> None:
    videos = [_random_video(seed) for seed in range(3)]
    results = [segmental_f1(list(order)) for order in itertools.permutations(videos)]
    assert all(result == results[0] for result in results)
