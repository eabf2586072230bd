"""The benchmark of augmentation on a device runs, compares pixels first, and reports shares of a step."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_tiny_run_reports_parity_times_and_shares(tmp_path: Path) -> None:
    words = ["--tiny", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "augmentation_step.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "augmentation_step.json").read_text())
    assert {"ShearX", "Equalize", "draw 7", "hue", "blur", "all colours"} <= found["parity_levels"].keys()
    assert max(found["parity_levels"].values()) == 0, "a CPU differs from itself"
    times = {name: each["median_ms"] for name, each in found["times"].items()}
    wanted = max(times["all"] - times["mixing"], 0) / (times["step"] + times["all"])
    assert abs(found["share_of_rand_augment"] - wanted) < 1e-9 and 0 < wanted < 1
    wanted = max(times["colour"] - times["normalising"], 0) / (times["step"] + times["colour"])
    assert abs(found["share_of_colour"] - wanted) < 1e-9 and 0 < wanted < 1
    assert "colours would take" in output
    assert "RandAugment takes" in output and "--tiny" in found["command"] and found["commit"]
