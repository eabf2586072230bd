"""A run writes to a folder only where nothing of another run would be lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.errors import ConfigError, ResumeError
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.loop import TrainResult, train


def run(output_dir: Path, stop: int | None = None, **changes: Any) -> TrainResult:
    task = TinyTask() if stop is None else StoppingTask(stop)
    return train(tiny_arguments(output_dir, **{"checkpoint__every_steps": 3, **changes}), task)


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the lock, which every start takes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("differs", [{"optim__learning_rate": 0.01}, {"data__options": {"size": 30}}])
@pytest.mark.parametrize("held", ["checkpoints", "best", "model"])
def test_another_run_is_not_written_over(tmp_path: Path, held: str, differs: dict[str, Any]) -> None:
    """Also where only the data differ, as with one recipe for two folders of data."""
    run(tmp_path / "here", stop=10, **differs)
    run(tmp_path / "there", stop=None if held == "model" else 7)
    if held != "checkpoints":
        for path in (tmp_path / "there" / "checkpoints").iterdir():
            path.rename(path.with_name("best") if held == "best" and path.name.endswith("7") else tmp_path / path.name)
    left = tmp_path / "there" / "checkpoints" / ".tmp-step_00000009"
    left.mkdir()
    before = content(tmp_path / "there")
    with pytest.raises(ResumeError, match="of another run than --resume") as caught:
        run(tmp_path / "there", resume=str(tmp_path / "here"), **differs)
    assert "0.02 -> 0.01" in str(caught.value) or "tiny-24 -> tiny-30" in str(caught.value)
    assert content(tmp_path / "there") == before and left.is_dir(), "nothing is touched"


def test_a_folder_that_does_not_say_whose_it_is_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path / "here", stop=7)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ResumeError, match="does not say which run"):
        run(tmp_path / "there", resume=str(tmp_path / "here"))


def test_a_continuation_elsewhere_may_be_started_again(tmp_path: Path) -> None:
    """It replaces its own checkpoints by the same ones; other evaluations and batches do not make another run."""
    run(tmp_path / "here", stop=5)
    run(tmp_path / "there", stop=4, resume=str(tmp_path / "here"), evaluation__every_steps=4)
    assert CheckpointStore(tmp_path / "there").step_folders()
    halves = {"train__batch_size": 2, "train__accumulation": 2}
    assert run(tmp_path / "there", resume=str(tmp_path / "here"), **halves).step == 12


def test_ones_own_folder_by_another_path(tmp_path: Path) -> None:
    run(tmp_path / "run", stop=7)
    found = run(tmp_path / "run", resume=os.path.relpath(tmp_path / "run"))
    assert found.step == 12 and found.history[0]["step"] == 4


def test_a_new_start_is_refused_where_a_checkpoint_was_being_replaced(tmp_path: Path) -> None:
    run(tmp_path, stop=7)
    store = CheckpointStore(tmp_path)
    for path in store.step_folders():
        path.rename(path.with_name(f".old-{path.name}"))
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        run(tmp_path, resume="none")
    assert store.latest() is not None


@pytest.mark.parametrize("changes", [{}, {"resume": "none"}, {"data__options": {"size": 30}}])
@pytest.mark.parametrize("how", ["removed", "never kept", "cut short"])
def test_a_model_without_checkpoints_is_not_replaced(tmp_path: Path, how: str, changes: dict[str, Any]) -> None:
    """Whoever removed checkpoints to free space, or kept none, repeats the command: nothing of the model is lost."""
    run(tmp_path, **({} if how == "removed" else {"checkpoint__save_final": False, "checkpoint__every_steps": None}))
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    if how == "cut short":
        (tmp_path / "COMPLETE").unlink()
    before = content(tmp_path)
    with pytest.raises(ResumeError, match=r"holds the model of an earlier run.*--output_dir.*--init_from"):
        run(tmp_path, **changes)
    assert content(tmp_path) == before and "model.safetensors" in before, "nothing is touched"
    with pytest.raises(ResumeError, match="holds the model of an earlier run"):
        dry_run(tiny_arguments(tmp_path, **changes), TinyTask())


def test_what_a_kill_before_the_first_checkpoint_leaves_does_not_keep_the_run_from_starting(tmp_path: Path) -> None:
    """Neither its metrics nor the best weights so far are the model of a finished run."""
    evaluated = {"evaluation__every_steps": 2, "data__eval_split": "val", "checkpoint__save_best": True}
    with pytest.raises(KeyboardInterrupt):
        train(tiny_arguments(tmp_path, checkpoint__every_steps=9, **evaluated), StoppingTask(7, "kill"))
    assert CheckpointStore(tmp_path).best() is not None and not CheckpointStore(tmp_path).step_folders()
    assert run(tmp_path, **evaluated).step == 12
