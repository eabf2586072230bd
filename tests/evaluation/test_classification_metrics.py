"""Metrics by video: averages over views, duplicates, ranks, ties, few classes, and the files."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from m33d_hf.errors import LabelError
from m33d_hf.evaluation.classification_metrics import (
    VideoScores,
    label_ranks,
    write_confusion,
    write_predictions,
)


def _rows(videos: int, views: int, classes: int) -> list[tuple[int, tuple[int, int], str, int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(videos, views, classes, generator=generator) * 2
    labels = torch.randint(classes, (videos,), generator=generator)
    return [(i, (v, 0), f"v{i}", int(labels[i]), logits[i, v]) for i in range(videos) for v in range(views)]


def _scores(rows: list, classes: int, chunk: int = 4) -> VideoScores:
    scores = VideoScores(classes)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        indices, views, keys, labels, logits = zip(*part, strict=True)
        scores.update(indices, views, keys, torch.tensor(labels), torch.stack(logits))
    return scores


def test_against_torch_in_one_formula() -> None:
    rows = _rows(40, 3, 12)
    found = _scores(rows, 12).table().metrics()
    logits = torch.stack([row[4] for row in rows]).double().reshape(40, 3, 12)
    labels = torch.tensor([row[3] for row in rows]).reshape(40, 3)[:, 0]
    mean = logits.softmax(-1).mean(1)
    top5 = (mean.topk(5, dim=1).indices == labels[:, None]).any(1).double().mean()
    hits = mean.argmax(1) == labels
    per_class = [hits[labels == c].double().mean() for c in labels.unique()]
    assert found["top1"] == pytest.approx(hits.double().mean().item())
    assert found["top5"] == pytest.approx(top5.item())
    assert 0 < found["top1"] < found["top5"] < 1
    assert found["mean_class_accuracy"] == pytest.approx(torch.stack(per_class).mean().item())
    loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(3)).item()
    assert found["loss"] == pytest.approx(loss)
    assert found["samples"] == 40


def test_duplicates_count_once_and_order_does_not_matter() -> None:
    rows = _rows(10, 4, 7)
    whole = _scores(rows, 7).table()
    doubled = [*rows, *rows[::3], rows[5]]
    random.Random(1).shuffle(doubled)
    again = _scores(doubled, 7, chunk=3).table()
    assert again.keys == whole.keys
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)
    assert again.metrics() == whole.metrics()
    assert (again.views == 4).all()


def test_ranks_merge_whatever_the_split() -> None:
    rows = _rows(9, 2, 4)
    whole = _scores(rows, 4).table().metrics()
    one, two = _scores(rows[:5], 4), _scores(rows[3:], 4)  # a video's views on both, one of them twice
    one.merge(two)
    assert one.table().metrics() == whole
    empty = VideoScores(4)
    empty.merge(_scores(rows, 4))
    assert empty.table().metrics() == whole


def test_ties_go_to_the_lower_class_like_argmax() -> None:
    even = np.full((3, 6), 1 / 6)
    assert label_ranks(even, np.array([0, 2, 5])).tolist() == [0, 2, 5]
    scores = VideoScores(6)
    scores.update([0, 1], [(0, 0)] * 2, ["a", "b"], [0, 5], np.zeros((2, 6)))
    found = scores.table().metrics()
    assert found["top1"] == 0.5 and found["top5"] == 0.5


def test_up_to_five_classes_the_label_is_always_among_the_first_five() -> None:
    assert _scores(_rows(20, 1, 5), 5).table().metrics()["top5"] == 1.0
    assert _scores(_rows(20, 1, 2), 2).table().metrics()["top5"] == 1.0
    assert _scores(_rows(200, 1, 6), 6).table().metrics()["top5"] < 1.0


def test_videos_without_a_label_are_predicted_but_not_judged(tmp_path: Path) -> None:
    scores = VideoScores(3)
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]])
    scores.update([4, 2, 0], [(0, 0)] * 3, ["d", "c", 'a,"x"'], [0, 255, 2], logits)
    table = scores.table()
    assert table.metrics()["samples"] == 2 and table.metrics()["top1"] == 0.5
    assert table.metrics()["loss"] == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)
    write_predictions(table, ["left", "up", "down"], tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["key"] for line in lines] == ['a,"x"', "c", "d"]
    assert [line["label"] for line in lines] == ["down", "", "left"]
    assert [line["predicted"] for line in lines] == ["up", "down", "left"]
    assert [line["correct"] for line in lines] == ["0", "", "1"]
    assert float(lines[0]["label_probability"]) == pytest.approx(0.3, abs=1e-6)
    assert float(lines[0]["predicted_probability"]) == pytest.approx(0.5, abs=1e-6)
    assert lines[0]["top5"].startswith("up:0.5") and lines[0]["top5"].count("|") == 2
    assert lines[0]["views"] == "1"


def test_confusion_counts_and_its_file(tmp_path: Path) -> None:
    scores = VideoScores(2)
    scores.update(range(4), [(0, 0)] * 4, list("abcd"), [0, 0, 1, 255], np.array([[1, 0], [0, 1], [0, 1], [0, 1]]))
    matrix = scores.table().confusion()
    assert matrix.tolist() == [[1, 1], [0, 1]]
    write_confusion(matrix, ["cut", "knot"], tmp_path / "confusion.csv")
    with (tmp_path / "confusion.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [["cut", "1", "1"], ["knot", "0", "1"]]


def test_nothing_seen_is_nan_and_wrong_labels_are_refused() -> None:
    empty = VideoScores(3).table()
    assert math.isnan(empty.metrics()["top1"]) and empty.metrics()["samples"] == 0
    assert empty.confusion().sum() == 0
    with pytest.raises(LabelError, match="label 3 is outside the 3 classes"):
        VideoScores(3).update([0], [(0, 0)], ["a"], [3], np.zeros((1, 3)))
    with pytest.raises(LabelError, match="expected \\(1, 3\\)"):
        VideoScores(3).update([0], [(0, 0)], ["a"], [1], np.zeros((1, 4)))


def test_a_write_that_fails_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path / "confusion.csv")
    before = (tmp_path / "confusion.csv").read_text()

    def full(path: Path, text: str, **_: object) -> int:
        path.write_bytes(text.encode()[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_confusion(np.ones((2, 2), dtype=int), ["a", "b"], tmp_path / "confusion.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["confusion.csv"]
    assert (tmp_path / "confusion.csv").read_text() == before


def test_clips_of_further_cameras_are_views_of_the_first_one() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(5)).numpy()
    scores = VideoScores(3)
    # Two segments of clip 0 by the first camera; 4 and 5 show the same moment; 1 and its twin 2: 1 could not be read.
    rows = [(0, 0, "a", 1), (0, 1, "a", 1), (4, 0, "b", 1), (5, 0, "c", 2), (2, 0, "d", 0), (3, 0, "e", 2)]
    for (index, segment, key, label), row in zip(rows, logits, strict=True):
        scores.update([index], [(segment, 0)], [key], [label], row[None])
    table = scores.joined({4: 0, 5: 0, 2: 1}).table()
    assert (table.keys, table.labels.tolist(), table.views.tolist()) == (["a", "d", "e"], [1, 0, 2], [4, 1, 1])
    shares = F.softmax(torch.from_numpy(logits).double(), -1)
    np.testing.assert_allclose(table.probabilities[0], shares[:4].mean(0), rtol=1e-12)
    np.testing.assert_allclose(table.losses[0], -shares[:4, 1].log().mean(), rtol=1e-12)
    whole, same = scores.table(), scores.joined({}).table()
    assert same.keys == whole.keys and np.array_equal(same.probabilities, whole.probabilities)
