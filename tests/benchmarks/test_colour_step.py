"""The benchmark of colours compares pixels first and reports the share that a run would lose."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_pixels_are_compared_and_the_share_follows_from_the_times(tmp_path: Path) -> None:
    words = ["--rounds", "2", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "colour_step.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "colour_step.json").read_text())
    assert 0 < found["parity_levels"] < 1 and 12 < found["changed"] < 36, "half of 48 pictures, and they are changed"
    times = {name: each["median_ms"] for name, each in found["times"].items()}
    wanted = (times["torchvision"] - times["ours"]) / (times["step"] + times["ours"])
    assert abs(found["share_lost"] - wanted) < 1e-9 and found["commit"]
    assert f"would lose {found['share_lost']:.1%}" in output
