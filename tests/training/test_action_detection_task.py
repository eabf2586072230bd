"""The second stage through the real loop: from a first stage's folder to scores, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.phases_in_memory import arguments, first_stage, register
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.loop import train
from m33d_hf.training.tasks.action_detection import ActionDetectionTask


@pytest.fixture(autouse=True)
def _memory() -> None:
    register()


def test_a_run_leaves_a_whole_model_and_scores(tmp_path: Path) -> None:
    stage = first_stage(tmp_path / "stage1")
    result = train(arguments(tmp_path / "out", stage), ActionDetectionTask())
    print(result.metrics)
    model = M33DForVideoActionDetection.from_pretrained(tmp_path / "out")
    assert model.config.temporal_frame_stride == 2 and model.config.temporal_clip_stride == 4
    assert torch.isfinite(torch.tensor(list(result.metrics.values()))).all()
