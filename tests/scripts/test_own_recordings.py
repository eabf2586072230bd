"""From a folder of recordings to a depth model that has learnt more than where things usually are, in two commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.rooms_on_disk import write_rooms
from m33d_hf.scripts._main import main


@pytest.mark.slow
def test_two_commands_beat_the_mean_of_every_position_on_held_out_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rooms(tmp_path / "frames", rooms=30)
    where = ["--data.root", "frames", "--cpu", "--cpu_threads", "1"]
    assert main("pretraining", ["--recipe", "own/pretrain", *where]) == 0
    assert main("depth_estimation", ["--recipe", "own/depth", *where, "--init_from", "outputs/pretrain"]) == 0
    said = capsys.readouterr().err
    assert "192 frames, 1 CPU core: ViT of width 128" in said and "3 of 30 sequences" in said
    assert "taken from outputs/pretrain: " in said and "per-position mean of the training frames" in said
    rows = [json.loads(line) for line in Path("outputs/depth/metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if row["kind"] == "eval")
    assert last["eval/delta1"] > last["eval/floor/delta1"] + 0.05
