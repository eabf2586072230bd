"""Answers never say more than their intervals allow, and the paper's order is counted by the same rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from helpers.reproduction_results import made_results
from m33d_hf.experiments.plan import load_content
from m33d_hf.experiments.report.answers import answer_blocks, answers, overall, short_answers
from m33d_hf.experiments.report.contrasts import Difference, Pair, difference, rounded_down, rounded_up
from m33d_hf.experiments.report.paper import ROWS, order_counts, paper_blocks, paper_values
from m33d_hf.experiments.report.results import load_results
from m33d_hf.experiments.report.two_way import Estimate, holm, paired_p
from m33d_hf.visualization.document import Paragraph, Table


def _difference(verdict: str) -> Difference:
    """A made-up one of that verdict; its interval reaches 1.3 points from zero where nothing is shown."""
    points = {"better": 2.0, "worse": -2.0}.get(verdict, 0.3)
    estimate = None if verdict == "unknown" else Estimate(points, points - 1.0, points + 1.0, 0.01, 8)
    adjusted = None if verdict == "unknown" else 0.01 if verdict in ("better", "worse") else 0.5
    return Difference(Pair("a", "b", "c"), estimate, adjusted, 3, {}, "one seed" if verdict == "unknown" else "")


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ("++", "yes, better in 2 of 2 columns"),
        ("+0", "in part, better in 1 of 2 columns; no difference larger than 1.3 in 1"),
        ("+?", "in part, better in 1 of 2 columns; no verdict in 1"),
        ("-", "no, worse in 1 of 1 column"),
        ("-0?", "no, worse in 1 of 3 columns; no difference larger than 1.3 in 1; no verdict in 1"),
        ("+-0", "mixed: better in 1, worse in 1 of 3 columns; no difference larger than 1.3 in 1"),
        ("000", "not shown: no difference larger than 1.3 in 3 of 3 columns"),
        ("0?", "not shown: no difference larger than 1.3 in 1 of 2 columns; no verdict in 1"),
        ("??", "no verdict (one seed)"),
        ("", "no verdict"),
    ],
)
def test_words_for_verdicts(verdicts: str, text: str) -> None:
    words = {"+": "better", "-": "worse", "0": "no difference shown", "?": "unknown"}
    assert overall([_difference(words[letter]) for letter in verdicts]) == text


def test_words_for_a_difference() -> None:
    said = [_difference(word).text() for word in ("better", "worse", "no difference shown", "unknown")]
    assert said == ["better by 1.0 to 3.0", "worse by 1.0 to 3.0", "no difference larger than 1.3",
                    "no verdict (one seed)"]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.759, 1.941, "better by 0.7 to 2.0"),
        (-3.114, -1.171, "worse by 1.1 to 3.2"),
        (0.3, 0.7, "better by 0.3 to 0.7"),
        (0.1 + 0.2, 0.1 + 0.6, "better by 0.3 to 0.7"),  # which are not quite .3 and .7
        (-0.4, 0.732, "no difference larger than 0.8"),
        (-1.2, 0.9, "no difference larger than 1.2"),
    ],
)
def test_ends_of_intervals_are_rounded_outwards(low: float, high: float, told: str) -> None:
    estimate = Estimate((low + high) / 2, low, high, 0.01, 8)
    assert Difference(Pair("a", "b", "c"), estimate, 0.5 if low < 0 < high else 0.01, 3, {}).text() == told


def test_numbers_behind_a_verdict_are_rounded_outwards_too() -> None:
    """1.1985 to 6.2871 of clips_confirm was printed as 1.20, beside "better by 1.1"."""
    assert [rounded_down(1.1985, 2), rounded_up(6.2871, 2)] == [1.19, 6.29]
    assert [rounded_down(-0.853, 2), rounded_up(-0.853, 2), rounded_down(0.3, 2)] == [-0.86, -0.85, 0.3]


def test_every_question_has_the_known_answer() -> None:
    found = {answer.id: answer for answer in answers(made_results())}
    assert found["winning"].verdict == "yes, better in 3 of 3 columns"
    assert found["sameness"].verdict == "not shown: no difference larger than 2.9 in 3 of 3 columns"
    assert found["losing"].verdict == "no, worse in 3 of 3 columns"
    whys = ["no verdict (a seed failed)", "no verdict (not run)", "no verdict (one seed)"]
    assert [c.verdict for c in found["breaking"].comparisons] == whys
    assert "broken against base: no verdict" in found["breaking"].verdict


def test_the_primary_question_comes_first_and_families_are_adjusted_by_themselves() -> None:
    results = made_results()
    results["questions"][2]["primary"] = True
    first = answers(results)[0]
    assert first.id == "losing" and first.primary
    alone = {d.pair.column: difference(results, "same", "base", d.pair.column).p_adjusted
             for d in answers(results)[2].comparisons[0].differences}  # fmt: skip
    together = [d.p_adjusted for d in answers(results)[2].comparisons[0].differences]
    assert answers(results)[2].id == "sameness"
    assert together == pytest.approx(holm([p for p in alone.values() if p is not None]))


def test_a_row_on_its_floor_gets_no_verdict() -> None:
    results = made_results()
    for entry in results["pretraining"]:
        if entry["variant"] == "win":
            entry.update(diagnostics={"loss/rgb": 0.9919}, loss_floors={"loss/rgb": 127 / 128})
    assert difference(results, "win", "base", "semseg-200").text() == (
        "no verdict (the pre-training of win never left its trivial loss)"
    )
    assert difference(results, "base", "scratch", "semseg-200").verdict == "better", "others are judged"


def test_a_question_that_asks_what_is_not_answered_yes() -> None:
    results = made_results()
    results["questions"][0]["text"] = "What does it cost?"
    results["questions"][2]["text"] = "How much is lost?"
    first, _, third, _ = short_answers(results)
    assert first.startswith("**What does it cost?** Better in 3 of 3 columns (mIoU %, 50 labels: better by 8.1 to 11.9")
    assert third.startswith("**How much is lost?** Worse in 3 of 3")


def test_the_numbers_stand_beside_the_verdict() -> None:
    tables = [block for block in answer_blocks(made_results()) if isinstance(block, Table)]
    assert len(tables) == 4
    same = tables[1].rows[0]
    assert list(same)[:4] == ["same against base", "mIoU %, 50 labels", "+1.00", "-0.85 to +2.85"]
    assert list(same)[7:] == ["3", "no difference larger than 2.9"]
    assert tables[0].rows[0][-1] == "**better by 8.1 to 11.9**"
    whys = {row[0]: row[-1] for row in tables[3].rows}
    assert whys["broken against base"] == "no verdict (a seed failed)"
    said = short_answers(made_results())
    assert said[1] == (
        "**Does sameness help?** Not shown: no difference larger than 2.9 in 3 of 3 columns (measured +1.0)."
    )


def _paper_results(order: list[str]) -> dict[str, Any]:
    """Made-up rows under our names of Table 8, 10 points apart in the given order."""
    results = made_results()
    table = {"id": "table_8", "title": "Losses", "paper": "table_8", "note": "", "columns": ["semseg-200"],
             "rows": [{"variant": name, "label": name, "group": ""} for name in order]}  # fmt: skip
    for place, (old, new) in enumerate(zip(("base", "same", "win"), order, strict=True)):
        for row in results["rows"]:
            if row["variant"] == old:
                row.update(variant=new, value=0.5 - 0.1 * place + 0.01 * (1 + place % 2) * row["seed"])
    return {**results, "tables": [table]}


def test_the_papers_order_is_counted_by_our_rule() -> None:
    results = _paper_results(["m33d", "m33d-no-rgb", "rgbd_mae"])
    table = results["tables"][0]
    assert paper_values(table) == {"m33d": 67.3, "m33d-no-rgb": 66.8, "rgbd_mae": 65.5}
    expected = {"same order": 3, "opposite order": 0, "no difference shown": 0, "unknown": 0}
    assert order_counts(results, table) == expected
    turned = _paper_results(["rgbd_mae", "m33d-no-rgb", "m33d"])
    assert order_counts(turned, turned["tables"][0])["opposite order"] == 3
    for row in results["rows"]:
        row["value"] = 0.3 + 0.01 * (row["seed"] if row["variant"] == "m33d" else 2 - row["seed"])
        row["status"] = "done"
    assert order_counts(results, table)["no difference shown"] == 3


def test_the_papers_numbers_stand_apart() -> None:
    results = _paper_results(["m33d", "m33d-no-rgb", "rgbd_mae"])
    order, numbers = [block for block in paper_blocks(results) if isinstance(block, Table)]
    (said,) = [block.text for block in paper_blocks(results) if isinstance(block, Paragraph)]
    assert "The counts are no verdicts" in said, "nobody declared these pairs"
    assert not any("67.3" in cell for row in order.rows for cell in row)
    assert ["table 8", "m33d", "67.3"] in [list(row) for row in numbers.rows]
    assert "another protocol" in numbers.note
    assert paper_blocks(made_results()) == [], "made-up rows have no counterpart"


def test_the_plan_has_the_rows_that_the_paper_is_held_against() -> None:
    plan = load_content("reproduction")
    tables = {table["paper"]: table["rows"] for table in plan["tables"] if table["paper"]}
    assert tables.keys() == ROWS.keys()
    for name, rows in ROWS.items():
        assert rows.keys() <= set(tables[name]), name


def test_every_named_row_of_the_paper_exists() -> None:
    for name, rows in ROWS.items():
        table = {"id": name, "paper": name, "rows": [{"variant": variant, "label": variant} for variant in rows]}
        values = paper_values(table)
        assert values.keys() == rows.keys()
        assert all(30 < value < 90 for value in values.values())
    assert paper_values({"id": "table_3", "paper": "table_3", "rows": [{"variant": "rgbd_mae", "label": ""}]}) == {
        "rgbd_mae": 65.5
    }


def test_p_values_of_own_pairs_are_scipys() -> None:
    """From the rows of a committed file, fine-tunings of one encoder averaged here by hand."""
    results = load_results(Path(__file__).resolve().parents[3] / "results" / "labels")
    means: dict[tuple[str, int], list[float]] = {}
    for row in results["rows"]:
        if row["column"] == "semseg-50":
            means.setdefault((row["variant"], row["seed"]), []).append(row["value"])
    plus, mae = (
        [sum(means[name, seed]) / len(means[name, seed]) for seed in (0, 1, 2)] for name in ("m33d_plus", "mae-equal")
    )
    found = difference(results, "m33d_plus", "mae-equal", "semseg-50")
    assert found.p_paired == pytest.approx(stats.ttest_rel(plus, mae).pvalue, rel=1e-6) and found.p_paired > 0.05
    assert found.verdict == "better", "pooled noise tells it, own pairs do not"
    assert paired_p([1.0]) is None and paired_p([0.1, 0.1, 0.1]) is None


def test_an_interval_without_zero_that_holm_does_not_let_pass_is_said_to() -> None:
    estimate = Estimate(points=2.0, low=0.3, high=3.7, p=0.03, df=4)
    pair = Pair("a", "b", "semseg")
    assert Difference(pair, estimate, 0.09, 3, {}).text() == (
        "no difference larger than 3.7 (its own interval leaves out 0)"
    )
    across = replace(estimate, low=-0.3)
    assert Difference(pair, across, 0.09, 3, {}).text() == "no difference larger than 3.7"
