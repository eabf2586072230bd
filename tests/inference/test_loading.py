"""inference/loading.py: what is said where a model of a hub cannot be kept on this machine, or is damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.checkpoints import DEPTH
from helpers.depth_models import save_ours
from helpers.hub_server import Blob, Repo, client_environment, running
from helpers.prediction import save_clips, save_phases
from m33d_hf.errors import CheckpointError
from m33d_hf.inference.loading import load_model
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
