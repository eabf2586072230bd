"""inference/loading.py: what is said where a model of a hub cannot be kept on this machine, or is damaged; and that
whatever predicts has this package's kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.checkpoints import DEPTH
from helpers.depth_models import save_dpt, save_ours
from helpers.hub_server import Blob, Repo, client_environment, running
from helpers.prediction import options, save_clips, save_phases, save_pretraining, save_segmentation
from m33d_hf.acceleration.linear import CPULinear
from m33d_hf.demo.models import Models
from m33d_hf.errors import CheckpointError
from m33d_hf.inference.depth_models import load_depth_predictor
from m33d_hf.inference.loading import load_model
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.weights.export.source import load_source

_CODE = """
from m33d_hf.errors import M33DError
from m33d_hf.inference.loading import task_of_model
try:
    print(task_of_model("org/rooms-depth"))
except M33DError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="takes a file system in which nobody can make folders")
def test_a_cache_that_cannot_be_written_is_named_with_a_way_out(tmp_path: Path) -> None:
    said = {}
    with running() as hub:
        hub.repos["org/rooms-depth"] = Repo()
        files = {"config.json": Blob((DEPTH / "config.json").read_bytes(), False)}
        hub.repos["org/rooms-depth"].commit(files, "model")
        for home in (str(tmp_path / "cache"), "/sys/cache"):
            environment = client_environment(hub, home, token=None)
            done = subprocess.run(
                [sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=False
            )
            said[home] = done.stdout.strip() or done.stderr
    assert said[str(tmp_path / "cache")] == "depth"
    assert "'org/rooms-depth' cannot be fetched: its files cannot be kept here" in said["/sys/cache"]
    assert "Set HF_HOME to a folder" in said["/sys/cache"] and "no readable config.json" not in said["/sys/cache"]


_LOADERS: dict[str, Callable[[Path], object]] = {
    "depth": lambda folder: load_model(str(folder), "depth"),
    "phases": ActionDetector.from_pretrained,
    "clips": lambda folder: load_model(str(folder), "clips"),
    "export": lambda folder: load_source(str(folder)),
}
_SAVED = {"depth": save_ours, "phases": save_phases, "clips": save_clips, "export": save_ours}


@pytest.mark.parametrize("name", _LOADERS)
def test_weights_that_are_cut_short_are_an_error_of_ours(name: str, tmp_path: Path) -> None:
    folder = _SAVED[name](tmp_path / "model")
    _LOADERS[name](folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate((folder / "model.safetensors").stat().st_size // 2)
    told = r"model'.*cut short or damaged.*take another checkpoint"
    if name == "export":  # looks at the file itself before it loads the model
        told = r"model\.safetensors cannot be read: not a readable safetensors file"
    with pytest.raises(CheckpointError, match=told):
        _LOADERS[name](folder)


@pytest.mark.parametrize(("task", "save"), [("depth", save_ours), ("phases", save_phases), ("clips", save_clips)])
def test_no_weight_of_a_model_is_left_out(task: str, save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    loaded, wanted = load_model(str(folder), task).state_dict(), load_file(folder / "model.safetensors")
    assert loaded.keys() == wanted.keys() and all(torch.equal(loaded[name], wanted[name]) for name in wanted)


_PREDICTED: dict[str, tuple[Callable[[Path], Path], Callable[[Any], Any]]] = {
    "depth": (save_ours, lambda task: task.predictor.model),
    "segmentation": (save_segmentation, lambda task: task.model.model),
    "clips": (save_clips, lambda task: task.model),
    "phases": (save_phases, lambda task: task.detector.model),
    "reconstruction": (save_pretraining, lambda task: task.model),
}
_BY: dict[str, Callable[[str], Any]] = {
    "predict.py": lambda name: build_prediction_task(options(Path(name), "in", Path("out"))),
    "demo": lambda name: _of_the_page(Models.of([name], device="cpu"), name),
}


def _of_the_page(models: Models, name: str) -> PredictionTask:
    with models.using(name, PredictionTask) as task:
        return task


def _kinds(model: nn.Module) -> set[type]:
    """Of the layers that are nothing but linear: heads that are a kind of them compute what they like."""
    return {type(module) for module in model.modules()} & {nn.Linear, CPULinear}


@pytest.mark.parametrize("by", _BY)
@pytest.mark.parametrize("task", _PREDICTED)
def test_whatever_predicts_has_the_kernels_of_runs(task: str, by: str, tmp_path: Path) -> None:
    save, model_of = _PREDICTED[task]
    model = model_of(_BY[by](str(save(tmp_path / "model"))))
    assert _kinds(model) == {CPULinear} and not model.training


def test_depth_extraction_has_the_kernels_of_runs_for_our_models(tmp_path: Path) -> None:
    ours, theirs = str(save_ours(tmp_path / "ours")), str(save_dpt(tmp_path / "dpt"))
    assert _kinds(load_depth_predictor(ours, device="cpu").model) == {CPULinear}
    assert _kinds(load_depth_predictor(theirs, "inverse", "cpu").model) == {nn.Linear}


def test_what_is_published_or_exported_has_plain_layers(tmp_path: Path) -> None:
    folder = str(save_ours(tmp_path / "model"))
    assert _kinds(load_model(folder, "depth")) == _kinds(load_source(folder).model) == {nn.Linear}
