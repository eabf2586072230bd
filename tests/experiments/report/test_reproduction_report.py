"""Tables, page and README from results.json alone; every printed number is found again from the rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.reproduction_results import made_results
from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.experiments.report import figures, reproduction
from m33d_hf.experiments.report.reproduction import one_line, summary, write_reports
from m33d_hf.experiments.report.results import load_results
from m33d_hf.experiments.report.tables import grid_table, overview_table, pretraining_table, result_table, seeds_table

ROOT = Path(__file__).resolve().parents[3]


def _write(folder: Path, results: dict[str, Any]) -> tuple[str, str, str]:
    page, text = write_reports(results, folder)
    assert (page.name, text.name) == ("report.html", "tables.md")
    return (
        page.read_text(encoding="utf-8"),
        text.read_text(encoding="utf-8"),
        (folder / "answers.md").read_text("utf-8"),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, str]:
    folder = tmp_path_factory.mktemp("reports")
    return folder, *_write(folder, made_results())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time."""
    monkeypatch.setattr(reproduction, "all_pictures", lambda *_: {"answers": []})


def _markdown_tables(text: str) -> dict[str, list[list[str]]]:
    """Heading -> rows of cells of the tables below it."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
            while heading in found:  # the long form comes second
                heading += " again"
        elif line.startswith("|"):
            found.setdefault(heading, []).append([part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def _plain(text: str) -> str:
    return text.replace("\\", "")


def _half_width(results: dict[str, Any], table: dict[str, Any], column: str) -> float | None:
    """By the normal equations with dummy variables, one row and one seed left out, for the complete rows of a table."""
    rows = [r for r in results["rows"] if r["column"] == column and r["status"] == "done"]
    names, seeds = sorted({r["variant"] for r in rows}), sorted({r["seed"] for r in rows})
    x = np.array([[1.0, *(r["variant"] == name for name in names[1:]), *(r["seed"] == seed for seed in seeds[1:])]
                  for r in rows])  # fmt: skip
    y = 100 * np.array([r["value"] for r in rows])
    counts = [sum(r["variant"] == row["variant"] for r in rows) for row in table["rows"]]
    if not rows or len(y) <= x.shape[1] or not max(counts):
        return None
    residual = y - x @ np.linalg.solve(x.T @ x, x.T @ y)
    df = len(y) - x.shape[1]
    return float(stats.t.ppf(0.975, df) * np.sqrt(residual @ residual / df * 2 / max(counts)))


def _averaged(results: dict[str, Any]) -> dict[str, Any]:
    """With one row per encoder: the mean of its fine-tunings, failed where one of them is."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault((row["variant"], row["column"], row["seed"]), []).append(row)
    rows = [
        {"variant": variant, "column": column, "seed": seed,
         "value": np.mean([row["value"] for row in found]) if all(row["status"] == "done" for row in found) else None,
         "status": "done" if all(row["status"] == "done" for row in found) else "failed"}
        for (variant, column, seed), found in groups.items()
    ]  # fmt: skip
    return {**results, "rows": rows}


def recompute(results: dict[str, Any], text: str) -> int:
    """Hold every cell of every result table and of the long form against numpy on the raw rows; return the count."""
    tables, everything = _markdown_tables(text), results
    results = _averaged(results)
    checked = 0
    for table in results["tables"]:
        if not table["columns"]:
            continue
        titles = {c["id"]: c["title"] for c in results["columns"]}
        short, long = tables[table["title"]], tables[f"{table['title']} again"]
        lines = {_plain(line[0]): line for line in short[2:]}
        details = {(_plain(line[0]), line[1]): line for line in long[2:]}
        for row in table["rows"]:
            for place, column in enumerate(table["columns"], 1):
                raw = [r for r in results["rows"] if (r["variant"], r["column"]) == (row["variant"], column)]
                values = 100 * np.array([r["value"] for r in raw if r["status"] == "done"], dtype=np.float64)
                said, detail = lines[row["label"]][place], details[row["label"], titles[column]]
                assert detail[2] == str(len(values))
                checked += 1
                if not len(values):
                    assert said == ("failed" if raw else "not run")
                    continue
                assert float(re.sub(r"\*", "", said).split()[0]) == pytest.approx(values.mean(), abs=0.0501)
                assert float(detail[3]) == pytest.approx(values.mean(), abs=0.00501)
                assert [float(x) for x in detail[5].split(" to ")] == pytest.approx(
                    [values.min(), values.max()], abs=0.00501
                )
                seeds = [float(x) for x in re.findall(r"\d+\.\d+", detail[6])]
                measured = [100 * r["value"] for r in everything["rows"] if r["status"] == "done"
                            and (r["variant"], r["column"]) == (row["variant"], column)]  # fmt: skip
                assert sorted(seeds) == pytest.approx(sorted(measured), abs=0.00501)
                assert (f"({len(raw) - len(values)} failed)" in said) == (len(values) < len(raw))
                if len(values) > 1:
                    std = values.std(ddof=1)
                    assert float(said.split("±")[1].split()[0]) == pytest.approx(std, abs=0.0501)
                    assert float(detail[4]) == pytest.approx(std, abs=0.00501)
                else:
                    assert "(one seed)" in said
        for place, column in enumerate(table["columns"], 1):
            half, said = _half_width(results, table, column), lines["95 % interval of a difference"][place]
            if half is None:
                assert said == "unknown"
            else:
                assert -1e-9 <= float(said.removeprefix("± ")) - half < 0.1, "rounded outwards"
    return checked


