"""What counts as a difference, how expectations are judged, and that the report says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.demo_results import fake_results
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report.contrasts import Difference, difference
from m33d_hf.experiments.report.demos.images import summary, write_reports
from m33d_hf.experiments.report.expectations import judge, load_expectations
from m33d_hf.experiments.report.results import cell, failures
from m33d_hf.visualization.document import (
    Bullets,
    Heading,
    Paragraph,
    Table,
    flops_text,
    to_html,
    to_markdown,
)

SEG200 = "semantic_segmentation-200"


def _set(results: dict[str, Any], method: str, column: str, values: tuple[float, float]) -> None:
    for row in results["rows"]:
        if row["method"] == method and column == f"{row['task']}-{row['labels']}":
            row["value"] = values[row["seed"]]


def _difference(results: dict[str, Any], method: str, other: str, column: str = SEG200) -> Difference:
    return difference(as_tables(results), method, other, column)


def _fail(results: dict[str, Any], method: str, seed: int) -> None:
    for row in results["rows"]:
        if (row["method"], row["seed"]) == (method, seed):
            row.update(status="failed", error="NonFiniteLossError: nan")
            del row["value"]


def test_cells() -> None:
    results = fake_results()
    tables = as_tables(results)
    assert [column["short"] for column in tables["columns"]] == ["depth 200", "segmentation 50", "segmentation 200"]
    found = cell(tables, "mae", SEG200)
    assert found.values == pytest.approx((35.0, 37.0))
    assert found.mean == pytest.approx(36.0)
    assert found.text() == "**36.0** (35.0 / 37.0)"


def test_a_difference_counts_beyond_the_noise_of_the_whole_column() -> None:
    results = fake_results()
    assert _difference(results, "mae", "scratch").verdict == "better"
    assert _difference(results, "scratch", "mae").verdict == "worse"
    assert _difference(results, "m33d", "mae").verdict == "no difference shown"
    _set(results, "m33d_plus", SEG200, (0.35, 0.45))
    assert _difference(results, "mae", "scratch").verdict == "no difference shown", "others' noise is our noise"
    assert _difference(results, "mae", "scratch", "semantic_segmentation-50").verdict == "better"


def test_failed_rows_are_told_and_make_differences_unknown() -> None:
    results = fake_results()
    _fail(results, "m33d", 1)
    assert cell(as_tables(results), "m33d", SEG200).text() == "**35.2** (35.2; 1 failed)"
    assert _difference(results, "m33d", "mae").verdict == "unknown"
    _fail(results, "m33d", 0)
    assert cell(as_tables(results), "m33d", SEG200).text() == "failed"
    assert _difference(results, "m33d", "mae").estimate is None
    assert len(failures(as_tables(results))) == 6
    assert failures(as_tables(results))[0][1] == "NonFiniteLossError: nan"


def test_expectations_are_judged_by_rule() -> None:
    results = fake_results()
    verdicts = {outcome.id: outcome.verdict for outcome in judge(as_tables(results))}
    assert verdicts["pretraining_beats_scratch"] == "held"
    assert verdicts["plus_beats_m33d"] == "held"
    assert verdicts["m33d_against_mae"] == "open: no difference shown in all 3"
    assert verdicts["plus_against_mae"] == "open: better in all 3"
    assert verdicts["trivial_floors"] == "held"
    assert verdicts["position_shortcut"] == "held"
    assert verdicts["shortcut_cured"] == "held"
    assert verdicts["concatenated_matching_fails"] == "held"
    assert verdicts["depth_copies_depth"] == "held"
    assert verdicts["hiding_teaches_rgb_to_depth"] == "held"

    _set(results, "m33d_plus", SEG200, (0.352, 0.372))
    _set(results, "scratch", SEG200, (0.10, 0.11))
    for entry in results["pretraining"]:
        if entry["method"] == "m33d" and entry["seed"] == 1:
            entry["diagnostics"]["retrieval_accuracy_mismatched_depth"] = 0.1
        if entry["method"] == "m33d_plus":
            del entry["diagnostics"]["matching_accuracy_depth"]
            if entry["seed"] == 1:
                del entry["diagnostics"]["retrieval_accuracy_depth"]
            entry["diagnostics"]["depth_loss_hidden"] = 2.0
    outcomes = {outcome.id: outcome for outcome in judge(as_tables(results))}
    assert outcomes["plus_beats_m33d"].verdict == "held in part (2 of 3)"
    assert outcomes["trivial_floors"].verdict == "held in part (23 of 24)"
    assert outcomes["position_shortcut"].verdict == "held in some seeds"
    assert "product_matching_works" not in outcomes, "no seed of any run has it"
    assert outcomes["shortcut_cured"].verdict == "not measured", "one seed lacks it"
    assert outcomes["hiding_teaches_rgb_to_depth"].verdict == "not held"
    assert "0.700" in outcomes["hiding_teaches_rgb_to_depth"].detail


def test_a_row_that_failed_does_not_turn_no_difference_into_harm() -> None:
    results = fake_results()
    for column in ("depth_estimation-200", "semantic_segmentation-50", SEG200):
        _set(results, "m33d_plus", column, (0.352, 0.372) if column == SEG200 else (0.3, 0.32))
        _set(results, "m33d", column, (0.352, 0.373) if column == SEG200 else (0.3, 0.321))
    known = {outcome.id: outcome for outcome in judge(as_tables(results))}
    assert known["plus_beats_m33d"].verdict == "no difference shown"
    for row in results["rows"]:
        if (row["method"], row["seed"], row["task"]) == ("m33d_plus", 1, "depth_estimation"):
            row.update(status="failed", error="NonFiniteLossError: nan")
            del row["value"]
    failed = {outcome.id: outcome for outcome in judge(as_tables(results))}
    assert failed["plus_beats_m33d"].verdict == "no difference shown"
    _set(results, "m33d_plus", SEG200, (0.2, 0.22))
    worse = {outcome.id: outcome for outcome in judge(as_tables(results))}
    assert worse["plus_beats_m33d"].verdict == "not held"


def test_expectations_of_methods_that_are_not_run_are_left_out() -> None:
    results = fake_results()
    for part in ("rows", "pretraining"):
        results[part] = [entry for entry in results[part] if entry["method"] != "m33d"]
    judged = {outcome.id: outcome for outcome in judge(as_tables(results))}
    assert {"plus_beats_m33d", "position_shortcut", "hiding_teaches_rgb_to_depth"}.isdisjoint(judged)
    assert {"pretraining_beats_scratch", "plus_against_mae", "trivial_floors", "shortcut_cured"} <= set(judged)
    assert judged["pretraining_beats_scratch"].verdict == "held"
    assert "m33d," not in judged["pretraining_beats_scratch"].detail


def test_expectations_file_is_checked(tmp_path: Path) -> None:
    assert len(load_expectations()) > 8
    path = tmp_path / "e.yaml"
    path.write_text("- {id: a, text: t, because: b}\n")
    with pytest.raises(ConfigError, match="one of compare"):
        load_expectations(path)


def test_summary_says_what_helped_and_what_did_not() -> None:
    results = fake_results()
    top, primary, first, second, third = summary(as_tables(results))
    assert top.startswith("**Segmentation")
    assert primary.startswith("**Is pre-training on RGB and depth better than scratch, and than mae, in segmentation?")
    assert "*mae*: yes, better in 3 of 3 columns (depth δ1 %, 200 labels: better by " in first.replace("Yes", "yes")
    assert re.search(r"m33d over mae\*: not shown: no difference larger than \d\.\d in 3 of 3 columns", second)
    assert "better in 3 of 3 columns" in third and "worse" not in first + second + third
    for column in ("depth_estimation-200", "semantic_segmentation-50", SEG200):
        _set(results, "m33d_plus", column, (0.10, 0.12))
    _, _, first, *_ = summary(as_tables(results))
    assert "*m33d_plus*: no, worse in 2 of 2 columns" in first.replace("No", "no"), "harm as plainly as gain"


def test_report_from_results_alone(tmp_path: Path) -> None:
    results = fake_results()
    page, text = write_reports(as_tables(results), tmp_path)
    html, markdown = page.read_text(), text.read_text()
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+", "", html), "self-contained"
    assert html.count("data:image/png;base64") == 4
    for content in (html, markdown):
        for word in ("trivial floor", "36.0", "3 TFLOP", "95 % interval", "better by", "0.980", "m33d_plus", "9:00"):
            assert word in content, word
    assert (tmp_path / "figures" / "curves_pretraining.png").exists()
    assert "](figures/curves_pretraining.png)" in markdown
    again = page.read_text()
    write_reports(as_tables(fake_results()), tmp_path)
    assert page.read_text() == again, "made again from the same results it is the same"


def test_report_shows_failures_and_the_smoke_budget(tmp_path: Path) -> None:
    results = fake_results()
    results["budget"] = "smoke"
    _fail(results, "m33d", 0)
    results["pretraining"][1].update(status="failed", error="OSError: disk full")
    markdown = write_reports(as_tables(results), tmp_path)[1].read_text()
    assert "NonFiniteLossError: nan" in markdown
    assert "pretrain-m33d-s0`: OSError: disk full" in markdown
    assert "4 jobs did not finish" in markdown
    assert "Budget `smoke`" in markdown


def test_document_escapes_and_renders_both_ways(tmp_path: Path) -> None:
    blocks = [
        Heading("a < b", 1),
        Paragraph("**bold** and `code <x>`", "lead"),
        Bullets(["one"]),
        Table(["", "n|m"], [["x <b>`<i>`", "1"], ["y", "2"]], quiet=(1,), note="a note"),
    ]
    html = to_html(blocks, "t & t")
    assert "<h1>a &lt; b</h1>" in html and "<strong>bold</strong>" in html and "<code>code &lt;x&gt;</code>" in html
    assert '<tr class="quiet">' in html and "<title>t &amp; t</title>" in html
    markdown = to_markdown(blocks, tmp_path)
    assert "x \\<b>`<i>`" in markdown, "no tags, but code is left alone"
    assert "# a < b" in markdown and "n\\|m" in markdown and "| --- | ---: |" in markdown and "- one" in markdown


def test_flops_text() -> None:
    assert [flops_text(f) for f in (1.234e15, 5.6e12, 7e9, 10)] == ["1.23 PFLOP", "5.6 TFLOP", "7 GFLOP", "10 FLOP"]
