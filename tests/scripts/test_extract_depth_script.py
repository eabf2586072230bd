"""scripts/extract_depth.py: as two processes of a launcher, one of which is killed; errors in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from helpers.depth_models import save_dpt, save_ours, write_pictures
from helpers.ranks import ForkedRanks
from m33d_hf.data.depth.maps import find_depth_maps
from m33d_hf.scripts.extract_depth import main

FRAMES = 60


def rank_of_two(rank: int, arguments: list[str], log: Path) -> ForkedRanks:
    """The script as one process of two, with an output of its own; they need not meet."""
    return ForkedRanks(main, arguments, log=log, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")


def test_two_ranks_one_killed_and_continued(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write_pictures(tmp_path / "in" / name, FRAMES if name == "a" else 4)
    model, out = save_ours(tmp_path / "model"), tmp_path / "out"
    given = ["--model", str(model), "--input", str(tmp_path / "in"), "--items", "videos", "--batch_size", "1"]
    arguments = [*given, "--output", str(out), "--device", "cpu", "--report_seconds", "0"]
    first, second = (rank_of_two(rank, arguments, tmp_path / f"{rank}.txt") for rank in range(2))
    try:
        record = out / ".partial-a" / "state.json"
        deadline = time.monotonic() + 120
        while not record.exists() and first.processes[0].is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        first.wait(0.0)
        assert second.wait(120) == [0], second.output()
    finally:
        for rank in (first, second):
            rank.wait(0.0)
    died, text = first.output(), second.output()
    assert "[rank 1 of 2]" in text and "2 of 2 inputs written" in text and "left" in text
    assert record.exists() and find_depth_maps(out, "a") is None, f"not killed in the middle: {died}"
    assert find_depth_maps(out, "b") is not None and find_depth_maps(out, "d") is not None

    again = rank_of_two(0, arguments, tmp_path / "again.txt")
    assert again.wait(120) == [0], again.output()
    text = again.output()
    assert "a: continuing at frame " in text and "2 of 2 inputs written" in text
    assert main([*given, "--output", str(tmp_path / "alone"), "--device", "cpu"]) == 0
    for name, length in {"a": FRAMES, "b": 4, "c": 4, "d": 4}.items():
        shared_out, alone = find_depth_maps(out, name), find_depth_maps(tmp_path / "alone", name)
        assert shared_out is not None and alone is not None and shared_out.length == alone.length == length
        assert torch.equal(shared_out.read(range(length)), alone.read(range(length)))
    assert not list(out.rglob(".*"))


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", 1)
    given = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(["--model", str(save_dpt(tmp_path / "dpt")), *given]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "--kind inverse" in error
    assert main(["--model", str(tmp_path / "dpt"), "--kind", "inverse", *given]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 inputs written" in said and "inverse depth by" in said
    assert main(["--model", str(tmp_path / "dpt"), "--kind", "relative", *given]) == 2
    assert "inverse there, relative now" in capsys.readouterr().err
