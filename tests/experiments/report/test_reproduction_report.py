"""Tables, page and README from results.json alone; every printed number is found again from the rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.reproduction_results import made_results
from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report import figures, reproduction
from m33d_hf.experiments.report.reproduction import (
    BEGIN,
    END,
    SHOWN_TABLES,
    evidence_section,
    one_line,
    readme_section,
    summary,
    update_documents,
    write_reports,
)
from m33d_hf.experiments.report.results import load_results
from m33d_hf.experiments.report.tables import grid_table, overview_table, pretraining_table, result_table, seeds_table
from m33d_hf.visualization.document import Table

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "results" / "rooms" / "results.json"


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


def recompute(results: dict[str, Any], text: str) -> int:
    """Hold every cell of every result table and of the long form against numpy on the raw rows; return the count."""
    tables = _markdown_tables(text)
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
                assert sorted(seeds) == pytest.approx(sorted(values.tolist()), abs=0.00501)
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
                assert float(said.removeprefix("± ")) == pytest.approx(half, abs=0.0501)
    return checked


def test_every_number_of_the_tables_is_found_again(written: tuple[Path, str, str, str]) -> None:
    assert recompute(made_results(), written[2]) == 4 * 2 + 5 * 2 + 7 + 6 * 2


def test_what_is_missing_is_said(written: tuple[Path, str, str, str]) -> None:
    _, html, tables, answers = written
    assert "35.0 ± 1.4 (1 failed)" in tables and "not run" in tables and "37.0 (one seed)" in tables
    assert "34.00 / failed / 36.00" in tables
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


def _documents(folder: Path, text: str) -> tuple[Path, Path]:
    """README.md and docs/evidence.md of `folder`, both holding `text`."""
    (folder / "docs").mkdir()
    found = folder / "README.md", folder / "docs" / "evidence.md"
    for path in found:
        path.write_text(text, encoding="utf-8")
    return found


def test_sections_are_put_between_the_markers_of_both_documents(tmp_path: Path) -> None:
    readme, evidence = _documents(tmp_path, f"# Title\n\nbefore\n\n{BEGIN}\nearlier\n{END}\n\nafter\n")
    results = made_results()
    assert update_documents(tmp_path, results) == [readme, evidence]
    for path in (readme, evidence):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# Title\n\nbefore\n\n") and text.endswith("\n\nafter\n") and "earlier" not in text
        assert "45.0" in text and "the paper's number" not in text
    assert readme_section(results) in readme.read_text(encoding="utf-8")
    assert evidence_section(results) in evidence.read_text(encoding="utf-8")
    assert "Does winning help?" in evidence_section(results) and "Does" not in readme_section(results)
    assert update_documents(tmp_path, results) == [], "nothing changes the second time"


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN} only one", f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
@pytest.mark.parametrize("broken", ["README.md", "docs/evidence.md"])
def test_a_document_without_its_markers_is_an_error_and_all_stay(tmp_path: Path, text: str, broken: str) -> None:
    documents = _documents(tmp_path, f"{BEGIN}{END}")
    (tmp_path / broken).write_text(text, encoding="utf-8")
    before = [path.read_text(encoding="utf-8") for path in documents]
    with pytest.raises(ConfigError, match=rf"{broken} must have one line .*--update_readme"):
        update_documents(tmp_path, made_results())
    assert [path.read_text(encoding="utf-8") for path in documents] == before


@pytest.mark.parametrize("other", [{"budget": "small"}, {"name": "longer"}])
def test_documents_are_not_written_from_other_results(tmp_path: Path, other: dict[str, str]) -> None:
    documents = _documents(tmp_path, f"{BEGIN}{END}")
    with pytest.raises(ConfigError, match="the full reproduction, but these are results of"):
        update_documents(tmp_path, {**made_results(), **other})
    assert {path.read_text(encoding="utf-8") for path in documents} == {f"{BEGIN}{END}"}


def test_the_documents_are_updated_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from m33d_hf.scripts.reproduce import main

    monkeypatch.chdir(tmp_path)
    Path("results/rooms").mkdir(parents=True)
    assert main(["--update_readme"]) == 2 and "results.json" in capsys.readouterr().err
    Path("results/rooms/results.json").write_text(json.dumps(made_results()), encoding="utf-8")
    assert main(["--update_readme"]) == 2 and "there is no README.md" in capsys.readouterr().err
    Path("README.md").write_text(f"{BEGIN}{END}\n", encoding="utf-8")
    assert main(["--update_readme"]) == 2 and "there is no docs/evidence.md" in capsys.readouterr().err
    Path("docs").mkdir()
    Path("docs/evidence.md").write_text(f"{BEGIN}{END}\n", encoding="utf-8")
    assert main(["--update_readme"]) == 0 and main(["--update_readme"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "updated: README.md, docs/evidence.md",
        "README.md and docs/evidence.md are up to date",
    ]
    assert Path("README.md").read_text(encoding="utf-8") == readme_section(made_results()) + "\n"
    assert Path("docs/evidence.md").read_text(encoding="utf-8") == evidence_section(made_results()) + "\n"


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


def test_documents_come_from_the_committed_results() -> None:
    results, hint = as_tables(load_results(COMMITTED.parent)), "run python scripts/reproduce.py --update_readme"
    assert readme_section(results) in (ROOT / "README.md").read_text(encoding="utf-8"), hint
    assert evidence_section(results) in (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8"), hint
    assert isinstance(result_table(results, results["tables"][0]), Table)


def test_the_readmes_cells_are_those_of_the_tables_and_answers() -> None:
    """Means as in tables.md; verdicts as in answers.md, where they stand behind the interval that they are made of."""
    results = as_tables(load_results(COMMITTED.parent))
    tables = _markdown_tables((COMMITTED.parent / "tables.md").read_text(encoding="utf-8"))
    said = (COMMITTED.parent / "answers.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme_section(results).splitlines()[1:]]
    header, body = lines[0], [line for line in lines[2:] if len(line) > 1]
    assert len(header) == 5 and len(body) == 11
    titles = {t["title"] for t in results["tables"] if t["id"] in SHOWN_TABLES}
    cells = {
        (line[0], title): cell
        for name in titles
        for line in tables[name][2:]
        for title, cell in zip(tables[name][0], line, strict=True)
    }
    verdicts = 0
    for label, *values in body:
        for title, value in zip(header[1:], values, strict=True):
            mean, _, verdict = value.partition(", ")
            assert mean == cells.get((label, title), "").split(" ")[0]
            if verdict:
                verdicts += 1
                assert re.search(rf"{re.escape(title)} \|.*\| \*{{0,2}}{re.escape(verdict)}\*{{0,2}} \|", said), value
    assert verdicts == 6 * 3 + 3 + 3 + 1


def test_what_the_readme_says_of_the_longer_plan_is_in_its_table() -> None:
    said = (ROOT / "README.md").read_text(encoding="utf-8").partition("With five times the samples")[2]
    tables = _markdown_tables((ROOT / "results" / "longer" / "tables.md").read_text(encoding="utf-8"))
    rows = {line[0]: line for line in tables["Segmentation and depth after five times the samples"]}
    numbers = re.findall(r"(\d+\.\d) against (\d+\.\d) mIoU, (\d+\.\d) against (\d+\.\d) δ1", said)
    assert numbers == [tuple(rows[name][place].split()[0] for place in (2, 4) for name in ("M33D+", "scratch"))]


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in (ROOT / "results").glob("*/results.json")))
def test_committed_tables_come_from_the_committed_results(folder: str) -> None:
    results = load_results(ROOT / "results" / folder)
    tables = (ROOT / "results" / folder / "tables.md").read_text(encoding="utf-8")
    assert recompute(dict(results), tables) > 0
