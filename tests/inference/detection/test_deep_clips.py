"""Detection with depth: recordings of a depth camera from import to phases, and bad input."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.kinect_files import write_kinect
from helpers.phases_in_memory import MODEL, NAMES, SIDE, arguments, first_stage
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.inference.detection.deep_clips import find_deep_videos, source_options
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.scripts import detect_actions, import_recording
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

RGBD: dict[str, Any] = {"task_inputs": ["rgb", "depth"], "task_fusion": "concatenation"}
OPTIONS: dict[str, Any] = {"depth_scale": 1000, "calibration": "calibration.json", "fps": 30}
FRAMES = 14


def _mixing(model: Any) -> Any:
    """The model with a fusion that is not fresh, so that depth counts."""
    if model.task_fusion is not None:
        with torch.no_grad():
            for weight in model.task_fusion.parameters():
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two imported recordings of Azure Kinect, annotated."""
    folder = tmp_path_factory.mktemp("kinect")
    for name in ("a", "b"):
        write_kinect(folder / f"{name}.mkv", FRAMES, infrared=False)
        assert import_recording.main([str(folder / f"{name}.mkv"), "--output", str(folder / "data" / name)]) == 0
        lines = [f"{number}\t{NAMES[number * 3 // FRAMES]}\n" for number in range(FRAMES)]
        (folder / "data" / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))
    for split, name in (("train", "a"), ("validation", "b")):
        (folder / "data" / f"{split}.txt").write_text(f"{name}\n")
    return folder / "data"


@pytest.fixture(scope="module", params=[["rgb", "depth"], ["depth"]], ids="+".join)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    fields = {**RGBD, "task_inputs": request.param} if len(request.param) > 1 else {"task_inputs": request.param}
    stage = first_stage(folder / "one", **fields)
    _mixing(M33DForVideoClassification.from_pretrained(stage)).save_pretrained(stage)
    args = arguments(folder / "run", stage, phase_names=NAMES, **OPTIONS)
    args.data.source, args.data.root = "phases", str(root)
    train(args, ActionDetectionTask())
    return folder / "run"


