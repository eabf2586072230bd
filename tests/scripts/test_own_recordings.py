"""From a folder of recordings to a depth model in two commands without a flag but paths; shortened here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.rooms_on_disk import write_rooms
from m33d_hf.scripts import check_data
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.parsing import resolve


@pytest.mark.slow
def test_two_commands_lead_from_recordings_to_figures_on_held_out_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rooms(tmp_path / "frames", rooms=10)
    where = ["--data.root", "frames", "--cpu", "--cpu_threads", "1", "--train.max_steps", "4"]
    assert main("pretraining", ["--recipe", "own/pretrain", *where]) == 0
    assert main("depth_estimation", ["--recipe", "own/depth", *where, "--init_from", "outputs/pretrain"]) == 0
    said = capsys.readouterr().err
    # How fast that core is at the moment stands between.
    assert "64 frames, 1 CPU core" in said and ": ViT of width 128" in said and "8 of 10 sequences" in said
    assert "taken from outputs/pretrain: " in said and "per-position mean of the training frames" in said
    rows = [json.loads(line) for line in Path("outputs/depth/metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if row["kind"] == "eval")
    assert 0 <= last["eval/delta1"] <= 1 and 0 < last["eval/floor/delta1"] < 1
    assert Path("outputs/depth/model.safetensors").is_file() and Path("outputs/pretrain/model.safetensors").is_file()


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve frames whose depth may be in several units, with label maps of two values."""
    monkeypatch.chdir(tmp_path)
    maps = {
        "rgb": np.zeros((32, 48, 3), np.uint8),
        "depth": np.full((32, 48), 1500, np.uint16),
        "label": np.repeat([3, 7], 768).reshape(32, 48).astype(np.uint8),
    }
    for kind, pixels in maps.items():
        (tmp_path / "frames" / kind).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(pixels).save(tmp_path / "frames" / kind / f"{number:03d}.png")
    return tmp_path


def commands(said: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in said.split("next:\n")[1].splitlines() if line.startswith("  python ")]


def test_an_error_of_an_own_recipe_ends_with_the_command_that_answers_it(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is still open in these recipes is no reason to say nothing."""
    assert main("pretraining", ["--recipe", "own/pretrain", "--data.root", "frames", "--dry_run"]) == 2
    answers = commands(capsys.readouterr().err)
    (chosen,) = (words for words in answers if words[-1] == "millimetre")
    assert len(answers) > 1 and Path(chosen[0]).name == "run_pretrain.py" and "--dry_run" in chosen


def test_labels_that_nothing_describes_are_answered_by_the_doctor_and_it_by_the_run(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--recipe", "own/semseg", "--data.root", "frames", "--data.options.depth_unit", "millimetre"]
    assert main("semantic_segmentation", given) == 2
    (check,) = commands(capsys.readouterr().err)
    assert Path(check[0]).name == "check_data.py"
    assert check_data.main([*check[1:], "--workers", "0"]) in (0, 1)
    said = capsys.readouterr().out
    assert "read as 2 classes in order" in said and "run_semantic_segmentation.py" in said
    line = next(line for line in said.splitlines() if "run_semantic_segmentation.py" in line)
    resolved = resolve(shlex.split(line)[2:], "semantic_segmentation").args
    assert {int(key): value for key, value in resolved.data.options["label_map"].items()} == {3: 0, 7: 1}
