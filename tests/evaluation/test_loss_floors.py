"""Floors of losses: the loss of the model's own code, given a prediction of zeros."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from m33d_hf.data.sources import build_source
from m33d_hf.evaluation.loss_floors import constant_floors, loss_floors
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.losses_m33d import normalize_patches
from m33d_hf.modeling.patches_m33d import patchify
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
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


def _batch(method: str) -> tuple[M33DForPreTraining, dict[str, Any]]:
    args = parse_arguments(["--recipe", "rooms/pretrain", "--method", method], "pretraining")
    model = M33DForPreTraining(M33DConfig(**args.model)).eval()
    generator = torch.Generator().manual_seed(1)
    depth = torch.randn(6, 1, 48, 48, generator=generator) ** 3
    known = torch.rand(6, 1, 48, 48, generator=generator) > 0.2
    pixels = torch.rand(6, 3, 48, 48, generator=generator)
    return model, {"pixel_values": pixels, "depth_values": depth.where(known, torch.nan), "depth_mask": known}


def test_the_best_constant_is_found_in_the_data() -> None:
    """Depth that is never shown is predicted everywhere, so that its floor is a median's over all known values."""
    model, batch = _batch("m33d_hidden")
    values = batch["depth_values"][batch["depth_mask"]].numpy()
    found = constant_floors(model, batch)
    assert found["loss/depth"] == pytest.approx(float(np.abs(values - np.median(values)).mean()), rel=1e-4)
    assert found["loss/rgb"] == pytest.approx(loss_floors(model.config)["loss/rgb"], rel=1e-4)
    for constant in np.quantile(values, [0.4, 0.6]):
        assert np.abs(values - constant).mean() > found["loss/depth"]


def test_normalised_depth_has_a_floor_of_its_own() -> None:
    model, batch = _batch("m33d_normed")
    pixels = batch["depth_values"].reshape(6, 6, 8, 6, 8).transpose(2, 3).reshape(-1, 64).numpy()
    normed = (pixels - np.nanmean(pixels, 1, keepdims=True)) / np.nanstd(pixels, 1, ddof=1, keepdims=True)
    values = normed[np.isfinite(normed)]
    expected = float(np.abs(values - np.median(values)).mean())
    assert constant_floors(model, batch)["loss/depth"] == pytest.approx(expected, rel=1e-4)
    empty = {**batch, "depth_mask": torch.zeros_like(batch["depth_mask"])}
    assert set(constant_floors(model, empty)) == {"loss/rgb"}, "no values, no floor"


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
    *floors, frames, flat, videos = (float(number) for number in re.findall(r"\d\.\d\d", place))
    assert floors == [round(float(each), 2) for each in found]
    assert frames < floors[2] and flat < floors[5] and videos < floors[-1]
    for path in sorted((repository / "results").glob("*/results.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")).get("pretraining", []):
            reached, name = (entry.get("diagnostics") or {}).get("loss/depth", 0.0), entry.get("variant")
            most = floors[3] if name == "depth-l2" else flat if "normed" in name or name == "supervised" else frames
            squared = any(word in path.parent.name for word in ("clips", "video"))
            assert reached <= (videos if squared else most) + 0.005, (path, name)
