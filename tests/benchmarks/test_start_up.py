"""The benchmark of start-up measures the help and the first step of a real run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from helpers.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_round_measures_every_way(tmp_path: Path) -> None:
    words = ["--rounds", "1", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "start_up.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "start_up.json").read_text())
    seconds = found["ours_seconds"]
    assert set(seconds) == {"floor", "help", "help_model", "help_source", "first_step"}
    assert seconds["help"] < seconds["help_source"] < seconds["first_step"]
    if sys.platform.startswith("linux"):
        used = found["ours_cpu_seconds"]
        assert set(used) == set(seconds) and all(used[way] > 0 for way in used)
        assert used["help"] < used["first_step"]
    assert found["commit"] and found["ours_seconds_by_round"]["help"] == [seconds["help"]]
