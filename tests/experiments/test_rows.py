"""A row that was stopped is made again from what it left."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.rooms_runs import words
from m33d_hf.errors import M33DError
from m33d_hf.experiments import rows


def test_a_row_that_was_stopped_after_its_training_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept no checkpoint, as rows of an experiment do not; its own model does not keep it from starting."""
    given = {
        "data__cache_dir": str(tmp_path / "cache"),
        "data__max_train_samples": "12",
        "data__eval_options": "{num_frames: 6}",
        "checkpoint__save_final": "false",
        "checkpoint__every_steps": "null",
        "checkpoint__save_best": "false",
    }
    argv, folder = words("rooms/semseg", tmp_path / "run", **given), tmp_path / "run"
    place = argv.index("--output_dir")
    del argv[place : place + 2]  # the row says where

    def stopped(*_: object) -> None:
        raise M33DError("stopped")

    with monkeypatch.context() as patched, pytest.raises(M33DError, match=r"^stopped$"):
        patched.setattr(rows, "_tested", stopped)
        rows.dense("semantic_segmentation", argv, argv, str(folder), 2)
    assert (folder / "model.safetensors").is_file() and not list(folder.glob("checkpoints/step_*"))
    weights = (folder / "model.safetensors").read_bytes()
    found = rows.dense("semantic_segmentation", argv, argv, str(folder), 2)
    assert 0 <= found["value"] <= 1 and (folder / "model.safetensors").read_bytes() == weights
