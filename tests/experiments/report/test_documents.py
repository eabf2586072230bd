"""What README.md and docs/evidence.md show of a plan: numbers worked out by hand, markers, plans that were not run."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.plan import PLANS
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report.documents import (
    ARCHIVE,
    SUPERSEDED,
    committed_folder,
    evidence_section,
    markers,
    readme_section,
    update_documents,
)
from m33d_hf.experiments.report.results import RESULTS, load_results

ROOT = Path(__file__).resolve().parents[3]
BEGIN, END = markers("core")
# mIoU by seed: two fine-tunings of every encoder, which are averaged first. Scratch 20, 21, 22; M33D+ 23, 25, 27. So
# the means are 21 and 25, the differences 3, 4, 5: mean 4, standard deviation 1, standard error 1 / sqrt 3 = .57735
# with two degrees of freedom. A printed t table has 4.303 there: 4 +- 2.484 is 1.5 to 6.5; and t = 6.93 lies between
# its 4.303 (p = .05) and 9.925 (p = .01), so the verdict is "better", of a family of one.
SCRATCH = {0: (19.5, 20.5), 1: (21.0, 21.0), 2: (21.8, 22.2)}
PLUS = {0: (22.5, 23.5), 1: (24.0, 26.0), 2: (27.0, 27.0)}
# δ1: the differences are 1, 2, 3, so 2 +- 2.484 is -.48 to 4.48, and no difference is larger than 4.5.
SCRATCH_DEPTH = {0: (40.0,), 1: (41.0,), 2: (42.0,)}
PLUS_DEPTH = {0: (41.0,), 1: (43.0,), 2: (45.0,)}


def hand_made() -> dict[str, Any]:
    """results.json of a finished core plan of two rows."""
    rows = [
        {"id": f"{column}-{variant}-s{seed}-f{draw}", "variant": variant, "column": column, "seed": seed, "draw": draw,
         "status": "done", "value": value / 100}
        for column, variant, values in (("semseg", "scratch", SCRATCH), ("semseg", "m33d_plus", PLUS),
                                        ("depth", "scratch", SCRATCH_DEPTH), ("depth", "m33d_plus", PLUS_DEPTH))
        for seed, draws in values.items()
        for draw, value in enumerate(draws)
    ]  # fmt: skip
    columns = [
        {"id": "semseg", "metric": "miou", "title": "mIoU %", "split": "test", "floor": 0.09, "floor_text": "a class"},
        {"id": "depth", "metric": "delta1", "title": "δ1 %", "split": "test", "floor": 0.448, "floor_text": "a mean"},
    ]
    labels = {"scratch": "scratch", "m33d_plus": "M33D+"}
    table = {"id": "core", "title": "Both tasks", "paper": None, "note": "", "columns": ["semseg", "depth"],
             "rows": [{"variant": name, "label": label, "group": ""} for name, label in labels.items()]}  # fmt: skip
    questions = [
        {"id": name, "text": text, "primary": name == "primary",
         "compare": [{"better": "m33d_plus", "than": "scratch", "columns": [column], "text": "over scratch"}]}
        for name, text, column in (("primary", "Is it better?", "semseg"), ("second", "In depth too?", "depth"))
    ]  # fmt: skip
    spent = {
        "status": "done",
        "steps": 1500,
        "flops": 6.8e12,
        "cpu_seconds": 100.0,
        "diagnostics": {},
        "loss_floors": {},
    }
    return {
        "name": "core", "budget": "full", "command": "python scripts/reproduce.py --budget full", "workers": 2,
        "wall_seconds": 3000.0, "cpu_seconds": 5400.0, "seeds": [0, 1, 2],
        "environment": {"commit": "fedcba9876543210"},
        "columns": columns, "variants": [{"id": name, "label": label} for name, label in labels.items()],
        "tables": [table], "questions": questions, "rows": rows, "history": [],
        "pretraining": [{**spent, "variant": "m33d_plus", "seed": seed} for seed in range(3)],
    }  # fmt: skip


def _cells(section: str) -> dict[str, list[str]]:
    """First cell of every table line -> the others."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in lines}


