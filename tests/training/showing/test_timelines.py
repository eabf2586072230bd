"""Runs on whole videos: frames with their time and phase, and timelines at every evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.phases_in_memory import NAMES, arguments, first_stage, register
from m33d_hf.training.run.loop import train
from m33d_hf.training.showing import timelines
from m33d_hf.training.showing.timelines import video_frames
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.visualization.tiles import TileRow


def test_videos_are_shown_with_their_phases_and_timelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    shown: list[TileRow] = []
    draw = timelines.tiles_figure

    def noting(rows: list[TileRow], *args: Any, **kwargs: Any) -> Any:
        shown.extend(rows)
        return draw(rows, *args, **kwargs)

    monkeypatch.setattr(timelines, "tiles_figure", noting)
    args = arguments(tmp_path / "out", first_stage(tmp_path / "first"))
    args.logging.pictures = True
    train(args, ActionDetectionTask())
    assert [row.title for row in shown] == ["train/v0", "train/v1", "train/v2"]
    # 33 frames of "0" * 12 + "1" * 9 + "2" * 12, of which 6 are shown, the first and the last among them
    expected = [NAMES[int(("0" * 12 + "1" * 9 + "2" * 12)[place])] for place in (0, 6, 13, 19, 26, 32)]
    assert f"phases: {', '.join(expected)}; 100 % of the frames annotated" in shown[0].note
    assert "not annotated" in shown[2].note and f"{100 * 23 / 31:.0f} % of the frames annotated" in shown[2].note
    names = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    drawn = [f"evaluation_step_00000003_{n}_validation_v{n}.png" for n in (0, 1)]
    assert names == ["curves.png", *drawn, "first_batch.png"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    evaluated = [path.name for path in (tmp_path / "out").rglob("confusion*.png")]  # written by the evaluation
    assert len(evaluated) == 1 and "clipwise/ap" in page
    assert page.count("data:image/png;base64,") == len(names) + len(evaluated)


def test_frames_are_spread_over_the_video(tmp_path: Path) -> None:
    register()
    args = arguments(tmp_path / "out", first_stage(tmp_path / "first"))
    task = ActionDetectionTask()
    dataset: Any = task.build_datasets(args, task.build_model(args))[0]
    frames = video_frames(dataset, 1, count=3)
    handle = dataset.phases.videos[1].handle
    assert [int(name.split("frame ")[1].rstrip(")")) for name in frames] == [0, 13, 26]
    for name, image in frames.items():
        place = int(name.split("frame ")[1].rstrip(")"))
        assert np.array_equal(image, handle.read([place]).rgb[0].permute(1, 2, 0).numpy())
        assert name.startswith(f"0:{round(place / handle.fps):02d} ") or handle.fps is None
