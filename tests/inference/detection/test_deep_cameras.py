"""Cases by several cameras, each with its own depth: as in training's evaluation, by hand, and without some of them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.kinect_files import write_kinect
from helpers.phases_in_memory import NAMES, arguments, first_stage
from m33d_hf.errors import ConfigError
from m33d_hf.inference.detection.deep_clips import find_deep_videos, without_depth
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts import detect_actions, import_recording
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

OPTIONS: dict[str, Any] = {"depth_scale": 1000, "calibration": "calibration.json", "fps": 30}
FRAMES, LATER = 14, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases by two depth cameras; the right one shows what the left one shows three frames later."""
    folder = tmp_path_factory.mktemp("kinect")
    write_kinect(folder / "film.mkv", FRAMES + LATER, infrared=False)
    data = folder / "data"
    assert import_recording.main([str(folder / "film.mkv"), "--output", str(data / "v_left")]) == 0
    for name in ("v_right", "w_left", "w_right"):
        shutil.copytree(data / "v_left", data / name)
    for name in ("v_left", "v_right", "w_left", "w_right"):
        for part in ("color", "depth"):
            files = sorted((data / name / part).iterdir())
            for file in files[:LATER] if name.endswith("right") else files[-LATER:]:
                file.unlink()
    for split, name in (("train", "v"), ("validation", "w")):
        lines = [f"{number}\t{NAMES[number * 3 // FRAMES]}\n" for number in range(FRAMES)]
        (data / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))
        (data / f"{split}.txt").write_text(f"{name}\n")
    return data


