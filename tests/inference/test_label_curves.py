"""Curves over labels, of runs that were really trained; the numbers are read back from the runs' own logs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.rooms_runs import words
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.inference.label_curves import _series_names, save_label_curves
from m33d_hf.scripts import visualize
from m33d_hf.scripts._main import main

FRACTIONS = ("0.25", "1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("labels")
    assert main("pretraining", words("rooms/pretrain", folder / "pre", method="mae")) == 0
    made = {}
    for fraction in FRACTIONS:
        for name, start in (("scratch", None), ("mae", str(folder / "pre"))):
            out = made[name, fraction] = folder / f"{name}_{fraction}"
            changes = {"data__label_fraction": fraction, "init_from": start, "data__max_train_samples": "null"}
            assert main("semantic_segmentation", words("rooms/semseg", out, **changes)) == 0
    return made


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "label_curves.csv").read_text(encoding="utf-8").splitlines()))


def test_every_run_is_a_point(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    code = visualize.main(["--model", *map(str, runs.values()), "--label_curves", "--output", str(tmp_path)])
    assert code == 0
    with Image.open(tmp_path / "label_curves.png") as picture:
        assert min(picture.size) > 300
    rows = _rows(tmp_path)
    assert {row["init_from"] for row in rows} == {"from scratch", "pre"}
    assert len(rows) == 4
    for (name, fraction), folder in runs.items():
        logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        (row,) = [row for row in rows if row["run"] == str(folder)]
        assert float(row["miou"]) == [found for found in logged if found["kind"] == "eval"][-1]["eval/miou"]
        assert row["init_from"] == ("from scratch" if name == "scratch" else "pre")
        everything = next(row for row in rows if row["run"] == str(runs[name, "1"]))
        share = int(row["labelled_samples"]) / int(everything["labelled_samples"])
        assert share == pytest.approx(float(fraction), abs=0.2)  # whole scenes


def test_two_spellings_of_one_start_are_one_series() -> None:
    origins = [None, "outputs/pre", "outputs/pre/", "./outputs/pre", "outputs/other/pre", "org/name"]
    assert _series_names(origins) == {
        None: "from scratch", "outputs/pre": "outputs/pre", "outputs/pre/": "outputs/pre",
        "./outputs/pre": "outputs/pre", "outputs/other/pre": "other/pre", "org/name": "org/name",
    }  # fmt: skip
    assert _series_names(["a/x", "b/y", "b/y/"]) == {None: "from scratch", "a/x": "x", "b/y": "y", "b/y/": "y"}


def test_another_metric_and_one_that_is_not_there(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folders = list(runs.values())
    save_label_curves(folders, tmp_path, "iou/floor")
    assert "iou/floor" in _rows(tmp_path)[0]
    with pytest.raises(ConfigError, match=r"no finite eval/mio\..*'eval/miou'"):
        save_label_curves(folders, tmp_path, "mio")


def test_what_cannot_be_compared_is_named(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    one, other = runs["scratch", "1"], tmp_path / "depth"
    assert main("depth_estimation", words("rooms/depth", other)) == 0
    with pytest.raises(ConfigError, match="task is depth_estimation here and semantic_segmentation there"):
        save_label_curves([one, other], tmp_path)
    with pytest.raises(ConfigError, match="given twice"):
        save_label_curves([one, one], tmp_path)
    (other / "COMPLETE").unlink()
    with pytest.raises(CheckpointError, match="has not finished"):
        save_label_curves([other], tmp_path)
