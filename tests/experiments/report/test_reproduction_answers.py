"""Answers never say more than the spread allows, and the paper's order is counted by the same rule."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.reproduction_results import made_results
from m33d_hf.experiments.plan import load_content
from m33d_hf.experiments.report.answers import answer_blocks, answers, overall, short_answers
from m33d_hf.experiments.report.paper import ROWS, order_counts, paper_blocks, paper_values
from m33d_hf.visualization.document import Table


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        (["better", "better"], "yes, better beyond the spread in 2 of 2 columns"),
        (["better", "within the spread"], "in part, better beyond the spread in 1 of 2 columns; within it in 1"),
        (["better", "unknown"], "in part, better beyond the spread in 1 of 2 columns; unknown in 1"),
        (["worse"], "no, worse beyond the spread in 1 of 1 column"),
        (["worse", "within the spread", "unknown"],
         "no, worse beyond the spread in 1 of 3 columns; within it in 1; unknown in 1"),
        (["better", "worse", "within the spread"],
         "mixed: better beyond the spread in 1, worse in 1 of 3 columns; within it in 1"),
        (["within the spread"] * 3, "not shown: within the spread in 3 of 3 columns"),
        (["within the spread", "unknown"], "not shown: within the spread in 1 of 2 columns; unknown in 1"),
        (["unknown", "unknown"], "unknown"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_words_for_verdicts(verdicts: list[str], text: str) -> None:
    assert overall(verdicts) == text


def test_every_question_has_the_known_answer() -> None:
    found = {answer.id: answer for answer in answers(made_results())}
    assert found["winning"].verdict == "yes, better beyond the spread in 3 of 3 columns"
    assert found["sameness"].verdict == "not shown: within the spread in 3 of 3 columns"
    assert found["losing"].verdict == "no, worse beyond the spread in 3 of 3 columns"
    assert [c.verdict for c in found["breaking"].comparisons] == ["unknown"] * 3
    assert "yes" not in found["breaking"].verdict and "broken against base: unknown" in found["breaking"].verdict


def test_a_question_that_asks_what_is_not_answered_yes() -> None:
    results = made_results()
    results["questions"][0]["text"] = "What does it cost?"
    results["questions"][2]["text"] = "How much is lost?"
    first, _, third, _ = short_answers(results)
    assert first.startswith(
        "**What does it cost?** Better beyond the spread in 3 of 3 columns (mIoU %, 50 labels +10.0"
    )
    assert third.startswith("**How much is lost?** Worse beyond")


def test_the_numbers_stand_beside_the_verdict() -> None:
    tables = [block for block in answer_blocks(made_results()) if isinstance(block, Table)]
    assert len(tables) == 4
    same = tables[1].rows[0]
    assert list(same) == ["same against base", "mIoU %, 50 labels", "+1.00", "+1.00 ± 2.00", "2 of 3", "2.00",
                          "within the spread"]  # fmt: skip
    assert tables[0].rows[0][-1] == "**better**"
    whys = {row[0]: row[-1] for row in tables[3].rows}
    assert whys["broken against base"] == "unknown (a seed failed)"
    assert whys["absent against base"] == "unknown (not run)"
    assert whys["alone against base"] == "unknown (one seed)"
    said = short_answers(made_results())
    assert said[1] == "**Does sameness help?** Not shown: within the spread in 3 of 3 columns (+1.0)."


def _paper_results(order: list[str]) -> dict[str, Any]:
    """Made-up rows under our names of Table 8, 10 points apart in the given order."""
    results = made_results()
    table = {"id": "table_8", "title": "Losses", "paper": "table_8", "note": "", "columns": ["semseg-200"],
             "rows": [{"variant": name, "label": name, "group": ""} for name in order]}  # fmt: skip
    for place, (old, new) in enumerate(zip(("base", "same", "win"), order, strict=True)):
        for row in results["rows"]:
            if row["variant"] == old:
                row.update(variant=new, value=0.5 - 0.1 * place + 0.01 * row["seed"])
    return {**results, "tables": [table]}


def test_the_papers_order_is_counted_by_our_rule() -> None:
    results = _paper_results(["m33d", "m33d-no-rgb", "rgbd_mae"])
    table = results["tables"][0]
    assert paper_values(table) == {"m33d": 67.3, "m33d-no-rgb": 66.8, "rgbd_mae": 65.5}
    expected = {"same order": 3, "opposite order": 0, "within our spread": 0, "unknown": 0}
    assert order_counts(results, table) == expected
    turned = _paper_results(["rgbd_mae", "m33d-no-rgb", "m33d"])
    assert order_counts(turned, turned["tables"][0])["opposite order"] == 3
    for row in results["rows"]:
        row["value"] = 0.3 + 0.01 * row["seed"]
        row["status"] = "done"
    assert order_counts(results, table)["within our spread"] == 3


def test_the_papers_numbers_stand_apart() -> None:
    results = _paper_results(["m33d", "m33d-no-rgb", "rgbd_mae"])
    order, numbers = [block for block in paper_blocks(results) if isinstance(block, Table)]
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
