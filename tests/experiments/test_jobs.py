"""The scheduler: order, parallel workers, resuming, and failures that are reported and not hidden."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_jobs import mark_worker
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.jobs import Job, Runner, check_jobs
from m33d_hf.experiments.progress import ProgressLine


def _work(name: str, journal: Path, needs: tuple[str, ...] = (), **parameters: Any) -> Job:
    return Job(name, "helpers.fake_jobs:work", {"name": name, "journal": str(journal), **parameters}, needs)


def _journal(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_order_parallel_workers_and_resume(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    jobs = [
        _work("first", journal),
        _work("left", journal, ("first",), seconds=1.0),
        _work("right", journal, ("first",), seconds=1.0),
        _work("last", journal, ("left", "right")),
    ]
    rows = Runner(tmp_path / "rows", 2, interval=0.1, start_worker=mark_worker).run(jobs)
    assert [row["status"] for row in rows.values()] == ["done"] * 4
    assert rows["last"]["marked"], "start_worker ran in the worker"
    lines = _journal(journal)
    assert lines[:2] == ["start first", "end first"]
    assert lines[-2:] == ["start last", "end last"]
    assert set(lines[2:4]) == {"start left", "start right"}, "independent jobs run side by side"
    assert len({row["pid"] for row in rows.values()}) <= 2, "workers are kept, not started per job"
    assert "first says hello" in (tmp_path / "rows" / "first.log").read_text()

    again = Runner(tmp_path / "rows", 2).run(jobs)
    assert all(row["reused"] for row in again.values())
    assert _journal(journal) == lines

    (tmp_path / "rows" / "left.json").write_text("{cut short")
    Runner(tmp_path / "rows", 1).run(jobs)
    assert _journal(journal)[len(lines) :] == ["start left", "end left", "start last", "end last"]


def test_changed_parameters_are_run_again_which_is_said_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, after = tmp_path / "journal", ["b", "c", "d", "e", "f", "g", "h"]

    def run(**changed: Any) -> str:
        jobs = [_work("a", journal, **changed), *(_work(name, journal, ("a",)) for name in after), _work("i", journal)]
        Runner(tmp_path / "rows", 1).run(jobs)
        return capsys.readouterr().out

    assert run() == "" and run() == ""
    told = run(seconds=0.01)
    assert _journal(journal)[-16:] == [f"{what} {name}" for name in ["a", *after] for what in ("start", "end")]
    assert _journal(journal).count("start i") == 1
    assert "run again, since their settings are other ones: 1 (a)" in told
    assert "run again, since what they were made from is run again: 7 (b, c, d, e, f, g and 1 more)" in told


def test_failure_is_a_row_and_blocks_only_what_needs_it(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    broken = Job("broken", "helpers.fake_jobs:fail", {"message": "no such thing"})
    children = [_work("child", journal, ("broken",)), _work("grandchild", journal, ("child",))]
    jobs = [broken, *children, _work("b", journal)]
    rows = Runner(tmp_path / "rows", 1).run(jobs)
    assert [rows[name]["status"] for name in ("broken", "child", "grandchild", "b")] == [
        "failed", "blocked", "blocked", "done",
    ]  # fmt: skip
    assert rows["broken"]["error"] == "ValueError: no such thing"
    assert "fake_jobs.py" in rows["broken"]["traceback"]
    assert "broken" in rows["child"]["error"]
    assert json.loads((tmp_path / "rows" / "broken.json").read_text())["status"] == "failed"
    again = Runner(tmp_path / "rows", 1).run(jobs)
    assert again["b"]["reused"] and not again["broken"].get("reused"), "failed rows are tried again"


@pytest.mark.parametrize(("times", "status"), [(1, "done"), (5, "failed")])
def test_killed_worker(tmp_path: Path, times: int, status: str) -> None:
    die = Job("die", "helpers.fake_jobs:die", {"marker": str(tmp_path / "marker"), "times": times})
    rows = Runner(tmp_path / "rows", 1).run([die, _work("other", tmp_path / "journal")])
    assert rows["die"]["status"] == status
    assert rows["other"]["status"] == "done"
    if status == "failed":
        assert "killed" in rows["die"]["error"]


def test_jobs_that_cannot_be_ordered(tmp_path: Path) -> None:
    a, b = Job("a", "x:y", needs=("b",)), Job("b", "x:y", needs=("a",))
    with pytest.raises(ConfigError, match="circle"):
        check_jobs([a, b])
    with pytest.raises(ConfigError, match="'nobody'"):
        check_jobs([Job("a", "x:y", needs=("nobody",))])
    with pytest.raises(ConfigError, match="share the id a"):
        check_jobs([Job("a", "x:y"), Job("a", "x:z")])
    with pytest.raises(ConfigError, match="at least 1"):
        Runner(tmp_path, 0)


def test_progress_tells_share_time_left_and_failures() -> None:
    jobs = [Job("a", "x:y", cost=10), Job("b", "x:y", cost=30, label="the long one")]
    jobs += [Job("c", "x:y", cost=20)]
    out = io.StringIO()
    progress = ProgressLine(jobs, workers=2, fraction=lambda job: 0.5, stream=out)
    rows = {"a": {"status": "done", "wall_seconds": 9.0, "headline": "loss 0.1"}}
    share, left = progress.estimate(rows, [jobs[1]], elapsed=12.5)
    assert share == pytest.approx(25 / 60)
    assert left == pytest.approx(17.5), "25 of 60 units in 12.5 s leave 35 units at 2 units per second"
    progress(rows, [jobs[1]])
    progress({**rows, "b": {"status": "failed", "error": "boom"}}, [jobs[2]])
    text = out.getvalue()
    assert "a: done in 0:00:09; loss 0.1" in text
    assert "the long one 50%" in text and "left" in text
    assert "the long one: FAILED: boom" in text


def test_first_estimate_is_the_costs_on_all_workers() -> None:
    jobs = [Job("a", "x:y", cost=100), Job("b", "x:y", cost=100)]
    progress = ProgressLine(jobs, workers=2, stream=io.StringIO())
    assert progress.estimate({}, jobs, elapsed=0.0) == (0.0, 100.0)
