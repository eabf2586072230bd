"""scripts/run_probe.py on tiny clips: random, pre-trained and fine-tuned encoders, one process and two."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.ranks import ForkedRanks
from helpers.rooms_on_disk import write_rooms
from helpers.rooms_runs import words
from helpers.tiny import SMALL as ENCODER
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts import _main, run_probe
from m33d_hf.training.probes.clips import frozen_features
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.parsing import parse_arguments

SMALL = {
    "data__options": "{unit: clips, num_clips: 40}",
    "data__eval_options": "{num_clips: 20}",
    "model__num_hidden_layers": "2",
}


def probe_words(folder: Path, output: str, **changes: str | None) -> list[str]:
    """Command line of a probe of tiny clips."""
    return words("rooms/actions", folder / output, data__cache_dir=str(folder / "cache"), **{**SMALL, **changes})


def result(folder: Path) -> dict[str, Any]:
    """What the probe left."""
    return json.loads((folder / "probe.json").read_text())["metrics"]


def features(folder: Path, **changes: str | None) -> Any:
    """Training and test features of the tiny clips."""
    args = parse_arguments(probe_words(folder, "features", **changes), "video_classification")
    with open_accelerator(args) as accelerator:
        return frozen_features(args, accelerator, Ranks(accelerator))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a pre-trained and a fine-tuned model."""
    folder = tmp_path_factory.mktemp("probe")
    given = {**SMALL, "data__cache_dir": str(folder / "cache"), "model__num_hidden_layers": "2"}
    assert (
        _main.main("pretraining", words("rooms/pretrain_clips", folder / "pretrained", method="videomae", **given)) == 0
    )
    start = {"init_from": str(folder / "pretrained")}
    assert _main.main("video_classification", probe_words(folder, "tuned", **start)) == 0
    return folder


@pytest.mark.parametrize("start", [None, "pretrained", "tuned"])
def test_a_probe_of_each_kind_of_encoder(folder: Path, start: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    name = f"probe-{start}"
    given = probe_words(folder, name, init_from=start and str(folder / start))
    assert run_probe.main([*given, "--knn_k", "5", "--linear_strengths", "0.01,0.1"]) == 0, capfd.readouterr().err
    found = result(folder / name)
    assert found["samples/train"] == 40 and found["samples/test"] == 20
    assert 0 <= found["knn/top1"] <= found["knn/top5"] <= 1 and found["linear/strength"] in (0.01, 0.1)
    assert found["linear/converged"] == 1.0


def test_features_are_those_of_the_model(folder: Path) -> None:
    random, trained = features(folder), features(folder, init_from=str(folder / "pretrained"))
    assert not torch.allclose(random[0].features, trained[0].features)
    assert torch.equal(random[0].labels, trained[0].labels) and set(random[0].labels.tolist()) == set(range(10))
    again = features(folder)
    assert torch.equal(random[1].features, again[1].features), "no augmentation, and a seeded encoder"
    # Training clips as an evaluation sees them: the first of both splits' items are read alike.
    own = features(folder, data__eval_split="train", data__eval_options="{}")
    torch.testing.assert_close(own[0].features, own[1].features)


def test_features_of_a_classifier_are_what_it_reads(folder: Path) -> None:
    _, test = features(folder, init_from=str(folder / "tuned"))
    model = M33DForVideoClassification.from_pretrained(folder / "tuned")
    with torch.no_grad():
        logits = model.classifier(test.features)
    top1 = float((logits.argmax(1) == test.labels).float().mean())
    last = json.loads((folder / "tuned" / "metrics.jsonl").read_text().splitlines()[-1])
    assert top1 == pytest.approx(last["eval/top1"])


def test_two_processes_find_the_same(folder: Path) -> None:
    alone = probe_words(folder, "alone", init_from=str(folder / "pretrained"))
    assert run_probe.main(alone) == 0
    both = probe_words(folder, "both", init_from=str(folder / "pretrained"))
    ranks = ForkedRanks(run_probe.main, both, log=folder / "both.log", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()
    one, two = result(folder / "alone"), result(folder / "both")
    timeless = [name for name in one if not name.startswith("seconds/") and name != "linear/iterations"]
    assert {name: two[name] for name in timeless} == pytest.approx({name: one[name] for name in timeless})


@pytest.mark.slow
def test_the_probe_that_a_run_of_an_own_recipe_proposes_can_be_typed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its recipe leaves sizes open, and states others than its start has."""
    write_rooms(tmp_path / "frames", rooms=4, frames=2, labels=True)
    M33DForPreTraining(M33DConfig(**ENCODER, hidden_act="relu")).save_pretrained(tmp_path / "pre")
    given = ["--recipe", "own/semseg", "--data.root", str(tmp_path / "frames"), "--data.options.num_classes", "12"]
    given += ["--init_from", str(tmp_path / "pre"), "--output_dir", str(tmp_path / "out"), "--train.max_steps", "2"]
    given += ["--cpu", "--data.num_workers", "0", "--logging.trackers", "[]", "--logging.pictures", "false"]
    assert _main.main("semantic_segmentation", given) == 0, capfd.readouterr().err
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "run_probe.py" in line]
    proposed = shlex.split(line)
    assert run_probe.main(proposed[proposed.index("--dense") :]) == 0, capfd.readouterr().err
    said = capfd.readouterr().err
    assert "taken from" in said and "hidden_size 32" in said and "hidden_act relu" in said
    assert " steps" not in said, "nothing is trained"
    assert result(tmp_path / "out-probe")["samples/train"] == 6.0
    # Without a folder of its own it has that of the training, and is no part of it.
    M33DForPreTraining(M33DConfig(**{**ENCODER, "hidden_size": 48})).save_pretrained(tmp_path / "other")
    again = ["--dense", *(str(tmp_path / "other") if word == str(tmp_path / "pre") else word for word in given)]
    assert run_probe.main(again) == 0, capfd.readouterr().err


def test_what_cannot_be_probed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_probe.main(probe_words(folder, "no", data__eval_split="null")) == 2
    assert "--data.eval_split" in capfd.readouterr().err
    assert run_probe.main([*probe_words(folder, "no"), "--knn_k", "41"]) == 2
    assert "there are 40 training features; set --knn_k" in capfd.readouterr().err
    assert run_probe.main([*probe_words(folder, "no"), "--knn_k", "many"]) == 2
    assert "--knn_k" in capfd.readouterr().err
    assert run_probe.main(["--recipe", "rooms/semseg"]) == 2
    assert "video_classification" in capfd.readouterr().err
    assert run_probe.main(["--help"]) == 0 and "--knn_temperature" in capfd.readouterr().out


@pytest.mark.parametrize(
    "given",
    [["--knn_k", "0"], ["--knn_temperature", "-1"], ["--linear_strengths", "0,1"], ["--linear_strengths", "a"],
     ["--linear_held_out", "1"], ["--linear_held_out", "nan"], ["--knn_k", "many"]],
)  # fmt: skip
def test_probe_options_out_of_range_are_named(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_probe.main(["--recipe", "rooms/actions", *given]) == 2
    assert given[0] in capsys.readouterr().err
