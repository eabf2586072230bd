"""The benchmark of many processes compares gradients, then times three ways in turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from helpers.benchmark_modules import benchmark_module
from helpers.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from benchmark_module("processes", BENCHMARKS.parent, monkeypatch)


def test_ratios_are_those_of_medians_and_within_each_round(module: ModuleType) -> None:
    """Two processes that take as long as one do twice the work; a machine twice as slow in one round moves nothing."""
    seconds = {"alone": [1.0, 2.0, 1.0], "apart": [1.25, 2.5, 1.25], "together": [2.0, 5.0, 2.0]}
    found = module.ratios(seconds, 2)
    assert (found["throughput"], found["throughput_apart"], found["share_of_apart"]) == (1.0, 1.6, 0.625)
    assert found["throughput_by_round"] == [1.0, 0.8, 1.0] and found["share_of_apart_by_round"] == [0.625, 0.5, 0.625]
    assert found["throughput_apart_by_round"] == [1.6] * 3


def test_processes_share_a_batch(module: ModuleType) -> None:
    batch = {"pixel_values": torch.arange(6), "keep": {"rgb": torch.arange(12).reshape(6, 2)}}
    parts = [module.share_of(batch, rank, 3) for rank in range(3)]
    assert [part["pixel_values"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert parts[1]["keep"]["rgb"].tolist() == [[4, 5], [6, 7]]


@pytest.mark.slow
def test_two_processes_are_measured(tmp_path: Path) -> None:
    words = ["--size", "tiny", "--rounds", "2", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "processes.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "processes.json").read_text())
    assert found["processes"] == 2 and found["gradient_error"] < 1e-4
    assert {way: len(times) for way, times in found["seconds"].items()} == {"alone": 2, "apart": 2, "together": 2}
    assert "RANK" not in json.dumps(found) and found["commit"]
