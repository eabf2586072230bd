"""What stands on top of a demo's report: one sentence, one picture of gains, one row of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.experiments.report.answers import Comparison, answers
from m33d_hf.experiments.report.comparison import BETTER, UNDECIDED, WORSE
from m33d_hf.experiments.report.contrasts import Difference, rounded_up
from m33d_hf.experiments.report.demos.figures import kept_arrays
from m33d_hf.experiments.report.figures import Drawn, differences_to_first, draw
from m33d_hf.experiments.report.results import DONE, Results, column_entry, cost, labels
from m33d_hf.visualization.document import Block, Paragraph

SHOWN_RANK = 0.9  # share of the frames whose gain is smaller than that of the one that is shown
IGNORED = 255
_ALIKE = 0.05  # FLOPs that differ by a smaller share are the same
TASK = "semantic_segmentation"


def lead(results: Results) -> list[str]:
    """The primary question's verdicts as one sentence; nothing where none is declared or can be asked."""
    for found in answers(results):
        if found.primary and found.comparisons:
            return [f"**{_sentence(results, found.comparisons)}**"]
    return []


def _sentence(results: Results, comparisons: Sequence[Comparison]) -> str:
    """Such as "Segmentation mIoU %, 200 labels: m33d_plus is better by 4.9 to 9.1 points than scratch, and shows no
    difference larger than 2.0 points to mae, at 2.0 times its FLOPs."
    """
    names = labels(results)
    first = comparisons[0].differences[0].pair
    title = column_entry(results, first.column)["title"]
    found = [one for each in comparisons for one in each.differences]
    parts = [_part(one, names.get(one.pair.than, one.pair.than)) + _price(results, one) for one in found]
    return f"{title[:1].upper()}{title[1:]}: {names.get(first.better, first.better)} {', and '.join(parts)}."


def _part(found: Difference, than: str) -> str:
    if found.verdict in (BETTER, WORSE):
        return f"is {found.text()} points than {than}"
    if found.verdict == UNDECIDED:
        return f"shows no difference larger than {rounded_up(found.bound):.1f} points to {than}"
    return f"gets {found.text()} against {than}"


def _price(results: Results, found: Difference) -> str:
    """What one side's pre-training costs of the other's, where both have one and it is not the same."""
    ours, theirs = (cost(results, name) for name in (found.pair.better, found.pair.than))
    if found.verdict not in (BETTER, WORSE, UNDECIDED) or ours is None or theirs is None:
        return ""
    if min(ours.flops, theirs.flops) <= 0:
        return ""
    times = ours.flops / theirs.flops
    return "" if abs(times - 1) < _ALIKE else f", at {times:.1f} times its FLOPs"


def top_blocks(results: Results, folder: Path) -> list[Block]:
    """Sentence, gains over the table's first row with intervals, and one row of predictions of both."""
    blocks: list[Block] = [Paragraph(sentence, "lead") for sentence in lead(results)]
    if results["tables"]:
        blocks += draw(folder, "gains", differences_to_first(results, results["tables"][0]))
    return [*blocks, *draw(folder, "predictions_shown", shown_predictions(results, folder))]


def shown_predictions(results: Results, folder: Path) -> Drawn | None:
    """RGB, truth, and both sides of the primary comparison, on one test frame that `chosen_frame` takes."""
    from m33d_hf.visualization.dense import segmentation_figure

    kept = _primary_pictures(results, folder)
    if kept is None:
        return None
    (than, before), (better, after) = kept
    truth, images = before["labels"], before["images"]
    shares = {name: right_shares(truth, arrays["predictions"]) for name, arrays in ((than, before), (better, after))}
    gains = shares[better] - shares[than]
    frame = chosen_frame(gains)
    predictions: dict[str, Sequence[np.ndarray]] = {
        f"{name}: {100 * shares[name][frame]:.0f} % right": [arrays["predictions"][frame]]
        for name, arrays in ((than, before), (better, after))
    }
    figure = segmentation_figure(
        [images[frame]], [truth[frame]], predictions, results["class_names"], f"Test frame {frame}"
    )
    return figure, (
        f"Frame {frame} of the first {len(gains)} test frames, predicted from its picture alone by the first seed. Of"
        f" these frames, {100 * SHOWN_RANK:.0f} % gain less than this one: {better} has"
        f" {100 * float(np.median(gains)):+.1f} points of right pixels in the median frame, and"
        f" {int((gains < 0).sum())} of {len(gains)} frames lose."
    )


def _primary_pictures(
    results: Results, folder: Path
) -> tuple[tuple[str, Mapping[str, Any]], tuple[str, Mapping[str, Any]]] | None:
    """(than, arrays), (better, arrays) of the primary comparison's first column, if both left pictures of one task."""
    for found in answers(results):
        if found.primary and found.comparisons:
            pair = found.comparisons[0].differences[0].pair
            if column_entry(results, pair.column).get("task") == TASK:
                arrays = [_arrays(results, name, pair.column, folder) for name in (pair.than, pair.better)]
                if arrays[0] is not None and arrays[1] is not None:
                    return (pair.than, arrays[0]), (pair.better, arrays[1])
    return None


def _arrays(results: Results, variant: str, column: str, folder: Path) -> Mapping[str, Any] | None:
    """What the first row with pictures left: `images`, `labels`, `predictions`, over frames."""
    for row in results["rows"]:
        if (row["variant"], row["column"], row["status"]) == (variant, column, DONE) and row.get("picture"):
            with kept_arrays(folder, row["picture"]) as arrays:
                return {name: arrays[name] for name in ("images", "labels", "predictions")}
    return None


def right_shares(truth_NHW: np.ndarray, predictions_NHW: np.ndarray) -> np.ndarray:
    """(N,) share of labelled pixels that are right, in every frame; 0 for one without labels."""
    known = truth_NHW != IGNORED
    right = ((truth_NHW == predictions_NHW) & known).sum(axis=(1, 2))
    return np.asarray(right / np.maximum(known.sum(axis=(1, 2)), 1), dtype=np.float64)


def chosen_frame(gains_N: np.ndarray) -> int:
    """The frame whose gain is larger than that of `SHOWN_RANK` of the frames; the first of equal ones.

    Args:
        gains_N: of every frame.
    """
    order = np.argsort(gains_N, kind="stable")
    wanted = gains_N[order[int(SHOWN_RANK * (len(order) - 1))]]
    return int(np.flatnonzero(gains_N == wanted)[0])
