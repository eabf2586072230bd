"""inference/prediction/clips.py and phases.py: the pipeline's classes; detection's timelines."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from helpers.depth_models import shake, write_pictures
from helpers.prediction import ALONE, NAMES, options, save_clips, save_phases
from helpers.tiny import CLIP, tiny_config
from helpers.videos import write_video
from m33d_hf.data.depth.calibration import Calibration, Camera, write_calibration
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.detection_files import detect_all
from m33d_hf.inference.prediction.clips import spread
from m33d_hf.inference.prediction.running import PredictionSummary, predict
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import read_video
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification


def run(*given: Any, **changes: Any) -> PredictionSummary:
    return predict(options(*given, **changes), ALONE, say=str)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clips(tmp_path_factory.mktemp("clips"), frame_stride=2)


def test_classes_equal_those_of_the_pipeline(clips: Path, tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"in/v{number}.mp4", 12 + number) for number in range(4)]
    write_pictures(tmp_path / "in/frames", 6)
    (tmp_path / "in/bad.mp4").write_bytes(b"nothing")
    summary = run(clips, tmp_path / "in", tmp_path / "out")
    assert summary.predicted == 5 and len(summary.skipped) == 1
    classify = pipeline("video-classification", model=str(clips), device="cpu")
    rows = rows_of(tmp_path / "out/classes.csv")
    for video in [*videos, tmp_path / "in/frames"]:
        found = {row["class"]: float(row["probability"]) for row in rows if row["input"] == video.stem}
        expected = {entry["label"]: entry["score"] for entry in classify(str(video))}
        assert list(found) == list(expected), "the same order"
        assert found == pytest.approx(expected, abs=1e-6 + 5e-7), "six digits are written"
    shown = read_video(tmp_path / "out/videos/v0.mp4", range(12))
    assert len(shown) == 12 and shown.shape[1] > 256, "lines below the picture"
    assert run(clips, tmp_path / "in", tmp_path / "out", save=["classes"]).already_there == 5
    run(clips, tmp_path / "in", tmp_path / "out", save=["classes"], limit=2)
    assert rows_of(tmp_path / "out/classes.csv") == rows, "those of earlier calls stay"


def test_probabilities_of_several_clips_are_averaged(clips: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", 30)
    run(clips, video, tmp_path / "out", clips=3, top_k=2, save=["classes"])
    model, processor = (
        M33DForVideoClassification.from_pretrained(clips).eval(),
        M33DVideoProcessor.from_pretrained(clips),
    )
    shares = []
    for start in (0, 12, 23):  # four frames, two apart, of thirty: the last clip may begin at 23
        frames = read_video(video, [start, start + 2, start + 4, start + 6])
        with torch.no_grad():
            logits = model(**processor([frames], do_sample_frames=False, return_tensors="pt")).logits
        shares.append(logits.double().softmax(-1)[0])
    mean = torch.stack(shares).mean(0)
    rows = rows_of(tmp_path / "out/classes.csv")
    assert len(rows) == 2 and [int(row["class_id"]) for row in rows] == mean.topk(2).indices.tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(mean.topk(2).values.tolist(), abs=1e-5)


def save_rgbd(folder: Path, *inputs: str) -> Path:
    """A clip classifier that sees these inputs, depth in millimetres."""
    config = tiny_config(**CLIP, id2label=NAMES, label2id={name: n for n, name in NAMES.items()}, task_inputs=inputs)
    model = M33DForVideoClassification(config)
    shake(model, 0)
    model.save_pretrained(folder)
    M33DVideoProcessor.from_model_config(config, depth_unit="millimetre", frame_stride=2).save_pretrained(folder)
    return folder


def save_depth(folder: Path, frames: int, factor: int = 1) -> np.ndarray:
    """(T, 48, 60) uint16 millimetres, as stored in a folder of numbered PNGs times `factor`."""
    rng = np.random.default_rng(frames)
    maps = rng.integers(0, 4000, (frames, 48, 60)).astype(np.uint16)
    folder.mkdir(parents=True)
    for number, values in enumerate(maps):
        Image.fromarray((values * factor).astype(np.uint16)).save(folder / f"{number:03d}.png")
    return maps


def expected_shares(model: Path, video: Path, frames: list[int], maps: np.ndarray | None) -> list[float]:
    network = M33DForVideoClassification.from_pretrained(model).eval()
    processor = M33DVideoProcessor.from_pretrained(model)
    depth = {} if maps is None else {"depth": [maps[frames]]}
    inputs = processor([read_video(video, frames)], do_sample_frames=False, return_tensors="pt", **depth)
    with torch.no_grad():
        return network(**inputs).logits.softmax(-1)[0].tolist()


def test_depth_beside_the_videos_where_there_is_any(tmp_path: Path) -> None:
    """A folder of maps, in the unit that its own depth_spec.json says; a video without it, and one that lacks some."""
    model = save_rgbd(tmp_path / "model", "rgb", "depth")
    videos = [write_video(tmp_path / f"in/v{n}.mp4", 12, size=(48, 60)) for n in range(3)]
    maps = save_depth(tmp_path / "maps/v0", 12, factor=10)
    save_depth(tmp_path / "maps/v2", 7)
    (tmp_path / "maps/depth_spec.json").write_text('{"kind": "metric", "scale": 10000}')
    summary = run(model, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps", save=["classes"])
    assert "With measured depth: 1 video; 1 without depth there, from RGB alone." in summary.lines, "v2 was skipped"
    assert not any("looked at RGB alone" in line for line in summary.lines)
    without = run(model, tmp_path / "in", tmp_path / "rgb", save=["classes"])
    assert any("sees RGB and depth, and looked at RGB alone" in line for line in without.lines)
    assert [Path(file.path).name for file in summary.skipped] == ["v2.mp4"]
    assert "12 frames, but its depth v2 has 7" in summary.skipped[0].reason
    rows = rows_of(tmp_path / "out/classes.csv")
    middle = [2, 4, 6, 8]  # of twelve frames, four with a stride of two: span 7, spare 5, from 2
    for name, depth in (("v0", maps), ("v1", None)):
        found = {int(row["class_id"]): float(row["probability"]) for row in rows if row["input"] == name}
        shares = expected_shares(model, videos[int(name[1])], middle, depth)
        assert [found[n] for n in range(3)] == pytest.approx(shares, abs=1e-5)
    assert expected_shares(model, videos[0], middle, maps) != pytest.approx(
        expected_shares(model, videos[0], middle, None), abs=1e-4
    ), "depth tells in this model"


def test_depth_of_another_camera_is_refused_with_what_clips_can_do(tmp_path: Path) -> None:
    """Before anything is read; the advice is obeyed and works."""
    model = save_rgbd(tmp_path / "model", "rgb", "depth")
    write_video(tmp_path / "in/v0.mp4", 12, size=(48, 60))
    save_depth(tmp_path / "maps/v0", 12)
    moved = ((1.0, 0.0, 0.0, 0.05), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    camera = Camera(60, 48, 50.0, 50.0, 30.2, 23.6)
    write_calibration(tmp_path / "maps/calibration.json", Calibration(camera, camera, moved))
    given: dict[str, Any] = {"depth": tmp_path / "maps", "depth_unit": "millimetre", "save": ["classes"]}
    with pytest.raises(ConfigError, match=r"of another camera.* store the depth registered") as refused:
        run(model, tmp_path / "in", tmp_path / "out", **given)
    advised = set(re.findall(r"--calibration (\S+?)[;. ]", str(refused.value)))
    assert advised == {"none"}
    found = run(model, tmp_path / "in", tmp_path / "out", **given, calibration=Path(*advised))
    assert "With measured depth: 1 video." in found.lines


def test_frames_whose_depth_is_missing_or_torn_are_holes(tmp_path: Path) -> None:
    """As maps of zeros, which is what no measurement is stored as; the clip is of frames 2, 4, 6 and 8."""
    model = save_rgbd(tmp_path / "model", "rgb", "depth")
    videos = [write_video(tmp_path / f"in/v{n}.mp4", 12, size=(48, 60)) for n in range(2)]
    maps = save_depth(tmp_path / "maps/v0", 12)
    (tmp_path / "maps/v0/004.png").unlink()
    (tmp_path / "maps/v0/006.png").write_bytes(b"torn")
    save_depth(tmp_path / "maps/v1", 12)
    for number in (2, 4, 6, 8):
        (tmp_path / f"maps/v1/{number:03d}.png").unlink()
    summary = run(model, tmp_path / "in", tmp_path / "out", depth=tmp_path / "maps", save=["classes"])
    assert not summary.skipped
    (line,) = (line for line in summary.lines if line.startswith("With measured depth: 2 videos."))
    assert "Of their clips, the depth of 6 of 8 frames read is missing or damaged: they are holes" in line
    listed = {row["path"]: row["reason"] for row in rows_of(tmp_path / "out/skipped_files.csv")}
    wanted = {"maps/v0": "no depth for frame 4", "maps/v0/006.png": "", "maps/v1": "no depth for frame 2"}
    assert listed.keys() == {str(tmp_path / path) for path in wanted}
    for path, words in wanted.items():
        reason = listed[str(tmp_path / path)]
        assert reason.startswith("depth is missing, a hole in its clips: ") and words in reason
    rows, middle = rows_of(tmp_path / "out/classes.csv"), [2, 4, 6, 8]
    maps[[4, 6]] = 0
    for name, depth in (("v0", maps), ("v1", None)):
        found = {int(row["class_id"]): float(row["probability"]) for row in rows if row["input"] == name}
        shares = expected_shares(model, videos[int(name[1])], middle, depth)
        assert [found[n] for n in range(3)] == pytest.approx(shares, abs=1e-5), name
    alone = save_rgbd(tmp_path / "alone", "depth")
    summary = run(alone, tmp_path / "in", tmp_path / "out2", depth=tmp_path / "maps", save=["classes"])
    assert [Path(file.path).name for file in summary.skipped] == ["v1.mp4"]
    assert "no frame of its clips has depth" in summary.skipped[0].reason
    assert any(line.startswith("With measured depth: 1 video.") for line in summary.lines)


def test_a_model_of_depth_alone_needs_it(tmp_path: Path) -> None:
    model = save_rgbd(tmp_path / "model", "depth")
    video = write_video(tmp_path / "in/v.mp4", 12, size=(48, 60))
    with pytest.raises(ConfigError, match="sees depth alone: pass --depth FOLDER"):
        run(model, video, tmp_path / "out")
    with pytest.raises(ConfigError, match="is no folder"):
        run(model, video, tmp_path / "out", depth=tmp_path / "nowhere")
    maps = save_depth(tmp_path / "maps/v", 12)
    run(model, video, tmp_path / "out", depth=tmp_path / "maps", save=["classes"])
    found = {int(row["class_id"]): float(row["probability"]) for row in rows_of(tmp_path / "out/classes.csv")}
    network = M33DForVideoClassification.from_pretrained(model).eval()
    frames = np.zeros((4, 48, 60, 3), np.uint8)
    inputs = M33DVideoProcessor.from_pretrained(model)(
        [frames], depth=[maps[[2, 4, 6, 8]]], do_sample_frames=False, return_tensors="pt"
    )
    with torch.no_grad():
        shares = network(depth_values=inputs["depth_values"], depth_mask=inputs["depth_mask"]).logits.softmax(-1)[0]
    assert [found[n] for n in range(3)] == pytest.approx(shares.tolist(), abs=1e-5)


def test_depth_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = save_rgbd(tmp_path / "model", "rgb", "depth")
    video = write_video(tmp_path / "in/v.mp4", 12)
    save_depth(tmp_path / "maps/v", 12)
    (tmp_path / "maps/depth_spec.json").write_text('{"kind": "inverse"}')
    with pytest.raises(ConfigError, match=r"holds inverse depth .* trained on metric"):
        run(model, video, tmp_path / "out", depth=tmp_path / "maps")


def test_clips_are_spread_from_begin_to_end() -> None:
    middle = np.array([6, 8, 10])
    assert spread(middle, 17, 2) == [[0, 2, 4], [12, 14, 16]]
    assert spread(middle, 17, 3)[1] == [6, 8, 10]
    assert spread(np.array([0, 2, 2]), 3, 2) == [[0, 2, 2], [0, 2, 2]]


def test_pictures_are_refused(clips: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2)
    with pytest.raises(DataError, match="sees clips"):
        run(clips, tmp_path / "in/frame_000.png", tmp_path / "out")


def test_timelines_are_those_of_detection(tmp_path: Path) -> None:
    model = save_phases(tmp_path / "model")
    video = write_video(tmp_path / "in/op.mp4", 21)
    write_video(tmp_path / "in/sub/op.mp4", 9)
    (tmp_path / "in/bad.mp4").write_bytes(b"nothing")
    summary = run(model, tmp_path / "in", tmp_path / "out")
    assert summary.predicted == 2 and [Path(file.path).name for file in summary.skipped] == ["bad.mp4"]
    detect_all(ActionDetector.from_pretrained(model), {"op": video}, tmp_path / "other")
    for name in ("op_segments.csv", "op_clips.csv"):
        assert (tmp_path / "out/timelines" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert (tmp_path / "out/timelines/op_timeline.png").stat().st_size > 5000
    assert (tmp_path / "out/timelines/sub/op_segments.csv").is_file()
    header = rows_of(tmp_path / "out/timelines/op_clips.csv")[0]
    assert set(NAMES.values()) <= set(header)
    assert run(model, tmp_path / "in", tmp_path / "out").already_there == 2
