"""Tables, page and README from results.json alone; every printed number is found again from the rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.reproduction_results import made_results
from m33d_hf.errors import ConfigError, MissingDependencyError
from m33d_hf.experiments.document import Table
from m33d_hf.experiments.reproduction import figures, report
from m33d_hf.experiments.reproduction.report import (
    BEGIN,
    END,
    one_line,
    readme_section,
    summary,
    update_readme,
    write_reports,
)
from m33d_hf.experiments.reproduction.tables import grid_table, pretraining_table, result_table, seeds_table
from m33d_hf.experiments.running import load_results

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "results" / "rooms" / "results.json"


def _write(folder: Path, results: dict[str, Any]) -> tuple[str, str, str]:
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    page, text = write_reports(folder)
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
    monkeypatch.setattr(report, "all_pictures", lambda *_: {"answers": []})


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
        ranges: dict[str, list[float]] = {}
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
                    ranges.setdefault(column, []).append(float(np.ptp(values)))
                else:
                    assert "(one seed)" in said
        for place, column in enumerate(table["columns"], 1):
            known = ranges.get(column)
            if known:
                assert float(lines["spread"][place]) == pytest.approx(max(known), abs=0.0501)
            else:
                assert lines["spread"][place] == "unknown"
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


def test_bold_only_beyond_the_spread() -> None:
    results = made_results()
    three, two, six, eight, empty = (result_table(results, table) for table in results["tables"])
    assert [row[1] for row in three.rows][:4] == ["25.0 ± 1.0", "35.0 ± 1.0", "36.0 ± 1.0", "**45.0** ± 1.0"]
    for table in (two, six, eight):
        assert not any("**" in text for row in table.rows for text in row)
        assert "No row is beyond the spread" in table.note
    assert "n = 2 to 3" in two.note and "n = 1 to 3" in eight.note
    assert list(eight.rows[4])[-3:] == ["-", "-", "-"] and list(eight.rows[0])[-3:] == ["500", "3 TFLOP", "60"]
    assert list(empty.rows) == [["spread", "", "", ""]]
    assert seeds_table(results, results["tables"][-1]).rows == []


def test_the_page_is_self_contained_and_escaped(written: tuple[Path, str, str, str]) -> None:
    folder, html, tables, answers = written
    without = re.sub(r"data:image/png;base64,[^\"]+", "", html)
    assert "http" not in without
    assert "Same &lt;b&gt;" in html and "Same <b>" not in html
    assert "Same \\<b>" in tables and "Base \\| plain" in tables
    assert html.count("data:image/png;base64") == len(list((folder / "figures").glob("*.png"))) == 8
    assert "](figures/table_6_grid.png)" in tables and "](figures/answers.png)" in answers
    assert "**Yes, better beyond the spread in 3 of 3 columns.**" in answers


def test_made_again_the_text_is_the_same(written: tuple[Path, str, str, str]) -> None:
    folder, html, tables, answers = written
    for path in (folder / "tables.md", folder / "answers.md"):
        path.unlink()
    write_reports(folder)
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
    assert "beyond the spread in" not in answers and "unknown (one seed)" in answers
    assert "Without two seeds nothing is said about differences." in tables and "No row is beyond" not in tables
    assert recompute(results, tables) == 37


def test_without_matplotlib_the_text_is_written_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("figures need matplotlib: pip install matplotlib")

    monkeypatch.setattr(figures, "rows_figure", missing)
    html, tables, answers = _write(tmp_path, made_results())
    assert "There are no pictures here: figures need matplotlib" in answers and "data:image" not in html
    assert recompute(made_results(), tables) == 37


def test_results_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no results\.json"):
        write_reports(tmp_path)


def test_errors_become_one_line() -> None:
    assert one_line("a\n  b `c`") == "`a b 'c'`"
    assert len(one_line("x" * 1000)) == 302


def test_summary_has_a_sentence_per_question() -> None:
    assert len(summary(made_results())) == 5
    assert all(sentence.startswith("**Does") for sentence in summary(made_results())[:4])


def test_the_readme_section_is_put_between_its_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\nbefore\n\n{BEGIN}\nearlier\n{END}\n\nafter\n", encoding="utf-8")
    results = made_results()
    assert update_readme(readme, results) is True
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\nbefore\n\n") and text.endswith("\n\nafter\n") and "earlier" not in text
    assert readme_section(results) in text and "**45.0** ± 1.0" in text and "Does winning help?" in text
    assert "the paper's number" not in text
    assert update_readme(readme, results) is False, "nothing changes the second time"


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN} only one", f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="--update_readme"):
        update_readme(readme, made_results())
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("other", [{"budget": "small"}, {"name": "longer"}])
def test_a_readme_is_not_written_from_other_results(tmp_path: Path, other: dict[str, str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}{END}", encoding="utf-8")
    with pytest.raises(ConfigError, match="the full reproduction; these are results of"):
        update_readme(readme, {**made_results(), **other})
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}{END}"


def test_the_readme_is_updated_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from m33d_hf.scripts.reproduce import main

    monkeypatch.chdir(tmp_path)
    Path("results/rooms").mkdir(parents=True)
    assert main(["--update_readme"]) == 2 and "results.json" in capsys.readouterr().err
    Path("results/rooms/results.json").write_text(json.dumps(made_results()), encoding="utf-8")
    assert main(["--update_readme"]) == 2 and "there is no README.md" in capsys.readouterr().err
    Path("README.md").write_text(f"{BEGIN}{END}\n", encoding="utf-8")
    assert main(["--update_readme"]) == 0 and main(["--update_readme"]) == 0
    assert capsys.readouterr().out.splitlines() == ["README.md is written anew", "README.md is up to date"]
    assert Path("README.md").read_text(encoding="utf-8") == readme_section(made_results()) + "\n"


def test_the_repositorys_readme_has_the_markers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)


def test_readme_comes_from_the_committed_results() -> None:
    results = load_results(COMMITTED.parent)
    assert readme_section(results) in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run python scripts/reproduce.py --update_readme"
    )
    assert isinstance(result_table(results, results["tables"][0]), Table)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in (ROOT / "results").glob("*/results.json")))
def test_committed_tables_come_from_the_committed_results(folder: str) -> None:
    results = load_results(ROOT / "results" / folder)
    tables = (ROOT / "results" / folder / "tables.md").read_text(encoding="utf-8")
    assert recompute(dict(results), tables) > 0
