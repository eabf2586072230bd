"""inference/prediction/clips.py and phases.py: the pipeline's classes; detection's timelines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from helpers.depth_models import write_pictures
from helpers.prediction import ALONE, NAMES, options, save_clips, save_phases
from helpers.videos import write_video
from m33d_hf.errors import DataError
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
