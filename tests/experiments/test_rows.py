"""A row that was stopped is made again from what it left."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.rooms_on_disk import write_rooms
from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.experiments import rows
from m33d_hf.training.recipe.parsing import parse_arguments

TRIED = ["--model.image_size", "24x32", "--model.hidden_size", "32", "--model.num_hidden_layers", "4", "--cpu", "true",
         "--data.num_workers", "0", "--train.batch_size", "4", "--train.max_steps", "2", "--cpu_threads", "1",
         "--logging.pictures", "false", "--logging.trackers", "[]"]  # fmt: skip


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
    found = rows.dense("semantic_segmentation", argv, [*argv, "--data.eval_split", "test"], str(folder), 2)
    assert found["headline"] == f"test miou {100 * found['value']:.1f} %"
    told = rows.dense("semantic_segmentation", argv, [*argv, "--data.eval_split", "validation"], str(folder), 2)
    assert told["headline"].startswith("validation miou "), "searches are judged on it"
    assert 0 <= found["value"] <= 1 and (folder / "model.safetensors").read_bytes() == weights


def test_a_row_whose_share_of_the_mean_depth_is_tried_out_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial, too, looks at the folder before it trains."""
    argv = ["--recipe", "own/depth", "--data.root", str(write_rooms(tmp_path / "recordings", rooms=8, frames=6))]
    argv += [*TRIED, "--checkpoint.save_final", "false", "--checkpoint.every_steps", "null"]
    argv += ["--checkpoint.save_best", "false"]

    def stopped(*_: object) -> None:
        raise M33DError("stopped")

    with monkeypatch.context() as patched, pytest.raises(M33DError, match=r"^stopped$"):
        patched.setattr(rows, "_seen", stopped)
        rows.trained("depth_estimation", argv, str(tmp_path / "run"), 2)
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    found = rows.trained("depth_estimation", argv, str(tmp_path / "run"), 2)
    assert 0 <= found["metrics"]["delta1"] <= 1
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_no_model_is_removed_beside_checkpoints(tmp_path: Path) -> None:
    """--resume none is refused there; what is refused must not cost a model."""
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_00000001" / "COMPLETE").touch()
    (tmp_path / "model.safetensors").touch()
    args = parse_arguments(words("rooms/depth", tmp_path, resume="none"), "depth_estimation")
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        rows._timed_training(args)
    assert (tmp_path / "model.safetensors").is_file()
