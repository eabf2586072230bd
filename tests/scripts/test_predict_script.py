"""scripts/predict.py as a user calls it: what it prints, its exit codes, and that it is interrupted in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.depth_models import save_ours
from helpers.prediction import save_pictures
from m33d_hf.inference.prediction import running
from m33d_hf.scripts.predict import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ours(tmp_path_factory.mktemp("model"))


def words(model: Path, tmp_path: Path, *more: str) -> list[str]:
    given = ["--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--device", "cpu", *more]
    return [str(word) for word in given]


def test_a_user_reads_what_was_done(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pictures(tmp_path / "in", 3)
    assert main(words(model, tmp_path, "--report_seconds", "0")) == 0
    said = capsys.readouterr().out
    assert f"metric depth by {model} (m33d) on cpu: 3 pictures of {tmp_path / 'in'}, to {tmp_path / 'out'}" in said
    assert "of 3 inputs (33%)" in said and "left" in said and "3 of 3 inputs predicted in 0:00:0" in said
    assert "  pictures/  PNG, coloured" in said
    (tmp_path / "in/bad.png").touch()
    assert main(words(model, tmp_path)) == 1
    said = capsys.readouterr().out
    assert "3 were there already, 1 skipped" in said and "is empty (0 bytes)" in said


def test_errors_are_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(model, tmp_path)) == 2
    assert capsys.readouterr().err == f"DataError: --input {tmp_path / 'in'} does not exist.\n"
    save_pictures(tmp_path / "in", 1)
    assert main(words(model, tmp_path, "--save", "depht")) == 2
    assert "Did you mean 'depth'" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    save_pictures(tmp_path / "in", 1)
    monkeypatch.setattr(running._Run, "_units", interrupted)
    assert main(words(model, tmp_path)) == 130
    assert "interrupted; run the same command to continue" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(words(model, tmp_path)) == 0