def test_phases_of_a_depth_camera_are_those_of_the_evaluation(trained: Path, root: Path, tmp_path: Path) -> None:
    words = ["--model", str(trained), "--video", str(root), "--depth", "--output", str(tmp_path), "--device", "cpu"]
    assert detect_actions.main([*words, "--options", *(f"{name}={value}" for name, value in OPTIONS.items())]) == 0
    (table,) = (trained / "evaluation/frames").glob("*.csv")
    with table.open(newline="") as file:
        wanted = list(csv.DictReader(file))
    with (tmp_path / "b_clips.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    assert len(wanted) == FRAMES and len(clips) == 4
    for clip in clips:
        for frame in range(int(clip["start_frame"]), int(clip["end_frame"]) + 1):
            assert [float(clip[n]) for n in NAMES] == pytest.approx([float(wanted[frame][n]) for n in NAMES], abs=2e-6)
    assert clips[-1]["end_time"] == "00:00.47"  # 14 frames of 30 a second


def test_depth_is_registered_by_the_calibration(root: Path) -> None:
    """The two cameras have other views: without their calibration they are refused when they are read."""
    source = PhasesSource(root, unit="videos", **OPTIONS)
    sample = source[0].read([0])
    assert sample.rgb is not None and sample.depth is not None and sample.depth.shape[-2:] == sample.rgb.shape[-2:]
    with pytest.raises(DataError, match="register depth to RGB with the cameras' calibration"):
        PhasesSource(root, unit="videos", depth_scale=1000, align="depth_to_rgb")


def test_two_videos_of_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    for place in ("day/a_b", "day_a/b"):
        shutil.copytree(root / "a", tmp_path / place)
    with pytest.raises(ConfigError, match="would both be written as 'day_a_b'; give one of them another name"):
        find_deep_videos(tmp_path, OPTIONS)


def test_depth_changes_what_is_seen(root: Path) -> None:
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    fields = {**MODEL, **labels, **RGBD, "temporal_hidden_size": 8, "temporal_frame_stride": 2}
    detector = ActionDetector(_mixing(M33DForVideoActionDetection(M33DConfig(**fields))), batch_size=2)
    video = find_deep_videos(root, OPTIONS)["a"]
    said: list[str] = []
    both, alone = detector.detect_source(*video, said.append), detector.detect(video.path / "color", fps=30)
    assert (both.path, both.length, both.fps) == (root / "a", FRAMES, 30.0)
    assert [(clip.start, clip.stop) for clip in both.clips] == [(clip.start, clip.stop) for clip in alone.clips]
    assert not np.allclose(both.clips[0].clipwise, alone.clips[0].clipwise, atol=1e-5)


def test_depth_that_is_missing_is_a_hole_and_a_clip_without_any_is_told(
    trained: Path, root: Path, tmp_path: Path
) -> None:
    """Frame 4 is missing and 6 is there; of 8 and 10 both are torn."""
    shutil.copytree(root, tmp_path / "data")
    depth = tmp_path / "data/a/depth"
    (depth / "000004.png").unlink()
    (depth / "000008.png").write_bytes(b"torn")
    (depth / "000010.png").write_bytes(b"torn")
    # The last bits of a clip depend on how many are encoded at once.
    detector = ActionDetector.from_pretrained(trained, batch_size=1)
    videos = find_deep_videos(tmp_path / "data", OPTIONS)
    found = detector.detect_source(*videos["a"])
    assert [clip.readable for clip in found.clips] == [True, True, False, True]
    assert [(stretch.start, stretch.stop) for stretch in found.unreadable] == [(8, 12)]
    (note,) = found.notes
    assert note.startswith("the depth of 1 of 6 frames read is missing or damaged: it is a hole; the first: ")
    whole = detector.detect_source(*find_deep_videos(root, OPTIONS)["a"])
    assert np.array_equal(found.clips[0].clipwise, whole.clips[0].clipwise)
    assert not np.array_equal(found.clips[1].clipwise, whole.clips[1].clipwise)
    holes = Image.fromarray(np.zeros_like(np.asarray(Image.open(depth / "000006.png"))))
    holes.save(depth / "000004.png")
    again = detector.detect_source(*find_deep_videos(tmp_path / "data", OPTIONS)["a"])
    assert np.array_equal(again.clips[1].clipwise, found.clips[1].clipwise), "as a map without a measurement"
    assert not again.notes
    for path in (tmp_path / "data/b/depth").iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(CorruptFileError, match="no clip of it can be read"):
        detector.detect_source(*videos["b"])


def test_a_clip_whose_depth_is_missing_is_seen_by_rgb_alone(
    trained: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "data")
    for number in range(4, 8):
        (tmp_path / f"data/a/depth/{number:06d}.png").unlink()
    words = ["--model", str(trained), "--video", str(tmp_path / "data"), "--depth", "--output", str(tmp_path / "out")]
    words += ["--device", "cpu", "--options", *(f"{name}={value}" for name, value in OPTIONS.items())]
    assert detect_actions.main(words) == 0
    said, rows = capsys.readouterr().err, (tmp_path / "out/a_clips.csv").read_text(encoding="utf-8")
    readable = [row["readable"] for row in csv.DictReader(rows.splitlines())]
    sees_rgb = "rgb" in ActionDetector.from_pretrained(trained).model.task_inputs
    listed = tmp_path / "out/skipped_files.csv"
    if sees_rgb:
        assert readable == ["1"] * 4
        (row,) = csv.DictReader(listed.read_text(encoding="utf-8").splitlines())
        assert row["path"] == str(tmp_path / "data/a/color"), "the first one of the folder"
        assert row["reason"] == "depth is missing, a hole in its clips: no depth for a/000004"
        assert "a: the depth of 2 of 8 frames read is missing or damaged: they are holes" in said
    else:
        assert readable == ["1", "0", "1", "1"] and not listed.exists(), "the tables of the video tell of it"
        assert "no frame of the clip has depth, and the model sees nothing else: no depth for a/000004" in said


def test_what_does_not_go_together_is_refused(trained: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--model", str(trained), "--output", str(tmp_path), "--device", "cpu"]
    alone = "rgb" not in ActionDetector.from_pretrained(trained).model.task_inputs
    cases = [
        (["--video", str(root), "--depth", "--fps", "30"], "with --depth pass --options fps=N"),
        (["--video", str(root / "a.txt"), "--depth"], "--depth takes one folder with --video"),
        (["--video", str(root), "--depth", "--options", "depth_scale"], "--options takes NAME=VALUE"),
        (["--video", str(root), "--depth", "--options", "unit=clips"], "the option unit is not for detection"),
        (["--video", str(root / "a/color"), "--options", "fps=3"], "--options are those of --depth"),
        (["--follow", "x.ts", "--depth"], "--depth has no use with --follow"),
    ]
    if alone:
        cases.append((["--video", str(root / "a/color")], "sees depth alone: pass --depth"))
    for more, message in cases:
        assert detect_actions.main([*words, *more]) == 2
        assert message in capsys.readouterr().err, more
    if not alone:
        assert detect_actions.main([*words, "--video", str(root / "a/color")]) == 0
        assert "looks at RGB alone here; with depth beside the videos pass --depth" in capsys.readouterr().err
    plain = first_stage(tmp_path / "plain")
    run = arguments(tmp_path / "rgb", plain, phase_names=NAMES, depth="none", fps=30)
    run.data.source, run.data.root = "phases", str(root)
    train(run, ActionDetectionTask())
    words[1] = str(tmp_path / "rgb")
    deep = [f"{name}={value}" for name, value in OPTIONS.items()]
    assert detect_actions.main([*words, "--video", str(root), "--depth", "--options", *deep]) == 2
    assert "sees RGB alone; leave it out" in capsys.readouterr().err


def test_options_are_read_as_values() -> None:
    found = source_options(["depth_scale=1000", "calibration=calibration.json", "align=depth_to_rgb"])
    assert found == {"depth_scale": 1000, "calibration": "calibration.json", "align": "depth_to_rgb"}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        source_options(["depth_scale"])


def test_a_calibration_is_of_folders_of_frames(tmp_path: Path) -> None:
    from helpers.videos import write_video

    write_video(tmp_path / "a.mp4", 8, size=(SIDE, SIDE * 2))
    with pytest.raises(ConfigError, match=r"registers the depth of folders of frames, but .* holds video files"):
        PhasesSource(tmp_path, unit="videos", calibration="calibration.json")