def test_every_number_of_the_tables_is_found_again(written: tuple[Path, str, str, str]) -> None:
    assert recompute(made_results(), written[2]) == 4 * 2 + 5 * 2 + 7 + 6 * 2


@pytest.mark.usefixtures("no_pictures")
def test_fine_tunings_of_one_encoder_are_no_seeds_of_their_own(tmp_path: Path) -> None:
    results = made_results()
    again = [
        {**row, "draw": 1, "value": row["value"] + 0.01 * row["seed"]} for row in results["rows"] if row.get("value")
    ]
    results["rows"] += again
    _, tables, _ = _write(tmp_path, results)
    assert recompute(results, tables) == 37
    assert "n = 3" in tables and "n = 6" not in tables
    assert re.search(r"\| 0: \d+\.\d+, \d+\.\d+ / 1: ", tables), "a fine-tuning does not pass for a seed"


def test_what_is_missing_is_said(written: tuple[Path, str, str, str]) -> None:
    _, html, tables, answers = written
    assert "35.0 ± 1.4 (1 failed)" in tables and "not run" in tables and "37.0 (one seed)" in tables
    assert "0: 34.00 / 1: failed / 2: 36.00" in tables
    for text in (html, tables, answers):
        assert "3 of the runs did not finish" in text
    assert "`semseg-200-broken-s1`: `NonFiniteLossError: the loss is nan in 'step' <3>`" in tables
    assert "A first run of 300 steps showed nothing." in tables
    assert "mIoU %, 200 labels: 31.2" in tables, "the grid"
    assert "0.25 / 0.26 / 0.27" in tables, "diagnostics of every seed"
    assert "0123456789ab" in tables and "make reproduce" in tables and "55:00" in tables
    assert "the paper's number" not in tables, "no row of the made-up file is in the paper"


def test_cells_have_no_verdict_of_their_own() -> None:
    results = made_results()
    three, two, six, eight, empty = (result_table(results, table) for table in results["tables"])
    assert [row[1] for row in three.rows][:4] == ["25.0 ± 1.0", "35.0 ± 1.0", "36.0 ± 1.0", "45.0 ± 1.0"]
    for table in (three, two, six, eight):
        assert not any("**" in text for row in table.rows for text in row)
    assert "n = 2 to 3" in two.note and "n = 1 to 3" in eight.note
    assert list(eight.rows[4])[-3:] == ["-", "-", "-"] and list(eight.rows[0])[-3:] == ["500", "3 TFLOP", "60"]
    assert list(empty.rows) == [["95 % interval of a difference", "", "", ""]]
    assert seeds_table(results, results["tables"][-1]).rows == []


def test_the_page_is_self_contained_and_escaped(written: tuple[Path, str, str, str]) -> None:
    folder, html, tables, answers = written
    without = re.sub(r"data:image/png;base64,[^\"]+", "", html)
    assert "http" not in without
    assert "Same &lt;b&gt;" in html and "Same <b>" not in html
    assert "Same \\<b>" in tables and "Base \\| plain" in tables
    assert html.count("data:image/png;base64") == len(list((folder / "figures").glob("*.png"))) == 8
    assert "](figures/table_6_grid.png)" in tables and "](figures/answers.png)" in answers
    assert "**Yes, better in 3 of 3 columns.**" in answers


