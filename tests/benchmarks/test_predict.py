"""The benchmark of predictions runs and reports shares of the model's own speed."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_tiny_run_measures_every_way(tmp_path: Path) -> None:
    words = ["--tiny", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "predict.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "predict_tiny.json").read_text())
    assert found["pictures"] == 5 and len(found["predict_shares_by_round"]) == 1
    for way in ("predict", "pipeline"):
        shares = found[f"{way}_pictures_per_second"] / found["model_pictures_per_second"]
        assert abs(found[f"{way}_share_of_the_model"] / shares - 1) < 1e-9, "one round: its share is that of the speeds"
    assert 0 < found["share_of_cpu_time_in_the_model"] < 1 and found["cpu_ms_per_picture_beside_the_model"] > 0
    assert found["commit"] and found["machine"]["threads"] == 1
