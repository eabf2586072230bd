"""What short runs on rooms must show: losses below trivial floors, and the position shortcut with and without its cure.

No test ranks methods: that is the report's business, with seeds and spread.
"""

import pytest
import torch

from helpers.rooms_runs import words
from m33d_hf.data.sources import build_source
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask

ROOMS = "{num_frames: 768}"
SMALL = {
    "data__options": ROOMS,
    "model__hidden_size": "64",
    "model__intermediate_size": "128",
    "model__num_hidden_layers": "4",
    "train__batch_size": "32",
    "model__decoder_hidden_size": "64",
    "model__decoder_intermediate_size": "128",
    "evaluation__batch_size": "64",
    "data__max_eval_samples": "128",
    "optim__warmup_steps": "8",
}


def run(recipe, output_dir, task, task_name="pretraining", **changes):
    small = {key: value for key, value in SMALL.items() if task_name == "pretraining" or "decoder" not in key}
    return train(parse_arguments(words(recipe, output_dir, **{**small, **changes}), task_name), task)


def stage_one(method, tmp_path):
    result = run("rooms/pretrain_stage1", tmp_path / method, PretrainingTask(), method=method, train__max_steps="120")
    names = ("accuracy", "accuracy_mismatched", "chance")
    return {name: result.metrics[f"eval/retrieval_{name}_depth"] for name in names}


@pytest.mark.slow
def test_the_literal_contrast_is_solved_by_position(tmp_path):
    found = stage_one("m33d", tmp_path)
    assert found["accuracy"] > 0.8
    assert found["accuracy_mismatched"] > 0.8  # another image's depth does as well: nothing about the image is learned


@pytest.mark.slow
def test_without_positions_only_the_matching_depth_is_found(tmp_path):
    found = stage_one("m33d_plus", tmp_path)
    assert found["accuracy_mismatched"] < 2 * found["chance"]
    assert found["accuracy"] > found["accuracy_mismatched"] + 0.03


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms") / "pre"
    return folder, run("rooms/pretrain", folder, PretrainingTask(), method="rgbd_mae", train__max_steps="150")


def test_reconstruction_beats_the_mean_patch(pretrained):
    _, result = pretrained
    # A normalised RGB patch predicted as 0 costs 1 (its own variance); standardised depth predicted as its mean, 0,
    # costs its mean absolute value.
    rooms = build_source("rooms", split="validation", num_frames=64)
    values, valid = standardize_depth(torch.stack([rooms[i].read([0]).depth for i in range(64)]), "trimmed", "clip")
    floor = float(values[valid].abs().mean())
    assert result.metrics["eval/loss/rgb"] < 1.0
    assert result.metrics["eval/loss/depth"] < floor


@pytest.mark.slow
def test_depth_from_rgb_beats_the_mean_depth(pretrained, tmp_path):
    folder, _ = pretrained
    result = run(
        "rooms/depth",
        tmp_path,
        DepthEstimationTask(),
        "depth_estimation",
        init_from=str(folder),
        train__max_steps="120",
        train__batch_size="16",
    )
    frames = {}
    for split in ("train", "validation"):
        rooms = build_source("rooms", split=split, num_frames=256)
        frames[split] = torch.stack([rooms[i].read([0]).depth[0, 0] for i in range(256)])
    guess = frames["train"].nanmean(dim=0).expand(256, -1, -1)
    ratio = torch.maximum(guess / frames["validation"], frames["validation"] / guess)
    floor = float((ratio < 1.25).sum() / frames["validation"].isfinite().sum())
    assert result.metrics["eval/delta1"] > floor
