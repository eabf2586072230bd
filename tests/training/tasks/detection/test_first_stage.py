"""training/tasks/detection/first_stage.py: first stages stored in pieces or in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.phases_in_memory import arguments, first_stage, register
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.first_stage import load_first_stage
from m33d_hf.training.tasks.detection.task import ActionDetectionTask


@pytest.fixture
def whole(tmp_path: Path) -> M33DForVideoClassification:
    return M33DForVideoClassification.from_pretrained(first_stage(tmp_path / "whole"))


def test_a_first_stage_in_pieces_is_read_whole(tmp_path: Path, whole: M33DForVideoClassification) -> None:
    whole.save_pretrained(tmp_path / "pieces", max_shard_size="4KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    model, report = load_first_stage(arguments(tmp_path / "out", str(tmp_path / "pieces")))
    stored = whole.state_dict()
    assert report.filled.keys() == stored.keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in stored.items())


def test_a_first_stage_in_half_precision_trains_in_float32(tmp_path: Path, whole: M33DForVideoClassification) -> None:
    register()
    whole.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    args = arguments(tmp_path / "out", str(tmp_path / "half"))
    model, _ = load_first_stage(args)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    stored = whole.state_dict()
    assert all(torch.equal(model.state_dict()[name], value.float()) for name, value in stored.items())
    assert train(args, ActionDetectionTask()).step == args.train.max_steps
