"""The benchmark of depth cameras takes a recording through every stage, and compares memory by length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from helpers.benchmark_modules import benchmark_module
from helpers.scripts import run_script
from m33d_hf.data.recordings.kinect import KinectRecording
from m33d_hf.data.recordings.recording import ImportOptions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from benchmark_module("depth_recording", BENCHMARKS.parent, monkeypatch)


def test_the_made_up_recording_is_one_of_azure_kinect(recording: ModuleType, tmp_path: Path) -> None:
    recording.write_recording(tmp_path / "a.mkv", 40, 5)
    found = KinectRecording(tmp_path / "a.mkv", ImportOptions())
    assert (found.about.announced, found.about.fps) == (40, pytest.approx(5))
    calibration = found.about.calibration
    assert calibration is not None and (calibration.color.size, calibration.depth.size) == ((720, 1280), (288, 320))
    frames = list(found.frames())
    assert [frame.seconds for frame in frames] == pytest.approx([number / 5 for number in range(40)])
    first, same, other = (frames[number].load() for number in (0, 30, 15))
    assert first.color == same.color and np.array_equal(first.depth, same.depth), "there and back in 30 frames"
    assert first.color != other.color and first.depth.dtype == np.uint16
    assert 0.03 < (first.depth == 0).mean() < 0.07 and np.median(first.depth) > 1000, "millimetres, with holes"


@pytest.mark.slow
def test_a_tiny_recording_goes_through_every_stage(tmp_path: Path) -> None:
    words = ["--tiny", "--output_dir", tmp_path, "--work_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "depth_hours.py", *words, log=tmp_path / "output.txt", timeout=900)
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "depth_hours_tiny.json").read_text())
    short, long = found["lengths"]
    assert (short["frames"], long["frames"], found["fps"]) == (90, 135, 5)
    for name in ("extraction", "pretraining_reading", "pretraining", "detection"):
        for row in (short, long):
            assert row[name]["cpu_seconds"] > 0 and row[name]["peak_bytes"] > 100_000_000
            if name != "pretraining":
                assert row[name]["frames_per_cpu_second"] == pytest.approx(row["frames"] / row[name]["cpu_seconds"])
        grown = long[name]["peak_bytes"] - short[name]["peak_bytes"]
        assert found["peak_bytes_grow_by_per_frame"][name] == pytest.approx(grown / 45)
    assert not list(tmp_path.glob("depth_hours_*/")), "recordings and frames are removed"