@pytest.fixture(scope="module", params=["mean", "side by side"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    stage = first_stage(folder / "one", task_inputs=["rgb", "depth"], task_fusion="concatenation")
    model = M33DForVideoClassification.from_pretrained(stage)
    assert model.task_fusion is not None
    with torch.no_grad():  # no fresh fusion, so that depth counts
        for weight in model.task_fusion.parameters():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(stage)
    args = arguments(folder / "run", stage, phase_names=NAMES, cameras="_*", **OPTIONS)
    args.data.source, args.data.root = "phases", str(root)
    if request.param == "side by side":
        args.model["temporal_cameras"] = ["right", "left"]
    train(args, ActionDetectionTask())
    return folder / "run"


def _words(trained: Path, root: Path, output: Path, cameras: str = "_*") -> list[str]:
    words = ["--model", str(trained), "--video", str(root), "--depth", "--cameras", cameras, "--output", str(output)]
    return [*words, "--device", "cpu", "--options", *(f"{name}={value}" for name, value in OPTIONS.items())]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_phases_of_depth_cameras_are_those_of_the_evaluation(trained: Path, root: Path, tmp_path: Path) -> None:
    assert detect_actions.main(_words(trained, root, tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.glob("*_clips.csv")) == ["v_clips.csv", "w_clips.csv"]
    (table,) = (trained / "evaluation/frames").glob("*.csv")
    wanted, clips = _rows(table), _rows(tmp_path / "w_clips.csv")
    assert len(wanted) == FRAMES and len(clips) == 4 and {clip["cameras"] for clip in clips} == {"left;right"}
    for clip in clips:
        for frame in range(int(clip["start_frame"]), int(clip["end_frame"]) + 1):
            assert [float(clip[n]) for n in NAMES] == pytest.approx([float(wanted[frame][n]) for n in NAMES], abs=2e-6)


def test_a_camera_counts_with_its_own_depth(trained: Path, root: Path, tmp_path: Path) -> None:
    detector = ActionDetector.from_pretrained(trained)
    options = {**OPTIONS, "cameras": "_*"}
    both = detector.detect_source(*find_deep_videos(root, options)["w"])
    shutil.copytree(root, tmp_path / "data")
    depths = sorted((tmp_path / "data/w_right/depth").iterdir())
    shutil.copy(depths[9], depths[1])  # of one frame of its first clip; colour is as it was
    other = detector.detect_source(*find_deep_videos(tmp_path / "data", options)["w"])
    changed = [not np.array_equal(a.clipwise, b.clipwise) for a, b in zip(both.clips, other.clips, strict=True)]
    assert changed == [False] * 4  # frames 0 and 2 are taken
    shutil.copy(depths[9], depths[2])
    other = detector.detect_source(*find_deep_videos(tmp_path / "data", options)["w"])
    changed = [not np.array_equal(a.clipwise, b.clipwise) for a, b in zip(both.clips, other.clips, strict=True)]
    assert changed == [True, False, False, False]
    depths[4].write_bytes(b"torn")  # the second clip takes 4 and 6
    hole = detector.detect_source(*find_deep_videos(tmp_path / "data", options)["w"])
    assert {clip.cameras for clip in hole.clips} == {("left", "right")}
    assert hole.notes[0].startswith("camera right: the depth of 1 of 8 frames read is missing or damaged: ")
    depths[6].write_bytes(b"torn")
    torn = detector.detect_source(*find_deep_videos(tmp_path / "data", options)["w"])
    assert [clip.cameras for clip in torn.clips] == [("left", "right"), ("left",), ("left", "right"), ("left", "right")]
    assert [note.split(" of ")[0] for note in torn.notes] == ["camera right: frames 4 to 7"]


def test_what_has_no_depth_is_seen_by_rgb_alone(
    trained: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in training. No frame goes missing with its depth: all later ones would be early against the other camera."""
    detector = ActionDetector.from_pretrained(trained, batch_size=1)
    options = {**OPTIONS, "cameras": "_*"}
    both = detector.detect_source(*find_deep_videos(root, options)["w"])
    shutil.copytree(root, tmp_path / "data")
    for file in sorted((tmp_path / "data/w_right/depth").iterdir())[4:6]:
        file.unlink()
    gaps = detector.detect_source(*find_deep_videos(tmp_path / "data", options)["w"])
    assert [clip.start for clip in gaps.clips] == [clip.start for clip in both.clips]
    assert {clip.cameras for clip in gaps.clips} == {("left", "right")}
    changed = [not np.array_equal(a.clipwise, b.clipwise) for a, b in zip(both.clips, gaps.clips, strict=True)]
    assert changed == [False, True, False, False]
    shutil.rmtree(tmp_path / "data/w_right/depth")
    found = find_deep_videos(tmp_path / "data", options)
    alone = detector.detect_source(*found["w"])
    assert without_depth(found.values()) == ["w_right"]
    assert {clip.cameras for clip in alone.clips} == {("left", "right")}
    capsys.readouterr()
    assert detect_actions.main(_words(trained, tmp_path / "data", tmp_path / "out")) == 0
    assert "1 video without depth is seen by RGB alone: w_right" in capsys.readouterr().err
    for name in ("v_left", "v_right", "w_left"):
        shutil.rmtree(tmp_path / "data" / name / "depth")
    assert detect_actions.main(_words(trained, tmp_path / "data", tmp_path / "none")) == 2
    assert "DataError: no depth was found for the videos of" in capsys.readouterr().err


def test_what_does_not_go_together_is_refused(trained: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    words = _words(trained, root, tmp_path)
    assert detect_actions.main([*words, "cameras=folder"]) == 2
    assert "--options cameras: pass it as --cameras" in capsys.readouterr().err
    detector, source = ActionDetector.from_pretrained(trained), find_deep_videos(root, {**OPTIONS, "cameras": "_*"})
    first = source["w"]
    further = next(each.number for each in first.cameras if each.number != first.number)
    with pytest.raises(ConfigError, match=r"w_right is by a further camera of its case; .* first one, w_left"):
        detector.detect_source(first.source, further)
    if detector.model.config.temporal_cameras is not None:
        for name in ("v", "w"):
            (root / f"{name}_left").rename(root / f"{name}_light")
        try:
            assert detect_actions.main(_words(trained, root, tmp_path)) == 2
        finally:
            for name in ("v", "w"):
                (root / f"{name}_light").rename(root / f"{name}_left")
        assert "by camera 'light', but the model was trained on the cameras right, left" in capsys.readouterr().err
