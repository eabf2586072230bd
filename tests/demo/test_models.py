"""demo/models.py: what is found, what is offered, and that nothing else is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.depth_models import save_ours
from helpers.prediction import save_clips, save_pretraining, save_segmentation
from helpers.tiny import CLIP, MULTIMAE
from m33d_hf.demo import models as module
from m33d_hf.demo.models import Models, find_models
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.segmentation import SegmentationTask


def test_runs_are_found_without_the_states_in_them(tmp_path: Path) -> None:
    save_ours(tmp_path / "outputs/rooms/depth")
    save_ours(tmp_path / "outputs/rooms/depth/checkpoints/step_10")
    save_segmentation(tmp_path / "outputs/semseg")
    save_ours(tmp_path / "outputs/.hidden")
    (tmp_path / "outputs/unfinished").mkdir()
    (tmp_path / "outputs/unfinished/config.json").write_text("{}")
    found = find_models([tmp_path / "outputs", tmp_path / "missing"])
    assert [Path(name).relative_to(tmp_path / "outputs").as_posix() for name in found] == ["rooms/depth", "semseg"]


def test_offers_by_task_and_what_is_found_but_of_no_use_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    depth, classes = save_ours(tmp_path / "depth"), save_segmentation(tmp_path / "semseg")
    other = save_segmentation(tmp_path / "other")
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace("M33DForSemanticSegmentation", "M33DModel"))
    models = Models.of([], [str(depth), str(classes), str(other)])
    assert models.names("depth") == [str(depth)] and models.names("segmentation") == [str(classes)]
    assert "other is left out" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="M33DModel"):
        Models.of([str(other)])


def test_only_what_is_offered_is_loaded_and_only_as_what_it_is(tmp_path: Path) -> None:
    depth, other = save_ours(tmp_path / "depth"), save_ours(tmp_path / "other")
    models = Models.of([str(depth)], device="cpu")
    with pytest.raises(ConfigError, match="not among the models"), models.using(str(other), DepthTask):
        pass
    with pytest.raises(ConfigError, match="is a model for depth"), models.using(str(depth), SegmentationTask):
        pass
    with models.using(str(depth), DepthTask) as once:
        pass
    with models.using(str(depth), DepthTask) as twice:
        assert twice is once


def test_few_models_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    names = [str(save_segmentation(tmp_path / word, seed)) for seed, word in enumerate("abc")]
    models = Models.of(names, device="cpu")
    loaded: list[PredictionTask] = []
    for name in (*names, names[0]):
        with models.using(name, SegmentationTask) as task:
            loaded.append(task)
    assert list(models._loaded) == [names[2], names[0]] and loaded[3] is not loaded[0]


def test_what_pre_trained_models_take(tmp_path: Path) -> None:
    names = [
        str(save_pretraining(tmp_path / "pictures")),
        str(save_pretraining(tmp_path / "clips", **CLIP)),
        str(save_pretraining(tmp_path / "budget", **MULTIMAE)),
        str(save_clips(tmp_path / "actions")),
    ]
    models = Models.of(names, device="cpu")
    pictures, clips, budget = (models.takes(name) for name in names[:3])
    assert (pictures.clips, pictures.depth, pictures.ratio) == (False, True, 0.8)
    assert (clips.clips, clips.depth, clips.both) == (True, True, True) and not budget.both
    assert budget.depth and budget.ratio == pytest.approx(0.75)
    for name in names[:3]:  # none is refused for lack of depth
        with models.using(name, ReconstructionTask) as task:
            assert task.has_depth
