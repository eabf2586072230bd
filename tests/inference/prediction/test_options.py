"""inference/prediction/options.py: what is stated is read, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.prediction import ALONE, options, save_clips, save_phases, save_pretraining, save_segmentation
from helpers.videos import write_video
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import ConfigError
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.options import PARTICULAR
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.running import predict
from m33d_hf.inference.prediction.segmentation import SegmentationTask

STATED: dict[str, Any] = {
    "flip": True, "tiles": True, "tile_overlap": 0.5, "intrinsics": [9.0, 9.0, 4.0, 4.0], "calibration": Path("c.json"),
    "field_of_view": 50.0, "kind": "metric", "top_k": 2, "clips": 3, "fps": 25.0,
}  # fmt: skip
READERS: dict[str, tuple[type[PredictionTask], ...]] = {
    "flip": (DepthTask, SegmentationTask), "tiles": (DepthTask, SegmentationTask),
    "tile_overlap": (DepthTask, SegmentationTask), "intrinsics": (DepthTask,),
    "calibration": (DepthTask, SegmentationTask, ClipTask, ReconstructionTask),
    "field_of_view": (DepthTask,), "kind": (DepthTask,), "top_k": (ClipTask,), "clips": (ClipTask,),
    "fps": (PhaseTask,),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTICULAR)
def test_options_are_refused_by_tasks_that_do_not_read_them(name: str) -> None:
    stated = options(Path("model"), "in", Path("out"), **{name: STATED[name]})
    for task in (DepthTask, SegmentationTask, ClipTask, PhaseTask, ReconstructionTask):
        if task in READERS[name]:
            stated.refuse_unread(task.task, task.reads_options)
        else:
            with pytest.raises(ConfigError, match=f"--{name} has no effect on the {task.task} that model predicts"):
                stated.refuse_unread(task.task, task.reads_options)


@pytest.mark.parametrize(
    ("save", "changes"),
    [
        (save_segmentation, {"top_k": 3}),
        (save_clips, {"tiles": True}),
        (save_phases, {"flip": True}),
        (save_pretraining, {"flip": True}),
    ],
)
def test_every_task_refuses_them(save: Callable[[Path], Path], changes: dict[str, Any], tmp_path: Path) -> None:
    model = save(tmp_path / "model")
    with pytest.raises(ConfigError, match="has no effect"):
        build_prediction_task(options(model, "in", tmp_path / "out", **changes))


def test_a_folder_that_was_begun_with_them_is_continued(tmp_path: Path) -> None:
    model, video = save_clips(tmp_path / "model"), write_video(tmp_path / "v.mp4", 6)
    predict(options(model, video, tmp_path / "out"), ALONE, say=str)
    plan = read_sealed_json(tmp_path / "out/prediction.json")
    plan["rules"] |= {"flip": True, "tile_overlap": 0.25}
    write_sealed_json(tmp_path / "out/prediction.json", plan)
    assert predict(options(model, video, tmp_path / "out"), ALONE, say=str).already_there == 1
