"""inference/prediction/running.py: frames of videos are read ahead, and what an error of reading or writing leaves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.depth_models import save_ours
from helpers.prediction import ALONE, options, save_segmentation
from helpers.videos import write_video
from helpers.watched_reading import watched_reading
from m33d_hf.data.depth.stores import frame_name
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.inference.prediction import running
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.prediction.running import PredictionSummary, predict
from m33d_hf.inference.prediction.segmentation import SegmentationTask

SMALL: dict[str, Any] = {"batch_size": 2, "workers": 1}
# Frames that a pass of that batch size and of one worker draws before it computes for the first time.
DRAWN = 2 + 2 + 1 - 1


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ours(tmp_path_factory.mktemp("depth"))


def run(model: Path, root: Path, say: Any = str, **changes: Any) -> PredictionSummary:
    return predict(options(model, root / "in", root / "out", **SMALL, **changes), ALONE, say=say)


def test_frames_are_read_while_the_model_computes(
    depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch waits for a frame that is drawn after it, which never comes where one thread does both."""
    write_video(tmp_path / "in/a.mp4", 12)
    read = threading.Event()
    watched_reading(running, monkeypatch, DRAWN, read.set)
    given = options(depth, tmp_path / "in", tmp_path / "out", save=["depth"], **SMALL)
    task = build_prediction_task(given)
    computed = task.compute

    def waiting(prepared: Any) -> Any:
        assert read.wait(20), "no frame is read meanwhile"
        return computed(prepared)

    monkeypatch.setattr(task, "compute", waiting)
    assert predict(given, ALONE, task, say=str).frames == 12


@pytest.mark.parametrize("error", [CorruptFileError("a.mp4", "ends in frame 9"), KeyboardInterrupt(), OSError("gone")])
def test_an_error_of_reading_leaves_no_thread(
    error: BaseException, depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    write_video(tmp_path / "in/a.mp4", 12)
    write_video(tmp_path / "in/b.mp4", 2)
    watched_reading(running, monkeypatch, 9, fail)
    before = threading.active_count()
    if isinstance(error, DataError):
        summary = run(depth, tmp_path, save=["depth"])
        assert summary.predicted == 1 and [each.reason for each in summary.skipped] == ["ends in frame 9"]
        assert not list((tmp_path / "out").rglob("a*"))
    else:
        with pytest.raises(type(error)):
            run(depth, tmp_path, save=["depth"])
        monkeypatch.undo()
        lines: list[str] = []
        assert run(depth, tmp_path, lines.append, save=["depth"]).predicted == 2
        assert any("a: continuing at frame" in line for line in lines)
    assert threading.active_count() == before


def test_no_frame_takes_the_place_of_one_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for a moment: the frames after it were under way in the writing thread."""
    model, full = save_segmentation(tmp_path / "model"), [False]
    write_video(tmp_path / "in/a.mp4", 12)
    write = SegmentationTask.save_labels

    def failing(self: SegmentationTask, path: Path, labels: np.ndarray) -> None:
        if path.name == frame_name(3) and not full[0]:
            full[0] = True
            raise OSError("No space left on device")
        write(self, path, labels)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "save_labels", failing)
        with pytest.raises(OSError, match="No space"):
            run(model, tmp_path, save=["labels"])
    run(model, tmp_path, save=["labels"])
    predict(options(model, tmp_path / "in", tmp_path / "whole", save=["labels"], **SMALL), ALONE, say=str)
    names = sorted(path.name for path in (tmp_path / "whole/labels/a").glob("*.png"))
    assert len(names) == 12
    for name in names:
        found, expected = (np.array(Image.open(tmp_path / folder / "labels/a" / name)) for folder in ("out", "whole"))
        assert np.array_equal(found, expected), name
