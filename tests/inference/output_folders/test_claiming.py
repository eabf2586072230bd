"""inference/output_folders/claiming.py: ranks begin one folder together, and no folder of somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.claiming import claim_output
from m33d_hf.inference.output_folders.recorded_inputs import claim_names


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds notes\.txt, but no prediction\.json"):
        claim_output(tmp_path, "model", {"flip": False})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_rank_may_begin_the_folder_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for the plan and that for other files."""
    real = Path.iterdir

    def overtaken(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        claim_output(tmp_path, "model", {"flip": False})
        (tmp_path / "classes.csv").touch()
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", overtaken)
    claim_output(tmp_path, "model", {"flip": False})
    with pytest.raises(ConfigError, match="flip: False there, True now"):
        claim_output(tmp_path, "model", {"flip": True})


def test_the_folder_of_the_inputs_may_have_been_moved(tmp_path: Path) -> None:
    job1, job2, output = tmp_path / "job1", tmp_path / "job2", tmp_path / "out"
    for folder in (job1, output):
        folder.mkdir()
    (job1 / "a.png").touch()
    claim_output(output, "model", {"flip": False, "input": str(job1)}, ["a"])
    claim_names(output, {"a": job1 / "a.png"})
    with pytest.raises(ConfigError, match="input: "):  # it is still there
        claim_output(output, "model", {"flip": False, "input": str(job2)}, ["a"])
    job1.rename(job2)
    claim_output(output, "model", {"flip": False, "input": str(job2)}, ["a", "b"])
    claim_output(output, "model", {"flip": False, "input": {"x": str(job2), "y": str(tmp_path)}}, ["a"])
    for rules, names in (({"flip": False, "input": str(job2)}, ["b"]), ({"flip": True, "input": str(job2)}, ["a"])):
        with pytest.raises(ConfigError, match="input: "):
            claim_output(output, "model", rules, names)


def test_the_folder_of_their_depth_may_have_been_moved_too(tmp_path: Path) -> None:
    job1, job2, output = tmp_path / "job1", tmp_path / "job2", tmp_path / "out"
    for folder in (job1 / "rgb", job1 / "depth", output):
        folder.mkdir(parents=True)
    (job1 / "rgb/a.png").touch()

    def claim(rgb: Path, depth: Path | None) -> None:
        claim_output(output, "model", {"input": str(rgb), "depth": None if depth is None else str(depth)}, ["a"])

    claim(job1 / "rgb", job1 / "depth")
    claim_names(output, {"a": job1 / "rgb/a.png"})
    (job2 / "depth").mkdir(parents=True)
    (job1 / "rgb").rename(job2 / "rgb")
    with pytest.raises(ConfigError, match=r"input: .*; depth: "):  # the depth is still there
        claim(job2 / "rgb", job2 / "depth")
    (job1 / "depth").rmdir()
    claim(job2 / "rgb", job2 / "depth")
    claim(job1 / "rgb", job2 / "depth")
    with pytest.raises(ConfigError, match=r"depth: .* there, none now"):
        claim(job2 / "rgb", None)


def test_depth_that_was_not_there_before_was_not_moved(tmp_path: Path) -> None:
    claim_output(tmp_path, "model", {"input": "gone", "depth": None}, ["a"])
    claim_names(tmp_path, {"a": tmp_path / "a.png"})
    with pytest.raises(ConfigError, match="depth: none there"):
        claim_output(tmp_path, "model", {"input": "x", "depth": "y"}, ["a"])