def test_the_readme_has_the_numbers_worked_out_by_hand() -> None:
    section = readme_section("core", hand_made())
    cells = _cells(section)
    assert cells["pre-training"] == ["mIoU %", "δ1 %"]
    assert cells["scratch"] == ["21.0", "41.0"] and cells["trivial floor"] == ["9.0", "44.8"]
    assert cells["M33D+"] == ["25.0, better by 1.5 to 6.5", "43.0, no difference larger than 4.5"]
    assert "**Is it better?** In percentage points, over scratch: better by 1.5 to 6.5." in section
    assert "In depth too?" not in section, "only what the plan is judged by"
    assert "`python scripts/reproduce.py --budget full`: 0:50:00" in section and "1:30:00 of CPU time" in section
    assert "commit `fedcba987654`" in section


def test_evidence_has_every_table_and_question_and_leads_to_the_rest() -> None:
    section = evidence_section("core", hand_made())
    cells = _cells(section)
    assert cells["M33D+"] == ["25.0 ± 2.0", "43.0 ± 2.0", "1500", "6.8 TFLOP", "100"]
    assert cells["95 % interval of a difference"][:2] == ["± 2.5", "± 2.5"]
    assert "**Is it better?** Yes, better in 1 of 1 column (mIoU %: better by 1.5 to 6.5)." in section
    assert "**In depth too?** Not shown: no difference larger than 4.5 in 1 of 1 column (measured +2.0)." in section
    assert "commit `fedcba987654`" in section and "Trivial floors: a class; a mean." in section
    assert "](../results/core/tables.md)" in section and "](../results/core/answers.md)" in section


def test_harm_is_said_as_plainly_as_gain() -> None:
    results = hand_made()
    for row in results["rows"]:
        row["variant"] = {"scratch": "m33d_plus", "m33d_plus": "scratch"}[row["variant"]]
    assert _cells(readme_section("core", results))["M33D+"][0] == "21.0, worse by 1.5 to 6.5"


def test_a_failed_seed_is_warned_of_and_gets_no_verdict() -> None:
    results = hand_made()
    results["rows"][6] |= {"status": "failed", "error": "OSError: disk full", "value": None}
    section = readme_section("core", results)
    assert "1 of the runs did not finish" in section and "no verdict (a seed failed)" in section


@pytest.mark.parametrize("plan", SUPERSEDED)
def test_a_plan_without_results_is_said_not_to_have_been_run(plan: str) -> None:
    section = evidence_section(plan, None)
    assert f"The plan `{plan}` has not been run in full yet." in section and not re.search(r"\d\.\d", section)
    if SUPERSEDED[plan] is not None:
        (linked,) = re.findall(r"\]\(\.\./(\S+?)\)", section)
        assert "Superseded" in section and Path(linked).is_relative_to(ARCHIVE) and (ROOT / linked).is_file()


def test_every_current_plan_is_in_the_documents() -> None:
    assert set(SUPERSEDED) == set(PLANS) - {"reproduction", "longer", "exploration"}


