"""The top of a demo's report: the sentence is the primary verdict, the frame is taken by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.demo_results import fake_results
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report.demos.answer import chosen_frame, lead, right_shares, shown_predictions
from m33d_hf.experiments.report.demos.images import summary, write_reports

SEGMENTATION = "semantic_segmentation"
FRAMES, SIDE = 11, 4


def _set(results: dict[str, Any], method: str, values: tuple[float, float]) -> None:
    for row in results["rows"]:
        if (row["method"], row["task"], row["labels"]) == (method, SEGMENTATION, 200):
            row["value"] = values[row["seed"]]


def test_the_sentence_says_gain() -> None:
    (sentence,) = lead(as_tables(fake_results()))
    assert sentence.startswith("**Segmentation mIoU %, 200 labels: m33d_plus is better by ")
    assert " points than scratch, and is better by " in sentence
    assert sentence.endswith(" points than mae, at 1.7 times its FLOPs.**"), "5 against 3 TFLOP"
    assert summary(as_tables(fake_results()))[0] == sentence


def test_the_sentence_says_harm_and_nothing_as_plainly() -> None:
    results = fake_results()
    _set(results, "m33d_plus", (0.24, 0.262))
    assert "m33d_plus is worse by " in lead(as_tables(results))[0]
    _set(results, "m33d_plus", (0.351, 0.373))
    (sentence,) = lead(as_tables(results))
    assert "is better by" in sentence and ", and shows no difference larger than " in sentence
    assert sentence.endswith("points to mae, at 1.7 times its FLOPs.**")


def test_the_sentence_says_nothing_of_a_price_that_is_the_same_or_not_known() -> None:
    results = fake_results()
    for entry in results["pretraining"]:
        entry["flops"] = {"m33d_plus": 3.1e12}.get(entry.get("variant", entry.get("method")), 3e12)
    assert lead(as_tables(results))[0].endswith("points than mae.**")
    for entry in results["pretraining"]:
        entry["flops"] = 0.0
    assert lead(as_tables(results))[0].endswith("points than mae.**")


def test_the_sentence_of_a_failed_seed_has_no_verdict() -> None:
    results = fake_results()
    for row in results["rows"]:
        if (row["method"], row["seed"]) == ("scratch", 1):
            row.update(status="failed", error="OSError: disk full")
    assert "m33d_plus gets no verdict (a seed failed) against scratch" in lead(as_tables(results))[0]


def test_nothing_is_said_where_nothing_primary_can_be_asked() -> None:
    results = fake_results()
    results["rows"] = [row for row in results["rows"] if row["method"] != "m33d_plus"]
    assert lead(as_tables(results)) == []


def test_the_shown_frame_is_the_one_that_nine_in_ten_stay_below() -> None:
    # Ten gains below .5 among eleven, in no order: the tenth smallest, place int(.9 * 10) = 9, is .4.
    gains = np.array([0.0, 0.4, -0.1, 0.5, 0.1, 0.2, -0.2, 0.3, 0.05, 0.15, 0.25])
    assert chosen_frame(gains) == 1
    assert chosen_frame(np.array([0.7])) == 0
    assert chosen_frame(np.array([0.1, 0.1, 0.1])) == 0, "the first of equal ones"


def test_shares_count_labelled_pixels_alone() -> None:
    truth = np.array([[[0, 1], [255, 2]], [[255, 255], [255, 255]]])
    guessed = np.array([[[0, 1], [2, 1]], [[0, 0], [0, 0]]])
    assert right_shares(truth, guessed) == pytest.approx([2 / 3, 0.0])


def _with_pictures(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Frame k of scratch has no pixel right; of m33d_plus the first k of its 16 pixels, but in the last frame none."""
    (folder / "pictures").mkdir()
    truth = np.ones((FRAMES, SIDE, SIDE), dtype=np.int64)
    plus = np.zeros_like(truth)
    for frame in range(FRAMES - 1):
        plus[frame].reshape(-1)[:frame] = 1
    for method, predictions in (("scratch", np.zeros_like(truth)), ("m33d_plus", plus)):
        path = f"pictures/{method}.npz"
        images = np.full((FRAMES, SIDE, SIDE, 3), 0.5)
        np.savez_compressed(folder / path, images=images, labels=truth, predictions=predictions)
        for row in results["rows"]:
            if (row["method"], row["task"], row["labels"], row["seed"]) == (method, SEGMENTATION, 200, 0):
                row["picture"] = path
    return results


def test_one_row_of_predictions_of_both_sides(tmp_path: Path) -> None:
    results = as_tables(_with_pictures(fake_results(), tmp_path))
    drawn = shown_predictions(results, tmp_path)
    assert drawn is not None
    figure, caption = drawn
    # Gains in 16ths: 0, 1, ... 9 and again 0; sorted, place 9 of 0..10 holds 8, the median is 4.
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["RGB", "label", "scratch: 0 % right", "m33d_plus: 50 %\nright"]
    assert "Frame 8 of the first 11 test frames" in caption and "+25.0 points" in caption
    assert "0 of 11 frames lose" in caption


def test_the_report_opens_with_sentence_gains_and_predictions(tmp_path: Path) -> None:
    page, text = write_reports(as_tables(_with_pictures(fake_results(), tmp_path)), tmp_path)
    head, _, rest = text.read_text(encoding="utf-8").partition("## In words")
    assert head.count("](figures/") == 2 and head.index("is better by") < head.index("gains.png")
    assert head.index("gains.png") < head.index("predictions_shown.png")
    assert "## Setting" not in head and "trivial floor" in rest
    html = page.read_text(encoding="utf-8")
    assert html.index("is better by") < html.index("data:image/png") < html.index("In words")
