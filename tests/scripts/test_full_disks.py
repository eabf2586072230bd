"""A disk that is full, or a folder that may not be written, is an error in words of every script, not a traceback."""

from __future__ import annotations

import importlib

import pytest

_CASES = {
    "visualize": (["--model", "run"], "m33d_hf.inference.reconstruction_pictures.task_of", 2),
    "compare_runs": (["one", "two"], "m33d_hf.experiments.run_comparison.compare_runs", 2),
    "publish": (["run", "org/name"], "m33d_hf.hub.publishing.publish", 1),
    "export_model": (["--input", "run", "--output", "out", "--to", "onnx"], "m33d_hf.weights.export.export_model", 1),
    "convert_checkpoint": (["--input", "weights.pth", "--output", "out"], "m33d_hf.weights.convert_checkpoint", 1),
    "few_labels": (["--recipe", "own/semseg"], "m33d_hf.experiments.few_labels.running.run_study", 2),
    "reproduce": ([], "m33d_hf.experiments.driver.run", 2),
    "run_demo": ([], "m33d_hf.experiments.driver.run", 2),
}


@pytest.mark.parametrize("script", _CASES)
def test_it_is_told_without_a_traceback(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "out/file")

    words, place, code = _CASES[script]
    main = importlib.import_module(f"m33d_hf.scripts.{script}").main
    monkeypatch.setattr(place, full)
    assert main(words) == code
    told = capsys.readouterr().err
    assert "rror: [Errno 28] No space left on device: 'out/file'" in told