def test_made_again_the_text_is_the_same(written: tuple[Path, str, str, str]) -> None:
    folder, html, tables, answers = written
    for path in (folder / "tables.md", folder / "answers.md"):
        path.unlink()
    write_reports(made_results(), folder)
    assert (folder / "tables.md").read_text("utf-8") == tables and (folder / "answers.md").read_text("utf-8") == answers
    assert (folder / "report.html").read_text("utf-8") == html


def test_nothing_run_at_all_is_still_a_report(tmp_path: Path) -> None:
    results = {**made_results(), "budget": "small", "rows": [], "pretraining": [], "grid": [], "history": [],
               "questions": []}  # fmt: skip
    html, tables, _ = _write(tmp_path, results)
    assert "Budget `small`" in tables and "not run" in tables and "unknown" in tables
    assert "data:image" not in html
    assert grid_table(results) is None and pretraining_table(results).rows == []
    assert recompute(results, tables) == 37
    _write(tmp_path, {**results, "tables": [], "columns": [], "variants": []})


@pytest.mark.usefixtures("no_pictures")
def test_failed_pretraining_and_one_seed_only(tmp_path: Path) -> None:
    results = made_results()
    for entry in results["pretraining"]:
        if entry["variant"] == "win":
            entry.update(status="failed", error="OSError: disk full")
    results["rows"] = [row for row in results["rows"] if row["seed"] == 0 and row["variant"] != "win"]
    results["rows"] += [{"id": "x", "variant": "win", "column": "semseg-200", "seed": 0, "status": "blocked",
                         "error": "pretrain-win-s0 did not finish", "value": None}]  # fmt: skip
    _, tables, answers = _write(tmp_path, results)
    assert "| Winner | failed | not run | failed | failed | failed |" in tables
    assert "`pretrain-win-s0`: `OSError: disk full`" in tables
    assert not re.search(r"(better|worse) (by|in)", answers) and "no verdict (one seed)" in answers
    assert "Without two seeds nothing is said about differences." in tables
    assert recompute(results, tables) == 37


def test_without_matplotlib_the_text_is_written_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("figures require matplotlib: pip install matplotlib")

    monkeypatch.setattr(figures, "rows_figure", missing)
    html, tables, answers = _write(tmp_path, made_results())
    assert "There are no pictures here: figures require matplotlib" in answers and "data:image" not in html
    assert recompute(made_results(), tables) == 37


def test_results_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no results\.json"):
        load_results(tmp_path)


def test_errors_become_one_line() -> None:
    assert one_line("a\n  b `c`") == "`a b 'c'`"
    assert len(one_line("x" * 1000)) == 302


def test_summary_has_a_sentence_per_question() -> None:
    assert len(summary(made_results())) == 5
    assert all(sentence.startswith("**Does") for sentence in summary(made_results())[:4])


def test_the_overview_puts_rows_of_one_label_into_one_row() -> None:
    results = made_results()
    table = next(t for t in results["tables"] if "semseg-200" in t["columns"])
    other = {**table, "id": "other", "columns": ["semseg-200"], "rows": [{**table["rows"][0], "label": "elsewhere"}]}
    found = overview_table(results, [{**table, "columns": ["depth-200"]}, other], ["depth-200", "semseg-200", "absent"])
    lines = {row[0]: row[1:] for row in found.rows}
    assert list(lines)[:-1] == [*(row["label"] for row in table["rows"]), "elsewhere"]
    assert lines["elsewhere"][0] == "" and re.match(r"[*\d]", lines["elsewhere"][1])
    assert all(cells[1] == "" for label, cells in lines.items() if label in {row["label"] for row in table["rows"]})
    assert lines["trivial floor"] == ["45.0", "9.0"]


# (plan, comparison) of the rows of README's table of what wins, in their order.
WINS = (
    ("confirm_rooms", "over MAE at equal FLOPs"),
    ("confirm_rooms", "over the later stage 2"),
    ("confirm_rooms", "over depth learnt from whole pictures"),
    ("confirm_rivals", "over MAE at equal FLOPs"),
    ("confirm_rivals", "normalised per patch against as it is"),
    ("confirm_normed", "over the later stage 2"),
    ("confirm_single", "over MAE at equal FLOPs"),
    ("own_method", "equal FLOPs"),
)


