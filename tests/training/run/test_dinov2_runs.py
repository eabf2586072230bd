"""Runs that start from DINOv2: its positions and registers come along, are trained, and are handed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from helpers.rooms_runs import words
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.training.processes.optimization import parameter_groups
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.building import starting_config
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 70,
    "patch_size": 14,
    "mlp_ratio": 2,
}
FIELDS = {"model__patch_size": "14", "model__image_size": "28"}
POSITIONS = "m33d.positions.spatial"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    torch.manual_seed(0)
    for name, model in (
        ("plain", Dinov2Model(Dinov2Config(**SIZES))),
        ("registers", Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES))),
    ):
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
    return found


def _positions(folder: Path) -> torch.Tensor:
    theirs = Dinov2Model.from_pretrained(folder)
    return theirs.embeddings.position_embeddings[0, 1:].detach()


@pytest.mark.parametrize(("kind", "sharing"), [("plain", "separate"), ("registers", "shared")])
def test_pretraining_of_rgb_and_depth_and_what_follows(
    kind: str, sharing: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    first = words("rooms/pretrain", tmp_path / "pre", method="rgbd_mae", init_from=str(folders[kind]), **FIELDS)
    args = parse_arguments([*first, "--model.encoder_sharing", sharing], "pretraining")
    result = train(args, PretrainingTask())
    assert result.step == 2
    model = M33DForPreTraining.from_pretrained(tmp_path / "pre")
    assert (model.config.position_embedding_type, model.config.position_grid) == ("learned", [1, 5, 5])
    assert model.config.num_register_tokens == (4 if kind == "registers" else 0)
    report = json.loads((tmp_path / "pre" / "initialisation.json").read_text())
    assert all(name.startswith("decoder.") for name in report["new"])
    moved = (model.state_dict()[POSITIONS] - _positions(folders[kind])).abs().max()
    assert 0 < moved < 0.05  # trained, from where DINOv2 left them

    second = words("rooms/depth", tmp_path / "depth", init_from=str(tmp_path / "pre"), **FIELDS)
    assert train(parse_arguments(second, "depth_estimation"), DepthEstimationTask()).step == 2
    tuned = M33DForDepthEstimation.from_pretrained(tmp_path / "depth")
    assert tuned.config.position_embedding_resize == model.config.position_embedding_resize
    assert 0 < (tuned.state_dict()[POSITIONS] - model.state_dict()[POSITIONS]).abs().max() < 0.05


def test_a_dense_task_starts_from_it_at_another_shape(folders: dict[str, Path], tmp_path: Path) -> None:
    fields = {**FIELDS, "model__image_size": "[28, 56]"}
    start = words("rooms/semseg", tmp_path, init_from=str(folders["registers"]), **fields)
    assert train(parse_arguments(start, "semantic_segmentation"), SemanticSegmentationTask()).step == 2
    model = M33DForSemanticSegmentation.from_pretrained(tmp_path)
    assert (model.config.position_embedding_resize, model.config.num_register_tokens) == ("antialias", 4)
    report = json.loads((tmp_path / "initialisation.json").read_text())
    assert all(name.startswith("segmentation_head.") for name in report["new"])


def _config(folder: Path, recipe: str, *more: str, **changes: str) -> M33DConfig:
    task = "pretraining" if "pretrain" in recipe else "depth_estimation"
    given = {**FIELDS, "init_from": str(folder), **changes}
    return starting_config(parse_arguments([*words(recipe, "unused", **given), *more], task))


def test_what_is_given_wins_over_what_it_brings(folders: dict[str, Path]) -> None:
    resized = _config(folders["registers"], "rooms/depth", model__position_embedding_resize="interpolate")
    assert (resized.position_embedding_type, resized.position_embedding_resize) == ("learned", "interpolate")
    assert resized.num_register_tokens == 4
    fixed = _config(folders["plain"], "rooms/depth", model__position_embedding_type="sincos_2d")
    assert (fixed.position_embedding_type, fixed.position_grid) == ("sincos_2d", [1, 2, 2])
    other = _config(folders["plain"], "rooms/depth", "--model.position_grid", "[1, 3, 3]")
    assert other.position_grid == [1, 3, 3]


def test_clips_bring_their_own_number_of_moments(folders: dict[str, Path]) -> None:
    config = _config(folders["plain"], "rooms/pretrain_clips")
    assert config.position_embedding_type == "learned"
    assert config.position_grid == [config.grid[0], 5, 5] and config.grid[0] > 1


def test_our_own_checkpoints_hand_their_positions_on(tmp_path: Path) -> None:
    words_of = {"model__position_embedding_type": "learned", "model__num_register_tokens": "2"}
    args = parse_arguments(words("rooms/pretrain", "unused", **FIELDS, **words_of), "pretraining")
    M33DForPreTraining(M33DConfig(**args.model)).save_pretrained(tmp_path)
    config = _config(tmp_path, "rooms/depth", model__image_size="56")
    assert (config.position_embedding_type, config.position_grid) == ("learned", [1, 2, 2])
    assert config.num_register_tokens == 2


def test_positions_and_registers_are_of_the_embeddings_and_take_no_decay() -> None:
    config = M33DConfig(
        image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        position_embedding_type="learned", num_register_tokens=2,
    )  # fmt: skip
    model = M33DModel(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = {names[p]: group for group in parameter_groups(model, 0.05, 0.5) for p in group["params"]}
    for name in ("positions.spatial", "encoders.rgb.register_tokens", "encoders.depth.register_tokens"):
        assert (groups[name]["weight_decay"], groups[name]["lr_scale"]) == (0.0, 0.5**3)
