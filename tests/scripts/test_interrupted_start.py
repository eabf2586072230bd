"""^C while a script still imports torch or looks at the data: a line and exit code 130, no traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from m33d_hf.scripts import predict
from m33d_hf.scripts._main import main


class _Interrupted(ModuleType):
    """A module whose import is interrupted."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise KeyboardInterrupt


def _interrupt(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, _Interrupted(module))


def test_predictions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _interrupt(monkeypatch, "m33d_hf.inference.prediction.running")
    words = ["--model", str(tmp_path), "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    assert predict.main(words) == 130
    assert "run the same command" in capsys.readouterr().err


def test_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _interrupt(monkeypatch, "m33d_hf.training.settling.settle")
    assert main("depth_estimation", ["--recipe", "rooms/depth"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; run the same command again"
