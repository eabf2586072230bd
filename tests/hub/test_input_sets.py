"""The card of a model that was judged with several input sets: a row for each, from the run's own results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.phases_in_memory import arguments, deep_stage
from helpers.rooms_runs import words
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.data.sources import SOURCES
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.publishing import publish
from m33d_hf.hub.results import model_index, result_rows
from m33d_hf.hub.source import open_source
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task

WORDS = {("rgb",): "RGB", ("rgb", "depth"): "RGB and depth", ("depth",): "depth"}
SETS = [list(names) for names in WORDS]
RGBD = {"task_inputs": ["rgb", "depth"]}
MAIN = {"segmentation": "miou", "clips": "top1", "phases": "map"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "deep", ("helpers.phases_in_memory", "DeepSource"))


def _of_rooms(kind: str, folder: Path, **changes: str) -> RunArguments:
    if kind == "segmentation":
        given = words("rooms/semseg_rgbd", folder, data__allow_missing_classes="true", **changes)
        return parse_arguments(given, "semantic_segmentation")
    clips = {"data__options": "{num_clips: 8, unit: clips}", "model__task_inputs": "[rgb, depth]"}
    given = words("rooms/actions", folder, transforms__randaugment_ops="0", **clips, **changes)
    return parse_arguments([*given, "--data.allow_missing_classes", "true"], "video_classification")


def _of_memory(folder: Path, start: str) -> RunArguments:
    args = arguments(folder, start)
    args.data.source = "deep"
    return args


def judged(kind: str, folder: Path) -> Path:
    """A run of RGB and depth, and its evaluation with every input set in `evaluation`; returns the output folder."""
    run, evaluation = folder / "run", folder / "run" / "evaluation"
    if kind == "phases":
        args = _of_memory(run, deep_stage(folder / "stage", **RGBD))
        judging = _of_memory(evaluation, str(run))
        judging.model = {}
    else:
        args = _of_rooms(kind, run)
        judging = _of_rooms(kind, evaluation, init_from=str(run))
    train(args, build_task(args.task))
    judging.eval_only, judging.evaluation.inputs = True, SETS
    evaluate_run(judging, build_task(judging.task))
    return run


def published(run: Path, folder: Path, **options: Any) -> ModelCard:
    chosen = PublishOptions("org/name", licence="apache-2.0", **options)
    publish(run, chosen, keep=folder, dry_run=True)
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize("kind", MAIN)
def test_each_input_set_is_a_row_of_the_card_and_of_the_model_index(kind: str, tmp_path: Path) -> None:
    run = judged(kind, tmp_path)
    card, main = published(run, tmp_path / "published"), MAIN[kind]
    rows = read_sealed_json(run / "evaluation" / "eval_results.json")["by_inputs"]
    measured = {WORDS[tuple(row["inputs"])]: row["metrics"] for row in rows}
    assert list(measured) == list(WORDS.values()) and len({row["loss"] for row in measured.values()}) == 3
    lines = card.text.splitlines()
    header = next(line for line in lines if line.startswith("| inputs |"))
    columns = header.strip("| ").split(" | ")[1:]
    assert columns[0] == main and "loss" not in columns and "| metric | value |" not in lines
    place = lines.index(header) + 2
    assert [line.split(" | ")[0] for line in lines[place : place + 4]] == [*(f"| {name}" for name in measured), ""]
    for line in lines[place : place + 3]:
        given, *texts = line.strip("| ").split(" | ")
        assert texts == [f"{measured[given][name]:.4f}" for name in columns], given
    index = {entry["name"]: entry for result in card.data.to_dict()["model-index"][0]["results"]
             for entry in result["metrics"]}  # fmt: skip
    for given, metrics in measured.items():
        assert index[f"{main} ({given})"] == {"type": main, "name": f"{main} ({given})", "value": metrics[main]}
    assert len(index) == 3 * len(columns) and "Depth may be missing at inference" in card.text
    named = published(run, tmp_path / "named", benchmark="org/rooms:task")
    assert named.text
    (entry,) = yaml.safe_load((tmp_path / "named" / ".eval_results" / "m33d.yaml").read_text(encoding="utf-8"))
    assert entry["value"] == measured["RGB and depth"][main] and "given RGB and depth" in entry["notes"]
    _one_set(run, tmp_path, main, measured)
    _stock(run, measured)


def _one_set(run: Path, folder: Path, main: str, measured: dict[str, dict[str, float]]) -> None:
    """A run that was judged with one set, or with none chosen, has the table of every other run."""
    one = Path(shutil.copytree(run, folder / "one"))
    path = one / "evaluation" / "eval_results.json"
    results = read_sealed_json(path)
    rgb = results["by_inputs"][:1]
    write_sealed_json(path, {**results, "by_inputs": rgb, "metrics": rgb[0]["metrics"]})
    card = published(one, folder / "of_one")
    assert f"| {main} | {measured['RGB'][main]:.4f} |" in card.text and "| inputs |" not in card.text
    assert "samples, given RGB" in card.text, "the numbers of RGB alone are not taken for those of the whole model"
    del results["by_inputs"]
    write_sealed_json(path, results)
    card = published(one, folder / "of_none")
    assert f"| {main} | {results['metrics'][main]:.4f} |" in card.text and "given" not in card.text.split("## Use")[0]
    names = {entry["name"] for entry in card.data.to_dict()["model-index"][0]["results"][0]["metrics"]}
    assert main in names and not any("(" in name for name in names)


def _stock(run: Path, measured: dict[str, dict[str, float]]) -> None:
    """An exported class sees RGB alone: nothing that was measured with depth is said of it."""
    options = PublishOptions("org/name", licence="apache-2.0", as_stock=True)
    source = open_source(run)
    assert {entry.metric_name.partition(" ")[2] for entry in model_index(source, options)} == {"(RGB)"}
    (row,) = result_rows(source, options)
    assert list(row["rows"]) == ["RGB"] and "given RGB" in row["protocol"]
    assert set(row["names"]) < measured["RGB"].keys()
