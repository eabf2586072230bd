"""The benchmarks of forward passes and of long videos run, and compare what they say they compare."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers.benchmark_modules import benchmark_module
from helpers.scripts import run_script

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from benchmark_module("inference", REPOSITORY, monkeypatch)


def test_no_run_takes_the_file_of_other_batches(inference: ModuleType) -> None:
    def named(*words: str) -> str:
        return inference.file_name(inference.parse(["--size", "small", *words]))

    assert named() == named("--batch", "1") == "inference_small_cpu.json"
    assert named("--batch", "8") == "inference_small_cpu_batch8.json"
    assert named("--batch", "4", "8", "--device", "cuda:1") == "inference_small_cuda_batch4_8.json"


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("inference_*.json")), ids=lambda path: path.name)
def test_the_command_in_a_committed_file_writes_that_file(file: Path, inference: ModuleType) -> None:
    words = shlex.split(json.loads(file.read_text(encoding="utf-8"))["command"])
    assert words[:2] == ["python", "benchmarks/inference.py"]
    assert inference.file_name(inference.parse(words[2:])) == file.name


def test_a_tiny_run_has_every_cell(tmp_path: Path) -> None:
    words = ["--tiny", "--precision", "no", "--batch", "1", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "inference.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "inference_tiny_cpu.json").read_text())
    assert {row["task"] for row in found["rows"]} == {"clips", "depth", "segmentation"}
    for row in found["rows"]:
        assert row["peer_over_ours"] == row["peer_over_ours_by_round"][0] > 0
        assert row["ours_gflops"] > 0 and row["peer_gflops"] > 0
        assert row["ours"]["median_ms"] * row["peer_over_ours"] - row["peer"]["median_ms"] < 1e-6
    clips = next(row for row in found["rows"] if row["task"] == "clips")
    assert clips["logit_error"] < 1e-4 and abs(clips["ours_gflops"] / clips["peer_gflops"] - 1) < 1e-3


def test_a_tiny_video_is_detected_and_extracted(tmp_path: Path) -> None:
    words = ["--tiny", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "predict_videos.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "predict_videos_tiny.json").read_text())
    assert found["video_seconds"] == 6 and found["decoding_seconds"] > 0 and found["model_seconds"] > 0
    for way in ("detect", "extract"):
        bound = max(found["decoding_seconds"], found["model_seconds"]) / found[f"{way}_seconds"]
        assert abs(found[f"{way}_share"] / bound - 1) < 1e-9, "one round: its share is that of the times"
