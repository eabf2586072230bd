"""From a folder of recordings to a depth model in two commands without a flag but paths; shortened here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.rooms_on_disk import write_rooms
from m33d_hf.scripts._main import main


@pytest.mark.slow
def test_two_commands_lead_from_recordings_to_figures_on_held_out_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rooms(tmp_path / "frames", rooms=10)
    where = ["--data.root", "frames", "--cpu", "--cpu_threads", "1", "--train.max_steps", "4"]
    assert main("pretraining", ["--recipe", "own/pretrain", *where]) == 0
    assert main("depth_estimation", ["--recipe", "own/depth", *where, "--init_from", "outputs/pretrain"]) == 0
    said = capsys.readouterr().err
    assert "64 frames, 1 CPU core: ViT of width 128" in said and "8 of 10 sequences" in said
    assert "taken from outputs/pretrain: " in said and "per-position mean of the training frames" in said
    rows = [json.loads(line) for line in Path("outputs/depth/metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if row["kind"] == "eval")
    assert 0 <= last["eval/delta1"] <= 1 and 0 < last["eval/floor/delta1"] < 1
    assert Path("outputs/depth/model.safetensors").is_file() and Path("outputs/pretrain/model.safetensors").is_file()
