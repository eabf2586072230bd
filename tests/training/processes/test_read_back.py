"""What a run leaves and reads back besides its checkpoints: the final model, metrics, its configuration, left-overs."""

import json
import logging
import shutil

import pytest
import torch

from helpers.fuzzing import bit_flips
from helpers.rooms_runs import words
from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import MARKER, damage
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CheckpointError, CorruptFileError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.reporting import read_rows
from m33d_hf.training.tasks.pretraining import PretrainingTask
from m33d_hf.weights.own import find_own

CHANGES = {"checkpoint__every_steps": 4, "evaluation__every_steps": 4, "logging__every_steps": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(parse_arguments(words("rooms/pretrain", folder), "pretraining"), PretrainingTask())
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json", MARKER])
def test_a_flipped_bit_of_the_final_model_is_noticed(finished, name):
    assert damage(finished) is None and find_own(str(finished)) is not None
    original = (finished / name).read_bytes()
    try:
        for what, damaged in bit_flips(original, 11, 25):
            (finished / name).write_bytes(damaged)
            for start in (finished, finished / "model.safetensors"):
                with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                    print(what, find_own(str(start)))
    finally:
        (finished / name).write_bytes(original)


def test_the_configuration_is_sealed(finished):
    path = finished / "train_config.json"
    original = path.read_bytes()
    assert read_sealed_json(path)["args"]["seed"] == json.loads(original)["args"]["seed"]
    try:
        for what, damaged in bit_flips(original, 12, 100):
            path.write_bytes(damaged)
            with pytest.raises(CorruptFileError):
                print(what, read_sealed_json(path))
    finally:
        path.write_bytes(original)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_arguments(folder, **CHANGES), StoppingTask(11, "crash"))
    return folder


def continued(folder, caplog):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        result = train(tiny_arguments(folder, **CHANGES), TinyTask())
    return result, "metrics.jsonl is damaged" in caplog.text


def test_damaged_metrics_are_noticed_and_kept_as_far_as_they_go(killed, tmp_path, caplog):
    shutil.copytree(killed, tmp_path / "intact")
    result, noticed = continued(tmp_path / "intact", caplog)
    assert not noticed
    steps = [(row["kind"], row["step"]) for row in result.history]
    lines = (killed / "metrics.jsonl").read_bytes().split(b"\n")
    before = b"\n".join(lines[:9]) + b"\n"  # eight training rows and the first evaluation lie before the checkpoint
    for number, (what, damaged) in enumerate(bit_flips(before, 13, 12)):
        folder = tmp_path / str(number)
        shutil.copytree(killed, folder)
        (folder / "metrics.jsonl").write_bytes(damaged + b"\n".join(lines[9:]))
        result, noticed = continued(folder, caplog)
        assert noticed, what
        assert len(steps) - len(result.history) <= 2 and result.step == 12, what  # a line end joins two rows


def test_rows_that_are_none_are_left_out(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(
        b'{"kind": "train", "step": 1}\n[1]\n\xff\n{"step": "2"}\n{"kind": "eval", "step": 2}\n{"ki'
    )
    assert [row["step"] for row in read_rows(tmp_path / "m.jsonl")] == [1, 2]


def test_what_killed_writers_left_goes_at_the_next_start(killed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    (folder / "checkpoints" / ".tmp-step_00000012").mkdir()
    left = [folder / ".tmp-0123456789ab-train_config.json", folder / ".tmpaB3x9Z", folder / "checkpoints" / ".tmp-best"]
    for path in left[:2]:
        path.write_bytes(b"half")
    left[2].mkdir()
    torch.save({}, left[2] / "optimizer.pt")
    (folder / ".tmpkeep").mkdir()  # not ours
    train(tiny_arguments(folder, **CHANGES), TinyTask())
    assert not any(path.exists() for path in left)
    assert sorted(path.name for path in folder.glob(".*")) == [".lock", ".tmpkeep"]
