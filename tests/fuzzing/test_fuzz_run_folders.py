"""Run folders with damage anywhere, continued: the same weights in the end, or an error of ours, never other ones."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from helpers.demo_results import fake_results
from helpers.fuzzing import Outcomes, mutations, slices
from helpers.launching import assert_same_weights
from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import MARKER, mark_complete
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import M33DError
from m33d_hf.experiments.driver import report
from m33d_hf.experiments.jobs import Job, stored_row
from m33d_hf.experiments.report.results import load_results
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.weights.own import find_own

CHANGES = {
    "train__max_steps": 9,
    "train__ema_decay": 0.9,
    "checkpoint__every_steps": 3,
    "evaluation__every_steps": 4,
    "logging__every_steps": 1,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_arguments(folder, **CHANGES), TinyTask())
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_arguments(folder, **CHANGES), StoppingTask(8, "crash"))
    return folder


@pytest.mark.parametrize(("seed", "count"), slices(20, 150))
def test_damage_leads_to_the_same_weights_or_to_an_error(
    whole: Path, killed: Path, tmp_path: Path, seed: int, count: int
) -> None:
    outcomes = Outcomes()
    files = sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file() and path.name != ".lock")
    for number in range(count):
        rng = random.Random(f"run folder {seed} {number}")
        name = rng.choice(files)
        ((what, damaged),) = mutations((killed / name).read_bytes(), seed * 100_000 + number, 1)
        folder = tmp_path / "run"
        shutil.copytree(killed, folder)
        (folder / name).write_bytes(damaged)
        # A whole folder with other content: what cannot be told from what a run wrote need not end the same.
        foreign = name.parts[0] == "checkpoints" and name.name != MARKER and rng.random() < 0.4
        if foreign:
            (folder / name).parent.joinpath(MARKER).unlink()
            mark_complete((folder / name).parent)
        result = outcomes.judge(f"{name}: {what}", lambda: train(tiny_arguments(folder, **CHANGES), TinyTask()))  # noqa: B023
        if isinstance(result, TrainResult) and not foreign:
            assert_same_weights(whole, folder)
        shutil.rmtree(folder)
    assert outcomes["accepted"] > count / 2, "the older checkpoint is whole"


@pytest.mark.parametrize(("seed", "count"), slices(40, 1500))
def test_a_damaged_checkpoint_gives_no_weights_away(killed: Path, tmp_path: Path, seed: int, count: int) -> None:
    """--init_from: whatever the damage, it is refused, or nothing that was written has changed."""
    outcomes = Outcomes()
    folder = tmp_path / "step"
    shutil.copytree(killed / "checkpoints" / "step_00000006", folder)
    # As a model of ours writes it; the tiny one has no configuration.
    (folder / "config.json").write_text(json.dumps({"model_type": "m33d", "hidden_size": 8}))
    (folder / MARKER).unlink()
    mark_complete(folder)
    assert find_own(str(folder)) is not None
    for name in ("model.safetensors", "config.json", MARKER):
        original = (folder / name).read_bytes()
        for what, damaged in mutations(original, seed, count):
            (folder / name).write_bytes(damaged)
            found = outcomes.judge(f"{name}: {what}", lambda: find_own(str(folder)))
            assert isinstance(found, M33DError) or damaged == original, f"{name}: {what}"
        (folder / name).write_bytes(original)


@pytest.mark.parametrize(("seed", "count"), slices(60, 1500))
def test_damaged_rows_of_a_runner_are_made_again(tmp_path: Path, seed: int, count: int) -> None:
    job = Job("work", "helpers.fake_jobs:add", {"left": 1, "right": 2})
    row = {"id": "work", "status": "done", "fingerprint": job.fingerprint(), "wall_seconds": 1.0, "value": 3.25}
    path = write_sealed_json(tmp_path / "work.json", row)
    original, outcomes = path.read_bytes(), Outcomes()
    assert stored_row(tmp_path, job) == row
    for what, damaged in mutations(original, seed, count):
        path.write_bytes(damaged)
        found = outcomes.judge(what, lambda: stored_row(tmp_path, job))
        assert found is None or damaged == original, what


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(("seed", "count"), slices(15, 1000))
def test_damaged_results_are_told_or_refused(tmp_path: Path, seed: int, count: int, sealed: bool) -> None:
    """Without a seal, as in earlier versions, what is left of the structure decides."""
    path = write_sealed_json(tmp_path / "results.json", fake_results())
    if not sealed:
        path.write_text(json.dumps(read_sealed_json(path), indent=1))
    original, outcomes = path.read_bytes(), Outcomes()
    for what, damaged in mutations(original, seed, count):
        path.write_bytes(damaged)
        if sealed:
            found = outcomes.judge(what, lambda: load_results(tmp_path))
            assert isinstance(found, M33DError) or damaged == original, what
        else:
            outcomes.judge(what, lambda: report(tmp_path, lambda _, folder: (folder, folder)))
    assert outcomes["refused"] > 0