def _verdict(plan: str, comparison: str, column: str) -> tuple[str, str]:
    """("a to b", "not shown" or "worse"; n) of a comparison in a plan's committed answers, the first of that name."""
    answers = (ROOT / "results" / plan / "answers.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {re.escape(comparison)} \| {column}.*\| (\d+) \| (.*) \|$", answers, flags=re.MULTILINE)
    assert row, (plan, comparison, column)
    better = re.fullmatch(r"\*\*better by (\S+ to \S+)\*\*", row[2])
    return better[1] if better else "not shown" if "no difference larger" in row[2] else "worse", row[1]


def test_what_the_readme_says_wins_is_in_the_answers() -> None:
    said = (ROOT / "README.md").read_text(encoding="utf-8").partition("**What wins")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (?!---).* \| (.*) \| (.*) \| `(\w+)`, (\d+) \|$", said, flags=re.MULTILINE)
    assert [row[2] for row in table] == [plan for plan, _ in WINS]
    for (semseg, depth, plan, seeds), (_, comparison) in zip(table, WINS, strict=True):
        assert (semseg, seeds) == _verdict(plan, comparison, "mIoU %, 200 labels"), comparison
        assert (depth, seeds) == _verdict(plan, comparison, "δ1 %, 200 labels"), comparison
    said = " ".join(said.split())
    over = "over VideoMAE with the masks that served it best"
    probes = {
        how: _verdict("clips_confirm", over, f"actions top-1 %, {how}")[0]
        for how in ("fine-tuned", "k-NN", "linear probe")
    }
    frozen = f"by k-NN by {probes['k-NN']}, by a linear probe by {probes['linear probe']}"
    assert f"fine-tuned by {probes['fine-tuned']} points, {frozen}" in said
    for labels in (50, 200):
        assert (
            f"{_verdict('labels', 'over MAE at equal FLOPs', f'mIoU %, {labels} labels')[0]} points with {labels}"
            in said
        )
    assert _verdict("labels", "over MAE at equal FLOPs", "mIoU %, 800 labels")[0] == "not shown"
    assert "not shown with 800" in said
    given = [
        _verdict("own_method", "equal FLOPs", f"mIoU %, {how}")[0] for how in ("RGB and depth", "the same from RGB")
    ]
    assert f"by {given[0]} mIoU with depth and {given[1]} without" in said


def test_what_the_limits_say_of_the_later_stage_2_is_in_the_answers() -> None:
    limits = " ".join((ROOT / "docs" / "limits.md").read_text(encoding="utf-8").split())
    other = (ROOT / "results" / "confirm" / "answers.md").read_text(encoding="utf-8")
    (largest,) = re.findall(r"\| over the later stage 2 \| δ1 .* no difference larger than (\S+) \|", other)
    assert f"in one of two plans (`confirm_single`; `confirm`: not shown, none larger than {largest})" in limits


def test_what_the_readme_says_does_not_win_is_in_the_answers() -> None:
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").partition("**What does not**")[2].split())
    steps, _, rest = said.partition("but at equal FLOPs")
    for column, word in (("mIoU %, 200 labels", "mIoU"), ("δ1 %, 200 labels", "δ1")):
        assert f"{_verdict('core', 'M33D+ at equal steps', column)[0]} {word}" in steps
    answers = (ROOT / "results" / "core" / "answers.md").read_text(encoding="utf-8")
    largest = re.findall(r"(?:over MAE|M33D\+) at equal FLOPs \| .* no difference larger than (\S+) \|", answers)
    assert rest.startswith(f" nothing larger than {largest[0]} mIoU or {largest[1]} δ1 was found")
    assert _verdict("core", r"M33D (literal)", "mIoU %, 200 labels")[0] == "not shown"
    literal = [
        _verdict("core", "M33D (literal) at equal steps", f"{column} %, 200 labels")[0] for column in ("mIoU", "δ1")
    ]
    assert literal == ["worse", "worse"] and "is not better than scratch, and worse than MAE" in rest


# A demo's report has another form, which test_demo_report.py reads.
TABLES = sorted(path.parent for path in (ROOT / "results").rglob("results.json") if "demo" not in path.parent.name)


@pytest.mark.parametrize("folder", TABLES, ids=lambda path: path.relative_to(ROOT / "results").as_posix())
def test_committed_tables_come_from_the_committed_results(folder: Path) -> None:
    assert recompute(dict(load_results(folder)), (folder / "tables.md").read_text(encoding="utf-8")) > 0
