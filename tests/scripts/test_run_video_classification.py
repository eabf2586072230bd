"""scripts/run_video_classification.py from the command line: real clips, shares of labels, evaluation alone."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.frames_on_disk import write_frames
from helpers.scripts import run_script
from helpers.shared_data import shared
from m33d_hf.scripts._main import main

SIZES = {
    "model.image_size": "16",
    "model.patch_size": "8",
    "model.num_frames": "4",
    "model.hidden_size": "16",
    "model.num_hidden_layers": "2",
    "model.num_attention_heads": "2",
    "model.intermediate_size": "32",
    "train.batch_size": "2",
    "data.num_workers": "0",
    "logging.trackers": "[]",
    "logging.pictures": "false",
}


def words(**changes: object) -> list[str]:
    """--key value of the sizes and of the changes ("__" is the dot)."""
    given = SIZES | {key.replace("__", "."): str(value) for key, value in changes.items()}
    return [word for key, value in given.items() for word in (f"--{key}", value)]


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Two classes of real clips in the layout of UCF-101."""
    pytest.importorskip("av")
    root, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    clips = {
        "SoccerJuggling": shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi"),
        "Unknown": shared("videos/ucf101/unverified_name/mmaction2_test.avi"),
    }
    named: dict[str, list[str]] = {"train": [], "test": []}
    for label, (action, source) in enumerate(clips.items(), start=1):
        for group, split in enumerate(named, start=1):
            name = f"{action}/v_{action}_g{group:02}_c01.avi"
            (root / action).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / name)
            named[split].append(f"{name} {label}" if split == "train" else name)
    (lists / "classInd.txt").write_text("1 SoccerJuggling\n2 Unknown\n")
    for split, lines in named.items():
        (lists / f"{split}list01.txt").write_text("\n".join(lines) + "\n")
    return root


def test_the_ucf101_recipe_on_real_clips(ucf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = {"recipe": "ucf101_finetune", "data__root": ucf, "train__accumulation": "1", "cpu": "true"}
    out, judged = tmp_path / "out", tmp_path / "judged"
    chosen = {"train__max_steps": "2", "optim__warmup_epochs": "0"}
    assert main("video_classification", words(**common, **chosen, output_dir=out, dry_run="true")) == 0
    assert (
        "mixup 0.8 or cutmix 1 with probability 1; label smoothing 0.1; random erasing 0.25" in capfd.readouterr().out
    )
    assert main("video_classification", words(**common, **chosen, output_dir=out)) == 0
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["SoccerJuggling", "Unknown"]
    assert {row["views"] for row in rows} == {"15"}
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    capfd.readouterr()
    code = main("video_classification", words(**common, output_dir=judged, init_from=out, eval_only="true"))
    assert code == 0, capfd.readouterr().err
    found = json.loads((judged / "eval_results.json").read_text())["metrics"]
    assert found["loss"] == pytest.approx(last["eval/loss"], rel=1e-5) and found["top1"] == last["eval/top1"]


def test_five_percent_of_the_labels_of_too_few_videos(ucf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = words(recipe="ucf101_finetune", data__root=ucf, data__label_fraction="0.05", cpu="true", dry_run="true")
    assert main("video_classification", given) == 2
    assert "1 of 2 classes have no sample at data.label_fraction 0.05" in capfd.readouterr().err
    assert main("video_classification", [*given, "--data.allow_missing_classes", "true"]) == 0
    assert "labels: 1 of 2 videos (data.label_fraction 0.05)" in capfd.readouterr().out


def _surgery(root: Path, videos: dict[str, list[str]]) -> Path:
    """Frame folders with one phase name per frame."""
    (root / "phase_annotations").mkdir(parents=True)
    for name, phases in videos.items():
        write_frames(root / "videos" / name, len(phases), rgb="{i:03}.png", depth=None)
        lines = "".join(f"{number}\t{phase}\n" for number, phase in enumerate(phases))
        (root / "phase_annotations" / f"{name}-phase.txt").write_text(f"Frame\tPhase\n{lines}")
    return root


def test_the_orar_recipe_on_frame_folders(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_root = _surgery(tmp_path / "a", {"v1": ["cut"] * 10 + ["sew"] * 10, "v2": ["sew"] * 6 + ["wash"] * 6})
    # The first phase met is another one here: phases are told by name.
    eval_root = _surgery(tmp_path / "b", {"w1": ["wash"] * 8 + ["cut"] * 8})
    given = {
        "recipe": "orar_finetune", "data__root": train_root, "data__eval_root": eval_root, "data__frame_stride": "1",
        "data__options__clip_span": "4", "train__accumulation": "1", "cpu": "true",
    }  # fmt: skip
    chosen = {"train__max_steps": "2", "optim__warmup_epochs": "0", "output_dir": tmp_path / "out"}
    assert main("video_classification", words(**given, **chosen)) == 0, capfd.readouterr().err
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["wash", "wash", "cut", "cut"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "cut", "1": "sew", "2": "wash"}
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"eval/map", "eval/ap/cut", "eval/ap/wash"} <= set(last) and "eval/ap/sew" not in last  # no clip of it
    capfd.readouterr()
    given["data__eval_root"] = _surgery(tmp_path / "c", {"w1": ["wash"] * 8 + ["close"] * 8})
    assert main("video_classification", words(**given, **chosen | {"output_dir": tmp_path / "other"})) == 2
    assert "phase 'close' is not one of the 3 phases cut, sew, wash" in capfd.readouterr().err


@pytest.mark.slow  # the door is that of test_run_pretrain.py::test_launchers
def test_under_accelerate_launch(repository: Path, tmp_path: Path) -> None:
    changes = {"data__source": "rooms", "data__options__num_clips": "20", "data__cache_dir": tmp_path / "cache"}
    given = words(**changes, model__tubelet_size="2", train__max_steps="2", output_dir=tmp_path / "out", cpu="true")
    script = str(repository / "scripts/run_video_classification.py")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", script, *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists() and "eval/top1" in done.stderr


def test_as_a_module_with_help(tmp_path: Path) -> None:
    code, output = run_script("m33d_hf.scripts.run_video_classification", "--help", log=tmp_path / "output.txt")
    assert code == 0, output
    assert "--mixing.cutmix" in output and "ucf101_finetune" in output
