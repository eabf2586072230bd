"""Checkpoints that a run wrote are used as its output folder is: predicted with, exported, published, started from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.rooms_runs import words
from m33d_hf.data.files.markers import mark_complete
from m33d_hf.hub.source import open_source
from m33d_hf.inference.loading import load_model, task_of_model
from m33d_hf.training.recipe.parsing import parse_arguments, resolve
from m33d_hf.training.run.loop import train
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import build_task
from m33d_hf.weights.export.source import load_source
from m33d_hf.weights.own import architectures

TASK = "depth_estimation"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of two steps of depth estimation with a head of a width of its own."""
    folder = tmp_path_factory.mktemp("run") / "depth"
    given = words(
        "rooms/depth", folder, model__depth_head_width="24", checkpoint__every_steps="1", checkpoint__save_best="true"
    )
    train(parse_arguments(given, TASK), build_task(TASK))
    return folder


@pytest.fixture(params=["best", "step_00000001", "best of an earlier version"])
def checkpoint(run: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One of its checkpoints; earlier versions left the architecture out of config.json."""
    name = request.param.split()[0]
    if name == request.param:
        return run / "checkpoints" / name
    copied = Path(shutil.copytree(run, tmp_path / "run")) / "checkpoints" / name
    config = json.loads((copied / "config.json").read_text())
    del config["architectures"]
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "COMPLETE").unlink()
    mark_complete(copied)
    return copied


def test_a_checkpoint_is_used_as_the_model_that_it_is(checkpoint: Path) -> None:
    name = str(checkpoint)
    assert task_of_model(name) == "depth"
    assert type(load_model(name, "depth")).__name__ == load_source(name).kind == "M33DForDepthEstimation"
    assert open_source(name).task == "depth"


def test_a_run_of_the_same_task_takes_over_the_head(checkpoint: Path, tmp_path: Path) -> None:
    given = words("rooms/depth", tmp_path / "next", init_from=str(checkpoint), model__depth_head_width="auto")
    assert settle(resolve(given, TASK)).args.model["depth_head_width"] == 24


def test_the_configuration_is_that_of_the_final_model(run: Path) -> None:
    final = json.loads((run / "config.json").read_text())
    assert final["architectures"] == ["M33DForDepthEstimation"]
    for name in ("best", "step_00000001", "step_00000002"):
        found = json.loads((run / "checkpoints" / name / "config.json").read_text())
        assert found == {key: value for key, value in final.items() if key in found}
        assert final.keys() - found.keys() <= {"dtype"}


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("pretraining", "M33DForPreTraining"),
        ("video_classification", "M33DForVideoClassification"),
        ("action_detection", "M33DForVideoActionDetection"),
        ("semantic_segmentation", "M33DForSemanticSegmentation"),
    ],
)
def test_the_task_of_the_run_names_the_class(tmp_path: Path, task: str, name: str) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"args": {"task": task}}))
    assert architectures(tmp_path, {}) == [name]
    assert architectures(tmp_path, {"architectures": ["Stated"]}) == ["Stated"]


@pytest.mark.parametrize(
    "state", ['{"args": {"task": "one of my own"}}', '{"args": {"task": []}}', '{"args": 1}', "[]"]
)
def test_nothing_is_guessed(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_text(state)
    assert architectures(tmp_path, {}) == []
