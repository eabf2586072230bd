"""inference/output_folders/earlier_outputs.py: what earlier calls wrote below a folder of inputs is no input."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from m33d_hf.errors import DataError
from m33d_hf.inference.depth_items import list_items
from m33d_hf.inference.detection_files import videos_below
from m33d_hf.inference.output_folders.earlier_outputs import KINDS, is_earlier_output
from m33d_hf.inference.output_folders.recorded_inputs import claim_names
from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.inputs import find_inputs
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.segmentation import SegmentationTask


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (8, 8)).save(root / name)
        else:
            (root / name).touch()


def test_kinds_are_those_of_all_tasks() -> None:
    tasks = (DepthTask, SegmentationTask, ClipTask, PhaseTask, ReconstructionTask)
    assert {kind for task in tasks for kind in task.known} == KINDS


def test_predictions_below_the_input_are_no_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "F/a.png", "F/pictures/b.png", "F/out1/prediction.json", "F/out1/pictures/a.png",
         "F/out1/labels/sub/a.png", "F/out1/mine/c.png")  # fmt: skip
    expected = ["a", "out1/mine/c", "pictures/b"]
    assert [item.name for item in find_inputs([tmp_path / "F"], tmp_path / "F/out2").items] == expected
    (line,) = (record.getMessage() for record in caplog.records)
    assert "out1/labels and 1 other folder left aside: made by an earlier prediction" in line
    assert [item.rel for item in list_items(tmp_path / "F", "images")] == expected
    assert videos_below(tmp_path / "F" / "out1") == [tmp_path / "F/out1/mine"]
    for pattern in ("**/*.png", "**"):
        assert [item.name for item in find_inputs([f"{tmp_path}/F/{pattern}"]).items] == expected
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert [item.name for item in find_inputs([tmp_path / "F/out1/pictures"]).items] == ["a"], "as it was named"
        assert [item.name for item in find_inputs([f"{tmp_path}/F/out1/pictures/*.png"]).items] == ["a"]
    assert not caplog.records
    with pytest.raises(DataError, match="no files match"):
        find_inputs([f"{tmp_path}/F/out1/*/a.png"])


def test_extracted_depth_below_the_input_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "F/a.png", "F/out1/a.png")
    content = {"kind": "inverse", "provenance": {"made_by": "m33d-hf 0.1.0 extract_depth"}}
    (tmp_path / "F/out1/depth_spec.json").write_text(json.dumps(content))
    assert [item.rel for item in list_items(tmp_path / "F", "images", tmp_path / "F/out2")] == ["a"]
    monkeypatch.chdir(tmp_path)
    assert [item.name for item in find_inputs(["F/**/*.png"]).items] == ["a"]
    claim_names(tmp_path / "F/out1", {"a": tmp_path / "F/a.png"})
    assert is_earlier_output(tmp_path / "F/out1")


def test_inputs_may_lie_in_the_output_of_an_extraction(tmp_path: Path) -> None:
    make(tmp_path, "P/F/rgb/a.png")
    content = {"kind": "inverse", "provenance": {"made_by": "m33d-hf 0.1.0 extract_depth"}}
    (tmp_path / "P/F/depth_spec.json").write_text(json.dumps(content))
    claim_names(tmp_path / "P/F", {"a": tmp_path / "P/F/rgb/a.png"})
    assert [item.rel for item in list_items(tmp_path / "P", "images")] == ["F/rgb/a"]
    (tmp_path / "P/F/depth_spec.json").write_text("{")
    assert not is_earlier_output(tmp_path / "P/F")