@pytest.mark.parametrize("plan", SUPERSEDED)
def test_the_documents_are_those_of_the_committed_results(plan: str) -> None:
    folder, hint = committed_folder(ROOT, plan), f"run python scripts/reproduce.py --plan {plan} --update_readme"
    results = as_tables(load_results(folder)) if (folder / RESULTS).is_file() else None
    assert evidence_section(plan, results) in (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8"), hint
    if plan == "core":
        assert readme_section(plan, results) in (ROOT / "README.md").read_text(encoding="utf-8"), hint


def test_the_archive_names_everything_that_it_holds() -> None:
    text = (ROOT / ARCHIVE / "README.md").read_text(encoding="utf-8")
    held = {path.name + "/" * path.is_dir() for path in (ROOT / ARCHIVE).iterdir()} - {"README.md"}
    assert held == {"rooms/", "longer/", "exploration/", "gpu_partial.json"}
    assert all(f"`{name}`" in text for name in held) and "superseded by" in text
    others = {path.name for path in (ROOT / "results").iterdir() if path.is_dir()} - {"archive"}
    assert others <= set(SUPERSEDED), "a folder of results that no document shows"


# -- writing ---------------------------------------------------------------------------------------------------------


def _documents(folder: Path, text: str) -> tuple[Path, Path]:
    """README.md and docs/evidence.md of `folder`, both holding `text`."""
    (folder / "docs").mkdir()
    found = folder / "README.md", folder / "docs" / "evidence.md"
    for path in found:
        path.write_text(text, encoding="utf-8")
    return found


def test_sections_are_put_between_the_markers_of_both_documents(tmp_path: Path) -> None:
    readme, evidence = _documents(tmp_path, f"# Title\n\nbefore\n\n{BEGIN}\nearlier\n{END}\n\nafter\n")
    assert set(update_documents(tmp_path, "core", hand_made())) == {readme, evidence}
    for path in (readme, evidence):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# Title\n\nbefore\n\n") and text.endswith("\n\nafter\n") and "earlier" not in text
        assert "25.0" in text
    assert update_documents(tmp_path, "core", hand_made()) == [], "nothing changes the second time"
    assert set(update_documents(tmp_path, "core", None)) == {readme, evidence}
    assert "25.0" not in readme.read_text(encoding="utf-8")


def test_other_plans_are_in_evidence_alone_and_leave_the_rest(tmp_path: Path) -> None:
    begin, end = markers("parts")
    readme, evidence = _documents(tmp_path, f"{BEGIN}\ncore\n{END}\n\n{begin}\nearlier\n{end}\n")
    assert update_documents(tmp_path, "parts", {**hand_made(), "name": "parts"}) == [evidence]
    text = evidence.read_text(encoding="utf-8")
    assert f"{BEGIN}\ncore\n{END}" in text and "earlier" not in text and "](../results/parts/tables.md)" in text
    assert "earlier" in readme.read_text(encoding="utf-8")


def test_the_demos_results_have_another_name_than_their_plan(tmp_path: Path) -> None:
    _documents(tmp_path, "".join(f"{line}\n" for line in markers("demo-video")))
    (changed,) = update_documents(tmp_path, "demo-video", {**hand_made(), "name": "video"})
    assert "[video](../results/demo-video/video.md)" in changed.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN} only one", f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
@pytest.mark.parametrize("broken", ["README.md", "docs/evidence.md"])
def test_a_document_without_its_markers_is_an_error_and_all_stay(tmp_path: Path, text: str, broken: str) -> None:
    documents = _documents(tmp_path, f"{BEGIN}{END}")
    (tmp_path / broken).write_text(text, encoding="utf-8")
    before = [path.read_text(encoding="utf-8") for path in documents]
    with pytest.raises(ConfigError, match=rf"{broken} must have one line .*--update_readme"):
        update_documents(tmp_path, "core", hand_made())
    assert [path.read_text(encoding="utf-8") for path in documents] == before


@pytest.mark.parametrize("other", [{"budget": "small"}, {"name": "longer"}])
def test_documents_are_not_written_from_other_results(tmp_path: Path, other: dict[str, str]) -> None:
    documents = _documents(tmp_path, f"{BEGIN}{END}")
    with pytest.raises(ConfigError, match="the documents show the plan core with the budget full, but these are"):
        update_documents(tmp_path, "core", {**hand_made(), **other})
    with pytest.raises(ConfigError, match="no document shows the plan 'longer'"):
        update_documents(tmp_path, "longer", hand_made())
    assert {path.read_text(encoding="utf-8") for path in documents} == {f"{BEGIN}{END}"}


def test_the_documents_are_updated_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from m33d_hf.scripts.reproduce import main

    monkeypatch.chdir(tmp_path)
    results = copy.deepcopy(hand_made())
    assert main(["--update_readme", "--output_dir", "nowhere"]) == 2 and "results.json" in capsys.readouterr().err
    assert main(["--update_readme"]) == 2 and "there is no README.md" in capsys.readouterr().err
    _documents(tmp_path, f"{BEGIN}{END}\n")
    assert main(["--update_readme"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "there is no results/core/results.json: the documents say that the plan was not run in full yet",
        "updated: README.md, docs/evidence.md",
    ]
    Path("results/core").mkdir(parents=True)
    Path("results/core/results.json").write_text(json.dumps(results), encoding="utf-8")
    assert main(["--update_readme"]) == 0 and main(["--update_readme"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "updated: README.md, docs/evidence.md",
        "the documents are up to date",
    ]
    assert Path("README.md").read_text(encoding="utf-8") == readme_section("core", results) + "\n"
    assert Path("docs/evidence.md").read_text(encoding="utf-8") == evidence_section("core", results) + "\n"
