"""scripts/extract_depth.py: as two processes of a launcher, one of which is killed; errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.depth_models import save_dpt, save_ours, write_pictures
from m33d_hf.data.depth_maps import find_depth_maps
from m33d_hf.scripts.extract_depth import main

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMES = 60


def start(rank: int, arguments: list[str]) -> subprocess.Popen[str]:
    """The script as one process of two, as torchrun would start it."""
    launch = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "scripts" / "extract_depth.py"), *arguments]
    environment = {**os.environ, **launch, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_ranks_one_killed_and_continued(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write_pictures(tmp_path / "in" / name, FRAMES if name == "a" else 4)
    model, out = save_ours(tmp_path / "model"), tmp_path / "out"
    given = ["--model", str(model), "--input", str(tmp_path / "in"), "--items", "videos", "--batch_size", "1"]
    arguments = [*given, "--output", str(out), "--device", "cpu", "--report_seconds", "0"]
    first, second = (start(rank, arguments) for rank in range(2))
    try:
        record = out / ".partial-a" / "state.json"
        deadline = time.monotonic() + 120
        while not record.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        first.kill()
        died = first.communicate(timeout=120)[0]
        text = second.communicate(timeout=120)[0]
        assert second.returncode == 0, text
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert "[rank 1 of 2]" in text and "2 of 2 inputs written" in text and "left" in text
    assert record.exists() and find_depth_maps(out, "a") is None, f"not killed in the middle: {died}"
    assert find_depth_maps(out, "b") is not None and find_depth_maps(out, "d") is not None

    again = start(0, arguments)
    text = again.communicate(timeout=120)[0]
    assert again.returncode == 0, text
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
