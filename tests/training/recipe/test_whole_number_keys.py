"""Mappings whose keys are numbers go through JSON, where keys are text: runs train, continue and see no difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import rgb_array, save
from helpers.launching import assert_same_weights
from helpers.rooms_runs import words
from m33d_hf.errors import ResumeError
from m33d_hf.training.recipe.arguments import same_setting
from m33d_hf.training.recipe.differences import flatten, recipe_differences
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

LABEL_MAP = "{0: 0, 255: 1}"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Eight pictures with masks of 0 and 255, each half."""
    root = tmp_path / "masks"
    for number in range(8):
        save(root / "color" / f"{number}.png", rgb_array(number, (48, 48)))
        mask = np.zeros((48, 48), np.uint8)
        mask[:, number * 4 :] = 255
        save(root / "label" / f"{number}.png", mask)
    return root


def segment(root: Path, output_dir: Path, label_map: str = LABEL_MAP) -> TrainResult:
    """Train segmentation of the masks for three steps, with a tracker, which gets all arguments flattened."""
    options = f"{{num_classes: 2, depth: none, label_map: {label_map}}}"
    changes = {
        "data__source": "folder", "data__root": str(root), "data__eval_root": str(root), "data__options": options,
        "data__max_train_samples": "null", "data__max_eval_samples": "null", "train__max_steps": "3",
        "checkpoint__every_steps": "1", "logging__trackers": "[tensorboard]", "optim__schedule": "constant",
    }  # fmt: skip
    args = parse_arguments(words("rooms/semseg", output_dir, **changes), "semantic_segmentation")
    return train(args, SemanticSegmentationTask())


def cut_short(whole: Path, folder: Path, step: int) -> Path:
    """A copy of a finished run as it was when it had been stopped after `step` steps."""
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / f"step_{step + 1:08d}")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_label_map_trains_and_continues(tmp_path: Path, masks: Path) -> None:
    whole = segment(masks, tmp_path / "whole")
    kept = json.loads((tmp_path / "whole" / "train_config.json").read_text())
    assert kept["args"]["data"]["options"]["label_map"] == {"0": 0, "255": 1}
    cut = cut_short(tmp_path / "whole", tmp_path / "cut", 2)
    continued = segment(masks, cut)
    assert [row["step"] for row in continued.history if row["kind"] == "eval"][-1] == 3
    assert continued.metrics == whole.metrics
    assert_same_weights(tmp_path / "whole", cut)
    with pytest.raises(ResumeError, match=r"data\.options\.label_map\.255: 1 -> 0"):
        segment(masks, cut, "{0: 1, 255: 0}")


def test_label_names_by_number_train_and_continue(tmp_path: Path) -> None:
    def run(folder: Path) -> TrainResult:
        changes = {"model__id2label": "{0: a}", "checkpoint__every_steps": "1", "logging__trackers": "[tensorboard]"}
        return train(
            parse_arguments(words("rooms/pretrain", folder, method="mae", **changes), "pretraining"), PretrainingTask()
        )

    whole = run(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["id2label"] == {"0": "a"}
    assert run(cut_short(tmp_path / "whole", tmp_path / "cut", 1)).metrics == whole.metrics


@pytest.mark.parametrize("key", [0, -1, 2.5, True, None, "a.b", "0"])
def test_a_tree_and_what_json_kept_of_it_are_equal(key: object) -> None:
    tree = {"data": {"options": {"map": {key: [1, {"inner": {7: None}}]}, "empty": {}}}}
    kept = json.loads(json.dumps(tree))
    assert flatten(tree) == flatten(kept)
    assert recipe_differences(tree, kept) == [] == recipe_differences(kept, tree)
    if not isinstance(key, bool) and key is not None:
        assert same_setting(tree["data"]["options"], kept["data"]["options"])


def test_one_key_in_two_spellings_is_one_key() -> None:
    given = ["--train.max_steps", "1", "--data.source", "folder", "--data.options.label_map.0", "3"]
    assert parse_arguments(given, "semantic_segmentation").data.options == {"label_map": {"0": 3}}
