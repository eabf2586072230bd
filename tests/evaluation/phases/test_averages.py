"""Averages of phase metrics against plain loops, the published scripts' means, and scikit-learn per video."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.evaluation.phases.averages import ORDERS, UNDEFINED, averages, phase_averages, settled_values
from m33d_hf.evaluation.phases.counts import METRICS, PhaseVideo, confusion, count_phases

NAMES = ["a", "b", "c", "d", "e"]


def _videos(seed: int, count: int = 5) -> list[PhaseVideo]:
    """Videos with phases that are missing, never predicted, invented; unannotated frames; one with nothing at all."""
    rng = np.random.default_rng(seed)
    videos = []
    for number in range(count):
        length = int(rng.integers(1, 60))
        there, told = (rng.choice(5, rng.integers(1, 5), replace=False) for _ in range(2))
        truth, predicted = rng.choice(there, length), rng.choice(told, length)
        predicted = np.where(rng.random(length) < 0.4, truth, predicted)
        truth = np.where(rng.random(length) < 0.1, 255, truth)
        videos.append(PhaseVideo(f"v{number}", predicted, truth, 1.0))
    return [*videos, PhaseVideo("bare", np.zeros(4, int), np.full(4, 255), 1.0)]


def _value(metric: str, pairs: Sequence[tuple[int, int]], phase: int, undefined: str) -> float | None:
    """One value of (predicted, truth) pairs by its definition; None where it leaves the means."""
    if not pairs:
        return None
    hits = sum(p == t == phase for p, t in pairs)
    told, there = sum(p == phase for p, _ in pairs), sum(t == phase for _, t in pairs)
    if undefined in ("exclude_absent", "exclude_absent_rest_zero") and not there:
        return None
    if undefined in ("exclude_undefined", "occurring_rest_zero") and not there and not told:
        return None
    below = {"precision": told, "recall": there, "jaccard": told + there - hits, "f1": (told + there) / 2}[metric]
    if below:
        return hits / below
    return 0.0 if undefined.endswith("zero") else None


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None


def _spread(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return statistics.stdev(kept) if len(kept) > 1 else None


def _same(found: float, wanted: float | None) -> bool:
    return math.isnan(found) if wanted is None else found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("undefined", UNDEFINED)
@pytest.mark.parametrize("order", ORDERS)
def test_every_convention_is_the_mean_of_its_definition(undefined: str, order: str) -> None:
    for seed in range(25):
        videos = _videos(seed)
        split = [[(p, t) for p, t in zip(v.predictions, v.labels, strict=True) if t != 255] for v in videos]
        parts = [[pair for part in split for pair in part]] if order == "pooled_frames" else split
        found = averages(count_phases(videos, NAMES), undefined, order)
        rights = [sum(p == t for p, t in part) / len(part) if part else None for part in parts]
        assert _same(found["accuracy"].mean, _mean(rights)) and _same(found["accuracy"].over_videos, _spread(rights))
        macro: dict[str, list[float | None]] = {}
        for metric in METRICS:
            table = [[_value(metric, part, phase, undefined) for phase in range(5)] for part in parts]
            videos_first = [_mean([row[phase] for row in table]) for phase in range(5)]
            phases_first = macro[metric] = [_mean(row) for row in table]
            wanted = _mean(videos_first if order == "videos_then_phases" else phases_first)
            assert _same(found[metric].mean, wanted), (seed, metric)
            assert _same(found[metric].over_phases, _spread(videos_first))
            assert _same(found[metric].over_videos, _spread(phases_first))
        if order != "pooled_frames":
            each = [_harmonic(p, r) for p, r in zip(macro["precision"], macro["recall"], strict=True)]
            assert _same(found["f1_of_video_means"].mean, _mean(each))
        both = (found["precision"].mean, found["recall"].mean)
        assert _same(found["f1_of_means"].mean, _harmonic(*(None if math.isnan(value) else value for value in both)))


def _harmonic(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return None
    return 2 * first * second / (first + second) if first + second else 0.0


def test_conventions_differ_where_a_phase_is_missing() -> None:
    truth = [0] * 10 + [1] * 10
    videos = [PhaseVideo("x", np.array([0] * 10 + [1] * 8 + [2] * 2), np.array(truth))]
    found = {name: averages(count_phases(videos, ["a", "b", "c"]), name)["precision"].mean for name in UNDEFINED}
    assert found == pytest.approx(
        {
            "exclude_undefined": 2 / 3,  # c was invented: precision 0
            "exclude_absent": 1.0,
            "exclude_absent_rest_zero": 1.0,
            "occurring_rest_zero": 2 / 3,
            "zero": 2 / 3,
        }
    )
    jaccard = {name: averages(count_phases(videos, NAMES), name)["jaccard"].mean for name in UNDEFINED}
    assert jaccard["exclude_absent"] == pytest.approx(0.9) and jaccard["zero"] == pytest.approx(1.8 / 5)


def test_the_published_means_and_deviations() -> None:
    """Main.m: nanmean over videos, mean and std (n - 1) over phases; accuracy over videos."""
    videos = _videos(3)[:-1]
    counts = count_phases(videos, NAMES)
    values = np.where(counts.annotated > 0, counts.values()["jaccard"], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        per_phase = np.nanmean(values, axis=0)
    found = averages(counts)
    assert found["jaccard"].mean == pytest.approx(np.nanmean(per_phase))
    assert found["jaccard"].over_phases == pytest.approx(np.nanstd(per_phase, ddof=1))
    assert found["accuracy"].over_videos == pytest.approx(np.std(counts.accuracy(), ddof=1))
    told = phase_averages(counts, "exclude_absent")["jaccard"]
    np.testing.assert_allclose(told[0], per_phase)
    assert told[2].tolist() == np.isfinite(values).sum(axis=0).tolist()


@pytest.mark.extras
def test_each_video_is_that_of_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.metrics")
    calls = {
        "precision": reference.precision_score,
        "recall": reference.recall_score,
        "jaccard": reference.jaccard_score,
        "f1": reference.f1_score,
    }
    for seed in range(6):
        videos = [video for video in _videos(seed) if (video.labels != 255).any()]
        counts = count_phases(videos, NAMES)
        occurring = settled_values(counts, "occurring_rest_zero")
        everything, undefined = settled_values(counts, "zero"), counts.values()
        for place, video in enumerate(videos):
            predicted, truth = video.annotated()
            for metric, call in calls.items():
                options = {"zero_division": 0.0}
                macro = call(truth, predicted, average="macro", **options)
                assert np.nanmean(occurring[metric][place]) == pytest.approx(macro)
                each = call(truth, predicted, average=None, labels=range(5), **options)
                np.testing.assert_allclose(everything[metric][place], each)
                if metric != "jaccard":  # whose zero_division knows no NaN
                    each = call(truth, predicted, average=None, labels=range(5), zero_division=np.nan)
                    np.testing.assert_allclose(undefined[metric][place], each)
        wanted = sum(reference.confusion_matrix(*reversed(video.annotated()), labels=range(5)) for video in videos)
        np.testing.assert_array_equal(confusion(videos, 5), wanted)


def test_nothing_to_measure_is_nan() -> None:
    bare = [PhaseVideo("x", np.zeros(3, int), np.full(3, 255)), PhaseVideo("y", np.zeros(0, int), np.zeros(0, int))]
    for videos in (bare, []):
        for undefined in UNDEFINED:
            for order in ORDERS:
                found = averages(count_phases(videos, NAMES), undefined, order)
                assert all(math.isnan(each.mean) and math.isnan(each.over_videos) for each in found.values())


def test_frames_without_a_prediction_are_wrong_and_predict_nothing() -> None:
    counts = count_phases([PhaseVideo("x", np.array([0, 255, 1, 255]), np.array([0, 0, 1, 1]))], ["a", "b"])
    assert counts.accuracy()[0] == 0.5
    values = counts.values()
    assert values["precision"][0].tolist() == [1, 1] and values["recall"][0].tolist() == [0.5, 0.5]


def test_a_video_without_a_rate_has_no_relaxed_values() -> None:
    videos = [PhaseVideo("x", np.array([0, 1, 1]), np.array([0, 0, 1]))]
    assert math.isnan(averages(count_phases(videos, NAMES, "relaxed_neighbours"))["accuracy"].mean)
    assert averages(count_phases(videos, NAMES))["accuracy"].mean == pytest.approx(2 / 3)


def test_bad_input_names_the_video_and_what_is_possible() -> None:
    with pytest.raises(LabelError, match="v7: label 9 is none of the 5 phases"):
        count_phases([PhaseVideo("v7", np.zeros(2, int), np.array([0, 9]))], NAMES)
    with pytest.raises(LabelError, match=r"v7: predictions \(2,\) and labels \(3,\)"):
        count_phases([PhaseVideo("v7", np.zeros(2, int), np.zeros(3, int))], NAMES)
    counts = count_phases([PhaseVideo("x", np.zeros(2, int), np.zeros(2, int))], NAMES)
    with pytest.raises(ConfigError, match=r"'exclude_absnt' is no convention.*exclude_absent"):
        averages(counts, "exclude_absnt")
    with pytest.raises(ConfigError, match="'pooled' is no order of averages; they are videos_then_phases"):
        averages(counts, order="pooled")
