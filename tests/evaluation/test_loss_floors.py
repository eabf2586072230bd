"""Floors of losses: the loss of the model's own code, given a prediction of zeros."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m33d_hf.data.sources import build_source
from m33d_hf.evaluation.loss_floors import loss_floors
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.losses_m33d import normalize_patches
from m33d_hf.modeling.patches_m33d import patchify
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


def _standardised(samples: list[Tensor], scope: str) -> tuple[Tensor, Tensor]:
    """(B, T, 1, H, W) values, NaN where there are none, and where there are some."""
    values, known = standardize_depth(torch.stack(samples), "trimmed", scope)
    return values.where(known, torch.nan), known


@pytest.mark.slow
def test_floors_of_depth_that_the_documents_state(repository: Path) -> None:
    """By the data themselves; and every committed pre-training ended below them."""
    rooms = build_source("rooms", split="train", num_frames=400)
    values, known = _standardised([rooms[index].read([0]).depth for index in range(400)], "frame")
    patches, valid = (patchify(each.float(), 1, (8, 8)) for each in (values.nan_to_num(0), known))
    normed = normalize_patches(patches, "pooled", 1, 1e-6, valid).where(valid > 0, torch.nan)
    clips = build_source("rooms", split="train", unit="clips", num_clips=200)
    moving, _ = _standardised([clips[index].read(list(range(8))).depth for index in range(200)], "clip")
    found = [
        (values - values.nanmedian()).abs().nanmean(),
        (values - values.nanmean()).square().nanmean(),
        (values - values.nanmedian(0).values).abs().nanmean(),
        (values - values.nanmean(0)).square().nanmean(),
        (normed - normed.nanmedian()).abs().nanmean(),
        (normed - normed.nanmedian(0).values).abs().nanmean(),
        (moving - moving.nanmean()).square().nanmean(),
        (moving - moving.nanmean((0, 1))).square().nanmean(),
    ]
    text = (repository / "docs/evidence.md").read_text(encoding="utf-8")
    place = text[text.index("best constant reaches") :].split("\n\n")[0]
    *floors, frames, videos = (float(number) for number in re.findall(r"\d\.\d\d", place))
    assert floors == [round(float(each), 2) for each in found]
    assert frames < floors[2] and videos < floors[-1]
    for path in sorted((repository / "results").glob("*/results.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")).get("pretraining", []):
            reached, name = (entry.get("diagnostics") or {}).get("loss/depth", 0.0), entry.get("variant")
            squared = any(word in path.parent.name for word in ("clips", "video"))
            assert reached <= (videos if squared else floors[3] if name == "depth-l2" else frames) + 0.005, (path, name)
