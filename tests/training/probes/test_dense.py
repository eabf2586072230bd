"""The dense probe: patches taught by their commonest class, pixels judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.probes import LinearOptions
from m33d_hf.scripts import _main, run_probe
from m33d_hf.training.probes.dense import dense_probe_run, patch_labels
from m33d_hf.training.recipe.parsing import parse_arguments


def test_a_patch_takes_the_commonest_class_of_its_pixels() -> None:
    labels = torch.randint(0, 4, (3, 8, 12), generator=torch.Generator().manual_seed(0))
    labels[0, :4, :3], labels[0, 0, 0], labels[1, :4, :3] = 255, 2, 255
    found = patch_labels(labels, (4, 3), 4, 255)
    assert found.shape == (3, 2, 4) and found[0, 0, 0] == 2 and found[1, 0, 0] == 255
    pixels = labels[2, 4:8, 6:9].flatten().numpy()
    assert found[2, 1, 2] == np.bincount(pixels, minlength=4).argmax()


def given(folder: Path, output: str, **changes: str | None) -> list[str]:
    """Command line of a dense probe of a few rooms."""
    start = {"data__cache_dir": str(folder / "cache"), "data__max_train_samples": "16", "model__num_hidden_layers": "2"}
    start |= {"data__options": "{num_frames: 16}", "data__eval_options": "{num_frames: 8}"}
    return words("rooms/semseg", folder / output, **{**start, **changes})


def test_the_probe_of_a_pretrained_and_of_a_random_encoder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sizes = {"data__cache_dir": str(tmp_path / "cache"), "model__num_hidden_layers": "2"}
    assert _main.main("pretraining", words("rooms/pretrain", tmp_path / "pre", method="mae", **sizes)) == 0
    found = {}
    for start in (None, "pre"):
        asked = given(tmp_path, f"probe-{start}", init_from=start and str(tmp_path / start))
        assert run_probe.main([*asked, "--dense", "--linear_strengths", "0.01,0.1"]) == 0, capfd.readouterr().err
        found[start] = json.loads((tmp_path / f"probe-{start}" / "probe.json").read_text())["metrics"]
        assert found[start]["linear/converged"] == 1.0 and found[start]["samples/test"] == 8
        assert 0.02 < found[start]["linear/miou"] < found[start]["linear/pixel_accuracy"] < 1
    assert found[None]["linear/miou"] != found["pre"]["linear/miou"]
    args = parse_arguments(given(tmp_path, "again"), "semantic_segmentation")
    again = dense_probe_run(args, LinearOptions([0.01, 0.1]))
    assert {k: v for k, v in again.items() if "seconds" not in k} == {
        k: v for k, v in found[None].items() if "seconds" not in k
    }


def test_what_cannot_be_probed(tmp_path: Path) -> None:
    args = parse_arguments(given(tmp_path, "none", data__eval_split="null"), "semantic_segmentation")
    with pytest.raises(ConfigError, match=r"--data\.eval_split"):
        dense_probe_run(args)
    args.task = "depth_estimation"
    with pytest.raises(ConfigError, match="semantic segmentation"):
        dense_probe_run(args)
