"""The data benchmark runs, names what it leaves out, and needs no optional package to be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.scripts import run_script
from helpers.videos import write_video

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WITHOUT = """
import sys
sys.path.insert(0, sys.argv[1])
for name in ("av", "decord", "datasets", "evaluate", "torchcodec", "cv2"):
    sys.modules[name] = None
import data_loading
assert data_loading.parse(["--tiny"]).tiny
"""


def test_a_tiny_run_measures_every_path(tmp_path):
    words = ["--tiny", "--output_dir", tmp_path]
    code, output = run_script(BENCHMARKS / "data_loading.py", *words, log=tmp_path / "output.txt")
    assert code == 0, output[-2000:]
    found = json.loads((tmp_path / "data_loading.json").read_text())
    assert {row["path"] for row in found["loaders"]} >= {"RGB-D images, pre-training", "rooms images, mae"}
    assert found["complete"] and {row["workers"] for row in found["scaling"]} == {0, 1, 2}
    for row in found["loaders"]:
        assert row["decoding_per_second"] > 0 and row["geometry_share"] > 0
        assert row["geometry_share"] == row["geometry_per_second"] / row["decoding_per_second"]
        together = 1e3 / row["geometry_per_second"] + row["finishing_ms"]
        assert row["finishing_ms"] > 0 and row["share_with_finishing"] < row["geometry_share"]
        assert abs(row["share_with_finishing"] * row["decoding_per_second"] * together / 1e3 - 1) < 1e-9
        assert row["recipe_share"] is None or row["recipe_share"] > 0
    assert any(row["recipe_share"] is not None for row in found["loaders"])
    assert all(row["samples_per_second"] > 0 for row in found["scaling"])
    assert {row["files"].split(",")[0] for row in found["packed"]} == {"scannet .sens", "nyuv2 .mat"}
    for row in found["packed"]:
        assert row["share"] == row["ours_per_second"] / row["bare_per_second"] > 0
    assert found["environment"]["commit"] and "--tiny" in found["environment"]["command"]
    assert "| RGB-D images, pre-training | " in output


def test_it_is_imported_without_optional_packages():
    subprocess.run([sys.executable, "-c", WITHOUT, str(BENCHMARKS)], check=True, timeout=120)


def test_real_videos_go_through_the_loader(tmp_path: Path) -> None:
    """Two short ones, of which one cannot be read, fill a batch."""
    write_video(tmp_path / "real/one.mp4", 40)
    (tmp_path / "real/two.avi").write_bytes(b"no video")
    words = ["--tiny", "--output_dir", tmp_path, "--videos", tmp_path / "real", "--only", "real"]
    code, output = run_script(BENCHMARKS / "data_loading.py", *words, log=tmp_path / "output.txt")
    assert code == 0 and "left out: " in output and "two.avi" in output, output[-2000:]
    found = json.loads((tmp_path / "data_loading.json").read_text())
    measured = {row["path"]: row for row in found["loaders"]}
    assert measured.keys() == {"clips, pre-training, RGB, real videos", "clips, fine-tuning (2 views), real videos"}
    assert all(row["geometry_share"] > 0 for row in measured.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "segmentation", "--videos", "."], "names no path of real videos"),
        (["--only", "real"], "need --videos"),
        (["--packed", "--videos", "."], "--packed measures"),
        (["--videos", "empty"], "no file below empty"),
    ],
)
def test_videos_that_nothing_would_read_are_refused(words: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "data_loading.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and told in done.stderr
