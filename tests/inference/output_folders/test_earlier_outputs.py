"""inference/output_folders/earlier_outputs.py: what earlier calls wrote below a folder of inputs is no input."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m33d_hf.data.depth.writing import write_depth_image
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


def extracted(folder: Path, *names: str) -> None:
    """What an extraction leaves, but for its record."""
    content = {"kind": "inverse", "provenance": {"made_by": "m33d-hf 0.1.0 extract_depth"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "depth_spec.json").write_text(json.dumps(content))
    for name in names:
        write_depth_image(folder, name, "inverse", np.ones((8, 8), np.float32))


def test_extracted_depth_below_the_input_is_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "F/a.png")
    extracted(tmp_path / "F/out1", "a", "sub/b")
    assert [item.rel for item in list_items(tmp_path / "F", "images", tmp_path / "F/out2")] == ["a"]
    monkeypatch.chdir(tmp_path)
    assert [item.name for item in find_inputs(["F/**/*.png"]).items] == ["a"]
    claim_names(tmp_path / "F/out1", {"a": tmp_path / "F/a.png"})
    assert is_earlier_output(tmp_path / "F/out1")
    caplog.clear()
    make(tmp_path, "F/v/0.png")
    (tmp_path / "F/a.png").unlink()
    assert videos_below(tmp_path / "F") == [tmp_path / "F/v"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{tmp_path}/F/out1 left aside: made by an earlier prediction")


def test_inputs_may_lie_in_the_output_of_an_extraction(tmp_path: Path) -> None:
    make(tmp_path, "P/F/rgb/a.png", "Q/b.png")
    extracted(tmp_path / "P/F")
    (tmp_path / "link").symlink_to("P")
    claim_names(tmp_path / "P/F", {"b": tmp_path / "Q/b.png", "a": tmp_path / "link/F/rgb/a.png"})
    assert [item.rel for item in list_items(tmp_path / "P", "images")] == ["F/rgb/a"]
    assert [item.rel for item in list_items(tmp_path / "link", "images")] == ["F/rgb/a"]
    (tmp_path / "P").rename(tmp_path / "R")
    claim_names(tmp_path / "R/F", {"a": tmp_path / "R/F/rgb/a.png"})
    record = tmp_path / "R/F/inputs.jsonl"
    torn = record.read_text()[3:]
    earlier = json.dumps(["a", f"{tmp_path}/R/F/rgb/a.png"]) + "\n"
    for text in (record.read_text(), torn, earlier, '["torn', None):
        record.write_text(text) if text is not None else record.unlink()
        assert [item.rel for item in list_items(tmp_path / "R", "images")] == ["F/rgb/a"], text
    (tmp_path / "R/F/depth_spec.json").write_text("{")
    assert not is_earlier_output(tmp_path / "R/F")


def test_without_a_record_what_the_extraction_did_not_write_tells(tmp_path: Path) -> None:
    for number, foreign in enumerate(("v/0.png", "v/0.jpg", "film.mp4", "")):
        extracted(tmp_path / f"F{number}", "v/1", "w/0")
        make(tmp_path, *[f"F{number}/{foreign}"] * bool(foreign))
        assert is_earlier_output(tmp_path / f"F{number}") == (not foreign)
    (tmp_path / "F3/rgb").symlink_to("/somewhere")
    assert is_earlier_output(tmp_path / "F3"), "a link to nothing holds nothing"
    make(tmp_path, "rgb/a.jpg")
    (tmp_path / "F3/rgb").unlink()
    (tmp_path / "F3/rgb").symlink_to(tmp_path / "rgb")
    assert not is_earlier_output(tmp_path / "F3")


def test_a_folder_that_may_not_be_read_is_left_to_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lost+found` at the root of a disk; any other one is told by the search, as where it lies among data."""
    make(tmp_path, "a.png", "lost+found/depth_spec.json")
    real, scan, closed = Path.stat, os.scandir, "lost+found"

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent.name == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, follow_symlinks=follow_symlinks)

    def listed(folder: Any = ".") -> Any:
        if os.path.basename(os.fspath(folder).rstrip("/")) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(os, "scandir", listed)
    assert not is_earlier_output(tmp_path / closed)
    assert [item.rel for item in list_items(tmp_path, "images")] == ["a"]
    for given in (str(tmp_path), f"{tmp_path}/*"):
        assert [item.name for item in find_inputs([given]).items] == ["a"]
    closed = "private"
    make(tmp_path, "private/b.png")
    with pytest.raises(DataError, match="private cannot be read"):
        list_items(tmp_path, "images")
