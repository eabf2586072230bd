"""The command that makes the checkpoints: its recipes resolve, finished runs are kept, changed ones are not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.checkpoints import BOTH, DEPTH, SEMSEG, maker, results
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.resume import refuse_used_folder

train = maker("train")


def test_every_run_resolves_and_follows_on_the_one_before(tmp_path: Path) -> None:
    sizes = set()
    for run in train.RUNS.values():
        args = resolve(train.settings(run, tmp_path), run.task).args
        assert args.task == run.task and args.seed == 0 and args.data.source == "rooms"
        assert args.init_from == (str(tmp_path / run.after) if run.after else None)
        assert args.data.eval_split != "train" and args.train.max_steps
        sizes.add((args.model["image_size"], args.model["hidden_size"], args.model["num_hidden_layers"]))
    assert len(sizes) == 1, "one encoder through all runs"


@pytest.mark.parametrize("folder", BOTH, ids=lambda folder: folder.name)
def test_the_committed_results_are_of_these_runs(folder: Path) -> None:
    (name,) = (run.name for run in train.RUNS.values() if run.stored == folder.name)
    said = results(folder)["runs"]
    assert [spent["name"] for spent in said] == [run.name for run in train.chain(name)]
    assert all((train.ROOT / spent["recipe"]).is_file() and spent["cpu_seconds"] > 0 for spent in said)
    assert results(folder)["cpu_seconds"] == pytest.approx(sum(spent["cpu_seconds"] for spent in said))


def _fake(output: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Scripts that only refuse a folder and write weights; returns the names of the runs that called one."""
    called: list[str] = []

    def call(run: Any, words: list[str]) -> dict[str, float]:
        called.append(run.name)
        refuse_used_folder(resolve(words, run.task).args)
        (output / run.name).mkdir(exist_ok=True)
        (output / run.name / "model.safetensors").write_text(run.name)
        return {"wall_seconds": 2.0, "cpu_seconds": 1.0}

    monkeypatch.setattr(train, "call", call)
    return called


def test_a_finished_run_is_kept_until_its_start_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = _fake(tmp_path, monkeypatch)
    first = [train.trained(run, tmp_path, "c0ffee") for run in train.chain("depth")]
    assert called == ["pretrain_stage1", "pretrain_stage2", "depth"]
    assert [train.trained(run, tmp_path, "c0ffee") for run in train.chain("depth")] == first and len(called) == 3
    (tmp_path / "pretrain_stage2" / "model.safetensors").write_text("other weights")
    train.trained(train.RUNS["depth"], tmp_path, "c0ffee")
    assert called[3:] == ["depth"], "it starts from other weights now"


def test_a_finished_run_is_repeated_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, run = _fake(tmp_path, monkeypatch), train.RUNS["pretrain_stage1"]
    train.trained(run, tmp_path, "c0ffee")
    path = tmp_path / run.name / train.SPENT
    before = json.loads(path.read_text())["digest"]
    settings = train.settings
    monkeypatch.setattr(train, "settings", lambda *given: [*settings(*given), "--train.max_steps", "7"])
    train.trained(run, tmp_path, "c0ffee")
    assert called == [run.name] * 2 and json.loads(path.read_text())["digest"] != before


def test_a_run_that_was_killed_before_it_was_noted_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, run = _fake(tmp_path, monkeypatch), train.RUNS["pretrain_stage1"]
    train.trained(run, tmp_path, "c0ffee")
    (tmp_path / run.name / train.SPENT).unlink()
    train.trained(run, tmp_path, "c0ffee")
    assert called == [run.name] * 2 and (tmp_path / run.name / train.SPENT).is_file()


def test_what_is_noted_does_not_outlive_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repetition with other settings fails; with those of before, there is no model any more that could be kept."""
    called, run = _fake(tmp_path, monkeypatch), train.RUNS["pretrain_stage1"]
    train.trained(run, tmp_path, "c0ffee")
    settings, call = train.settings, train.call
    with monkeypatch.context() as patched:
        patched.setattr(train, "settings", lambda *given: [*settings(*given), "--train.max_steps", "7"])
        patched.setattr(train, "call", lambda *given: call(*given) and sys.exit(1))
        with pytest.raises(SystemExit):
            train.trained(run, tmp_path, "c0ffee")
    (tmp_path / run.name / "model.safetensors").unlink()
    train.trained(run, tmp_path, "c0ffee")
    assert called == [run.name] * 3 and (tmp_path / run.name / "model.safetensors").is_file()


def test_a_run_that_fails_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train.RUNS["depth"]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / run.script).write_text(
        "import os, sys; sys.exit(int(sys.argv[1]) + (os.environ['OMP_NUM_THREADS'] != '1'))"
    )
    monkeypatch.setattr(train, "ROOT", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert train.call(run, ["0"]).keys() == {"wall_seconds", "cpu_seconds"}
    with pytest.raises(SystemExit) as ended:
        train.call(run, ["2"])
    assert ended.value.code == 2


def test_judging_again_changes_nothing_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, run = maker("checkpoint_folder"), train.RUNS["depth"]
    shutil.copytree(DEPTH, tmp_path / DEPTH.name)
    before = {path.name: path.read_bytes() for path in (tmp_path / DEPTH.name).iterdir()}
    said = results(DEPTH)

    def judged(_: Any, folder: Path, output: Path, frames: int) -> dict[str, Any]:
        found = dict(said["test" if frames == 512 else "test_first_frames"]["metrics"])
        found["rmse"] *= 1.5 if frames == 48 else 1.0
        return {"metrics": found}

    monkeypatch.setattr(module, "judged", judged)
    assert module.judge_again(run, tmp_path, tmp_path) == pytest.approx(0.5)
    assert "relative differences of 0.5" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / DEPTH.name).iterdir()} == before
    (tmp_path / DEPTH.name / "model.safetensors").write_bytes((SEMSEG / "model.safetensors").read_bytes())
    with pytest.raises(SystemExit, match="is not what"):
        module.judge_again(run, tmp_path, tmp_path)
