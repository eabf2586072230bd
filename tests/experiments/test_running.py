from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.running import run_jobs
from m33d_hf.training.guards import output_lock


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
