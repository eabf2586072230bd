"""Phases too short for a clip of their own: training names the class without clips, evaluation counts the frame."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.phases_in_memory import NAMES, arguments, first_stage
from m33d_hf.data.sources import SOURCES
from m33d_hf.errors import DataError
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

ONE_FRAME = ["0" * 9 + "1" + "2" * 10]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", ("helpers.phases_in_memory", "MemorySource"))


def _run(folder: Path, training: list[str], validation: list[str]) -> Any:
    videos = {"train": training, "validation": validation}
    return train(arguments(folder / "run", first_stage(folder / "one"), videos=videos), ActionDetectionTask())


def test_training_without_a_clip_of_a_phase_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)cut"):
        _run(tmp_path, ONE_FRAME, ["0" * 8 + "2" * 8])


def test_a_phase_of_one_frame_is_evaluated(tmp_path: Path) -> None:
    whole = ["0" * 8 + "1" * 8 + "2" * 8]
    result = _run(tmp_path, whole, ONE_FRAME)
    names = ("frame_accuracy", "map", "phase_jaccard", "edit")
    assert np.isfinite([result.metrics[f"eval/{name}"] for name in names]).all()
    with (tmp_path / "run/evaluation/video_phases.csv").open(newline="") as file:
        rows = {row["phase"]: row for row in csv.DictReader(file)}
    assert set(rows) >= set(NAMES)
    frames = next(name for name in rows["cut"] if "frames" in name)
    assert int(rows["cut"][frames]) == 1
