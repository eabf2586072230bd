"""Output folders that are moved, shared by two plans, or begun with another cache: no finished row is lost unsaid."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import ConfigError
from m33d_hf.experiments import driver
from m33d_hf.experiments.commands import jobs_at, jobs_of
from m33d_hf.experiments.jobs import Job, stored_row
from m33d_hf.experiments.places import BEGUN, Begun, begun, discard_former_starts, jobs_in_place
from m33d_hf.experiments.plan import load_plan
from m33d_hf.training.run.reporting import CONFIG


def _begin(folder: Path, cache: str | None = None, said: bool = True, names: tuple[str, ...] = ()) -> list[Job]:
    """Finish the demo's smoke budget in a folder, or the rows of these names; only `said` folders tell of it."""
    jobs = jobs_of(load_plan("demo", "smoke", folder, cache))
    for job in jobs:
        if not names or job.id in names:
            digest = hashlib.sha256(json.dumps([job.function, job.parameters], sort_keys=True).encode()).hexdigest()
            row = {"id": job.id, "status": "done", "wall_seconds": 1.0, "fingerprint": digest[:16]}
            write_sealed_json(folder / "rows" / f"{job.id}.json", {**row, "log": str(folder / "rows" / "a.log")})
    if said:
        Begun("demo", "smoke", str(folder), cache).keep(folder)
    return jobs


def _again(folder: Path, cache: str | None = None, fresh: bool = False) -> list[Job]:
    plan, here = load_plan("demo", "smoke", folder, cache), Begun("demo", "smoke", str(folder), cache)

    def make(place: Path, used: str | None, names: Mapping[str, str]) -> list[Job]:
        return jobs_at(plan, place, used, names)

    return jobs_in_place(make, here, begun(here, fresh), fresh)


def _kept(folder: Path, jobs: list[Job]) -> list[bool]:
    return [stored_row(folder / "rows", job) is not None for job in jobs]


@pytest.mark.parametrize("said", [True, False], ids=["said", "of earlier versions"])
def test_a_folder_in_its_place_has_the_jobs_that_it_always_had(tmp_path: Path, said: bool) -> None:
    jobs = _begin(tmp_path, said=said)
    assert _again(tmp_path) == jobs and all(_kept(tmp_path, jobs))


@pytest.mark.parametrize("said", [True, False], ids=["said", "of earlier versions"])
def test_a_moved_folder_keeps_its_rows_and_goes_on_from_its_runs(tmp_path: Path, said: bool) -> None:
    old, new = tmp_path / "old", tmp_path / "big" / "new"
    before = _begin(old, said=said)
    new.parent.mkdir()
    shutil.move(old, new)
    jobs = _again(new)
    assert all(_kept(new, jobs))
    assert str(old) not in json.dumps([job.parameters for job in jobs])
    for job, former in zip(jobs, before, strict=True):  # where the weights lie that were moved
        assert json.dumps(job.parameters) == json.dumps(former.parameters).replace(str(old), str(new))


def test_another_cache_changes_no_row_and_is_used(tmp_path: Path) -> None:
    before = _begin(tmp_path, None)
    jobs = _again(tmp_path, "/elsewhere")
    assert all(_kept(tmp_path, jobs))
    assert jobs[0].parameters["cache_dir"] == "/elsewhere"
    trained = [job.parameters for job in jobs if "argv" in job.parameters]
    assert all(parameters["argv"].count("/elsewhere") == 1 for parameters in trained)
    folders = [[job.parameters.get("output_dir") for job in found] for found in (before, jobs)]
    assert folders[0] == folders[1]


def test_another_budget_or_plan_is_refused_before_anything_is_lost(tmp_path: Path) -> None:
    jobs = _begin(tmp_path)
    for plan, budget in (("demo", "full"), ("core", "smoke")):
        with pytest.raises(ConfigError, match=r"holds results of plan 'demo', budget 'smoke'.*--fresh"):
            driver.run(plan, tmp_path, budget, workers=1)
    assert all(_kept(tmp_path, jobs))
    here = Begun("core", "smoke", str(tmp_path), None)
    assert begun(here, fresh=True) == here


def test_results_of_earlier_versions_say_of_which_plan_they_are(tmp_path: Path) -> None:
    write_sealed_json(tmp_path / "results.json", {"name": "core", "budget": "full"})
    with pytest.raises(ConfigError, match="plan 'core', budget 'full'"):
        driver.run("demo", tmp_path, "full", workers=1)


def test_rows_that_nobody_knows_are_not_dropped(tmp_path: Path) -> None:
    _begin(tmp_path, said=False)
    with pytest.raises(ConfigError, match=r"holds 26 finished rows, and none has the settings of plan 'demo'"):
        driver.run("demo", tmp_path, "full", workers=1)
    assert len(list((tmp_path / "rows").glob("*.json"))) == 26


def test_a_folder_without_finished_rows_is_anybodys(tmp_path: Path) -> None:
    Begun("core", "full", "/gone", None).keep(tmp_path)
    here = Begun("demo", "smoke", str(tmp_path), None)
    assert begun(here) == here


@pytest.mark.parametrize("text", ["{cut", '{"plan": "demo"}'])
def test_a_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / BEGUN).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plan\.json.*--fresh"):
        begun(Begun("demo", "smoke", str(tmp_path), None))


def test_a_run_says_where_it_began_and_throws_away_what_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    place = Begun("demo", "smoke", str(tmp_path / "old"), None)
    driver.run_jobs([], folder, 1, place=place)
    assert read_sealed_json(folder / BEGUN) == {**vars(place)}
    runs = [folder / "runs" / name for name in ("from_old", "from_new", "from_nothing", "untouched")]
    jobs = [Job(run.name, "x:y", {"output_dir": str(run)}) for run in runs]
    for run, start in zip(runs, (tmp_path / "old/runs/mae", folder / "runs/mae", None), strict=False):
        told = {"args": {"init_from": None if start is None else str(start)}}
        write_sealed_json(run / "clips" / CONFIG, told)
    discard_former_starts(jobs, folder, place)
    assert [run.is_dir() for run in runs] == [False, True, True, False]
    assert "from_old begins again" in capsys.readouterr().out
