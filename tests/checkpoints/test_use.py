"""The committed checkpoints in use: their results hold, in the scripts, in transformers' pipelines, in predict.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import m33d_hf  # noqa: F401 - registers the models
from helpers.checkpoints import BOTH, DEPTH, SEMSEG, maker, results
from m33d_hf.data.sources.rooms import RoomsSource
from m33d_hf.scripts._main import main as run_script
from m33d_hf.scripts.predict import main as predict

FIRST = 48  # test frames that results.json judges apart
TOLERANCE = 2e-3  # of a share or a relative error: another machine rounds differently


def _evaluated(folder: Path, tmp_path: Path, options: dict[str, int]) -> dict[str, float]:
    (run,) = (run for run in maker("train").RUNS.values() if run.stored == folder.name)
    recipe = maker("train").FOLDER / "recipes" / f"{run.name}.yaml"
    words = ["--recipe", recipe, "--init_from", folder, "--output_dir", tmp_path / "out", "--eval_only"]
    words += ["--cpu", "true"]
    words += ["--data.eval_options", json.dumps(options), "--evaluation.floor", "false", "--logging.pictures", "false"]
    words += ["--data.num_workers", "0"]
    assert run_script(run.task, [str(word) for word in words]) == 0
    found: dict[str, float] = json.loads((tmp_path / "out" / "eval_results.json").read_text())["metrics"]
    return found


@pytest.mark.parametrize("folder", BOTH, ids=lambda folder: folder.name)
def test_the_first_test_frames_are_judged_as_committed(folder: Path, tmp_path: Path) -> None:
    said = results(folder)["test_first_frames"]
    assert said["samples"] == FIRST and said["split"] == "test"
    assert _evaluated(folder, tmp_path, {"num_frames": FIRST}) == pytest.approx(said["metrics"], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("folder", BOTH, ids=lambda folder: folder.name)
def test_the_whole_test_split_is_judged_as_committed(folder: Path, tmp_path: Path) -> None:
    said = results(folder)["test"]
    assert said["samples"] == 512 and said["split"] == "test"
    assert _evaluated(folder, tmp_path, {"num_frames": 512}) == pytest.approx(said["metrics"], abs=TOLERANCE)


def test_they_are_far_beyond_the_trivial_floor() -> None:
    tests = [results(folder)["test"] for folder in BOTH]
    (depth, floor), (semseg, mode) = ((said["metrics"], said["floor"]) for said in tests)
    assert depth["delta1"] > floor["delta1"] + 0.15 and depth["abs_rel"] < 0.75 * floor["abs_rel"]
    assert semseg["miou"] > 3 * mode["miou"] and semseg["pixel_accuracy"] > mode["pixel_accuracy"] + 0.1


def _rooms() -> list[tuple[Image.Image, np.ndarray, np.ndarray]]:
    """(picture, metres, classes) of the first test frames."""
    source = RoomsSource("test", num_frames=FIRST)
    samples = [source[index].read([0]) for index in range(FIRST)]
    return [
        (Image.fromarray(_bytes(sample.rgb)), np.array(sample.depth).squeeze(), np.array(sample.segmentation).squeeze())
        for sample in samples
    ]


def _bytes(rgb: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a frame (1, 3, H, W) or (3, H, W)."""
    pixels = np.array(rgb)
    pixels = pixels.reshape(-1, *pixels.shape[-2:]).transpose(1, 2, 0)
    return pixels if pixels.dtype == np.uint8 else np.round(pixels * 255).astype(np.uint8)


def test_the_depth_pipeline_measures_rooms_as_the_results_say() -> None:
    """Numpy on what a user of transformers gets, against what the evaluation of this package counted."""
    rooms = _rooms()
    found = pipeline("depth-estimation", model=str(DEPTH))([picture for picture, _, _ in rooms])
    ratios = []
    for (_, metres, _), one in zip(rooms, found, strict=True):
        predicted = one["predicted_depth"].numpy()
        known = np.isfinite(metres) & (metres > 0)
        ratios.append(np.maximum(predicted[known] / metres[known], metres[known] / predicted[known]))
    share = float(np.mean(np.concatenate(ratios) < 1.25))
    assert share == pytest.approx(results(DEPTH)["test_first_frames"]["metrics"]["delta1"], abs=TOLERANCE)


def test_the_segmentation_pipeline_names_pixels_as_the_results_say() -> None:
    rooms = _rooms()
    segment = pipeline("image-segmentation", model=str(SEMSEG))
    right = total = 0
    for picture, _, classes in rooms:
        predicted = np.full(classes.shape, -1)
        for one in segment(picture):
            predicted[np.array(one["mask"]) > 0] = segment.model.config.label2id[one["label"]]
        assert (predicted >= 0).all()
        right, total = right + int((predicted == classes).sum()), total + classes.size
    said = results(SEMSEG)["test_first_frames"]["metrics"]["pixel_accuracy"]
    assert right / total == pytest.approx(said, abs=TOLERANCE)


@pytest.mark.parametrize("folder", BOTH, ids=lambda folder: folder.name)
def test_predict_writes_files_of_the_picture_s_size(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    _rooms()[0][0].resize((160, 120)).save(tmp_path / "in" / "room.png")
    words = ["--model", folder, "--input", tmp_path / "in", "--output", tmp_path / "out", "--device", "cpu"]
    assert predict([str(word) for word in words]) == 0
    kind = "depth" if folder == DEPTH else "labels"
    (written,) = (tmp_path / "out" / kind).glob("room*.png")
    with Image.open(written) as opened:
        values = np.array(opened)
    assert values.shape == (120, 160)
    if folder == DEPTH:
        assert values.min() > 300 and values.max() < 15_000, "millimetres within a room"
    else:
        assert values.max() < 10
