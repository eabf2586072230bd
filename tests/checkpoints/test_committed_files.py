"""The committed folders are what saving writes, small, described by their own results, and load without a word."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation, AutoModelForSemanticSegmentation

import m33d_hf  # noqa: F401 - registers the models
from helpers.checkpoints import BOTH, DEPTH, ROOT, SEMSEG, maker, results

MOST_BYTES = 2_000_000
FILES = {
    "README.md", "config.json", "model.safetensors", "predictions.png", "preprocessor_config.json", "results.json",
}  # fmt: skip
AUTO: dict[Path, Any] = {DEPTH: AutoModelForDepthEstimation, SEMSEG: AutoModelForSemanticSegmentation}
NAMES = [folder.name for folder in BOTH]


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_the_folder_is_small_and_carries_no_code(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_results_describe_these_weights(folder: Path) -> None:
    said, path = results(folder)["weights"], folder / "model.safetensors"
    tensors = load_file(path)
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["bytes"] == path.stat().st_size
    assert said["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert said["stored_as"] == "F16" and {tensor.dtype for tensor in tensors.values()} == {torch.float16}


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_it_loads_as_float32_without_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("transformers")
    before, library.propagate = library.propagate, True
    try:
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            config = AutoConfig.from_pretrained(folder)
            model, report = AUTO[folder].from_pretrained(folder, output_loading_info=True)
            AutoImageProcessor.from_pretrained(folder)
    finally:
        library.propagate = before
    assert [record.getMessage() for record in caplog.records] == []
    assert {name: found for name, found in report.items() if found} == {}
    assert config.model_type == "m33d" and model.dtype is torch.float32
    assert all(value.dtype is torch.float32 for value in model.state_dict().values())


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_saving_the_loaded_model_writes_the_committed_files(folder: Path, tmp_path: Path) -> None:
    """But for the version of transformers in them: a later version may be installed."""
    module = maker("checkpoint_folder")
    (run,) = (run for run in maker("train").RUNS.values() if run.stored == folder.name)
    module.save_half(folder, tmp_path, run)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"README.md", "predictions.png", "results.json"}
    for name in ("config.json", "preprocessor_config.json"):
        written, committed = (_unversioned(place / name) for place in (tmp_path, folder))
        assert written == committed, name
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def _unversioned(path: Path) -> str:
    return re.sub(r'"transformers_version": "[^"]*"', "", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_the_card_is_made_of_the_results(folder: Path) -> None:
    (run,) = (run for run in maker("train").RUNS.values() if run.stored == folder.name)
    assert (folder / "README.md").read_text(encoding="utf-8") == maker("checkpoint_folder").card(run, results(folder))


@pytest.mark.parametrize("folder", BOTH, ids=NAMES)
def test_the_code_of_the_card_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", (folder / "README.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(folder), "exec"), names)
    if folder == DEPTH:
        assert names["metres"].shape == (48, 64) and bool((names["metres"] > 0).all())
    else:
        assert {one["mask"].size for one in names["found"]} == {(64, 48)}
