import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments import driver
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.driver import process_count, run_jobs
from m33d_hf.training.processes.guards import output_lock


def test_two_runners_never_work_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "kept.json").write_text("{}", encoding="utf-8")
    with output_lock(tmp_path), pytest.raises(ConfigError, match="output_dir"):
        run_jobs([], tmp_path, 1, discard=("rows",))
    assert (tmp_path / "rows" / "kept.json").is_file()


def test_only_what_is_named_is_thrown_away(tmp_path: Path) -> None:
    for part in ("rows", "runs", "figures"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "file").write_text("", encoding="utf-8")
    rows, count = run_jobs([], tmp_path, 1, discard=("rows", "runs"))
    assert (rows, count) == ({}, 1)
    assert not list(tmp_path.rglob("r*/file")) and (tmp_path / "figures" / "file").is_file()


@pytest.mark.parametrize("workers", [0, -3])
def test_fewer_than_one_process_is_an_error(workers: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        process_count(workers, Compute())


def test_a_worker_whose_parent_died_before_it_started_ends(repository: Path) -> None:
    """Told the number of a process that is gone, it does not wait for whoever has adopted it."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    started = f"from m33d_hf.experiments.rows import start_worker; start_worker({gone.stdout})"
    code = f"{started}; import time; time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=50).returncode == 1


def test_fresh_throws_away_what_runs_leave_and_some_plans_tell_an_estimate_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[Sequence[str]] = []

    def stop(*_: object, discard: Sequence[str], place: object) -> None:
        called.append(discard)
        raise ConfigError("far enough")

    monkeypatch.setattr(driver, "run_jobs", stop)
    for plan, fresh in (("demo", False), ("demo", True), ("longer", True)):
        with pytest.raises(ConfigError, match="far enough"):
            driver.run(plan, tmp_path, "smoke", workers=1, fresh=fresh)
        assert ("pre-trainings and" in capsys.readouterr().out) == (plan == "longer")
    assert called == [(), driver.LEFT_BY_RUNS, driver.LEFT_BY_RUNS]
    assert driver.run("demo", tmp_path, "smoke", dry_run=True) == 0 and len(called) == 3
    assert "budget smoke: 6 pre-trainings and 20 other jobs" in capsys.readouterr().out
