"""Floors of losses: the loss of the model's own code, given a prediction of zeros."""

from __future__ import annotations

import pytest
import torch

from m33d_hf.evaluation.loss_floors import loss_floors
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.losses_m33d import normalize_patches
from m33d_hf.training.recipe.parsing import parse_arguments


@pytest.mark.parametrize(("recipe", "method"), [("rooms/pretrain", "mae"), ("rooms/pretrain_clips", "videomae")])
def test_zeros_reach_the_floor(recipe: str, method: str) -> None:
    args = parse_arguments(["--recipe", recipe, "--method", method], "pretraining")
    config = M33DConfig(**args.model)
    floors, spec = loss_floors(config), config.spec("rgb")
    patches = torch.rand(2, 9, config.patch_dim(spec), generator=torch.Generator().manual_seed(0))
    target = normalize_patches(patches, spec.target_norm, spec.channels, spec.target_eps)
    assert floors["loss/rgb"] == pytest.approx(float(target.square().mean()), rel=1e-4)
    assert set(floors) == {"loss/rgb"}
    if method == "videomae":
        assert floors["loss/rgb"] == 127 / 128


def test_depth_in_its_own_units_has_no_floor_by_formula() -> None:
    args = parse_arguments(["--recipe", "rooms/pretrain", "--method", "rgbd_mae"], "pretraining")
    assert "loss/depth" not in loss_floors(M33DConfig(**args.model))
