"""Runs of every temporal model: what learns, what is shared, what is said on the way, and what the report shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.phases_in_memory import arguments, first_stage, register
from m33d_hf.data import progress
from m33d_hf.data.files.markers import MARKER
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection import feature_extraction
from m33d_hf.training.tasks.detection.task import HEADLINE, ActionDetectionTask

PARTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "tcn": ({"temporal_tcn_stages": 2, "temporal_tcn_layers": 3}, {"tcn", "refinement_stages"}),
    "transformer": ({"temporal_attention_window": 4}, {"temporal_transformer"}),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> str:
    register()
    return first_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("features"))


def _arguments(folder: Path, start: str, features: str, name: str) -> Any:
    args = arguments(folder, start)
    args.features.dir = features
    args.model |= {"temporal_model": name, **PARTS.get(name, ({}, set()))[0]}
    return args


@pytest.mark.parametrize("name", PARTS)
def test_a_temporal_model_learns_and_its_folder_is_evaluated_alike(
    name: str, tmp_path: Path, stage: str, features: str
) -> None:
    args = _arguments(tmp_path / "run", stage, features, name)
    args.train.max_steps = 30
    result = train(args, ActionDetectionTask())
    losses = [row["loss"] for row in result.history if row["kind"] == "train"]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    before, after = load_file(Path(stage) / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {key.split(".")[0] for key in after.keys() - before.keys()} == {*PARTS[name][1], "temporal_classifier"}
    fresh = build_model(args, ActionDetectionTask()).state_dict()
    assert all(not torch.equal(fresh[key], after[key]) for key in after.keys() - before.keys())
    again = arguments(tmp_path / "judged", str(tmp_path / "run"))
    again.features.dir, again.model, again.eval_only = features, {}, True
    found = evaluate_run(again, ActionDetectionTask())
    assert {f"eval/{key}": value for key, value in found.items()} == pytest.approx(result.metrics)


def test_terms_of_convolutions_are_logged_and_weighed(tmp_path: Path, stage: str, features: str) -> None:
    result = train(_arguments(tmp_path, stage, features, "tcn"), ActionDetectionTask())
    for row in (row for row in result.history if row["kind"] == "train"):
        total = row["loss/cross_entropy"] + row["loss/earlier_stages"] + 0.15 * row["loss/smoothing"]
        assert row["loss"] == pytest.approx(total) and row["loss/smoothing"] > 0


def test_batches_of_unequal_videos_are_weighed_by_their_pairs(tmp_path: Path, stage: str, features: str) -> None:
    """Three videos in one batch, and one after the other in one step: the same step."""
    weights = []
    for name, batch, accumulation in (("together", 3, 1), ("apart", 1, 3)):
        args = _arguments(tmp_path / name, stage, features, "tcn")
        args.train.batch_size, args.train.accumulation, args.train.max_steps = batch, accumulation, 1
        args.model["temporal_dropout"], args.data.eval_split = 0.0, None
        train(args, ActionDetectionTask())
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=2e-5, rtol=0)


def test_another_temporal_model_does_not_start_from_a_trained_one(tmp_path: Path, stage: str, features: str) -> None:
    train(_arguments(tmp_path / "gru", stage, features, "gru"), ActionDetectionTask())
    config = json.loads((tmp_path / "gru" / "config.json").read_text())
    before = {key: value for key, value in config.items() if not key.startswith(("temporal_tcn", "temporal_model"))}
    (tmp_path / "gru" / MARKER).unlink()
    (tmp_path / "gru" / "config.json").write_text(json.dumps(before))  # as it was written before there were others
    model = M33DForVideoActionDetection.from_pretrained(tmp_path / "gru")
    assert model.config.temporal_model == "gru"
    build_model(_arguments(tmp_path / "b", str(tmp_path / "gru"), features, "gru"), ActionDetectionTask())
    with pytest.raises(ConfigError, match=r"holds a trained temporal_model 'gru', but the run has 'tcn'.*--init_from"):
        build_model(_arguments(tmp_path / "c", str(tmp_path / "gru"), features, "tcn"), ActionDetectionTask())


def test_whoever_waits_reads_how_far_it_is_and_five_figures(
    tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from m33d_hf.training.run import feeding

    for module in (feature_extraction, feeding):
        monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    args = arguments(tmp_path, stage)
    args.logging.progress = args.logging.pictures = True
    result = train(args, ActionDetectionTask())
    said = capsys.readouterr().err
    assert re.search(r"features: 3 of 24 clips \(12%\), 0:00:0\d so far, about 0:00:0\d left, video 1 of 3", said)
    assert re.search(r"evaluation: 2 of 2 batches \(100%\)", said)
    lines = [line for line in said.splitlines() if line.startswith("step 3/3") and "eval/" in line]
    told = " ".join(rf"eval/{name} {result.metrics[f'eval/{name}']:.4g} " for name in HEADLINE)
    assert len(lines) == 1 and told in lines[0] and "eval/clip_map" not in lines[0]
    table = r"^on the evaluation data +frame_accuracy .*\ntemporal model( +\d\.\d{3}){5}\nclip by clip +\d"
    assert re.search(table, said, re.MULTILINE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Confusion of the last evaluation" in page and "By video, last evaluation" in page
    assert "validation/v1" in page and progress.SECONDS_BETWEEN_LINES == 5.0
