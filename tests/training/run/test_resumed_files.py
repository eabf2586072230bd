"""Files that a run's arguments name are what they were when it is resumed: by name alone they look the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.rooms_runs import words
from m33d_hf.data.files.markers import mark_complete
from m33d_hf.errors import ResumeError
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.tasks.base import build_task

TASK = "depth_estimation"


def _run(folder: Path, listed: Path, **changes: str) -> TrainResult:
    given = words("rooms/depth", folder / "run", data__skip_list=str(listed), train__max_steps="1", **changes)
    return train(parse_arguments(given, TASK), build_task(TASK))


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list that names one of the training samples, of a run that has ended."""
    args = parse_arguments(words("rooms/depth", tmp_path / "run"), TASK)
    task = build_task(TASK)
    source = task.build_datasets(args, task.build_model(args))[0].source
    keys = [source[row].key for row in range(len(source))]
    file = tmp_path / "list.csv"
    file.write_text(f"path,reason,key\n/nowhere/a.png,broken,{keys[0]}\n")
    (tmp_path / "another.txt").write_text(keys[1])
    _run(tmp_path, file)
    return file


def test_another_content_of_the_skip_list_is_another_recipe(listed: Path, tmp_path: Path) -> None:
    assert _run(tmp_path, listed).step == 1, "the same list"
    before = listed.read_text()
    listed.write_text(f"{before}/nowhere/b.png,broken,{(tmp_path / 'another.txt').read_text()}\n")
    with pytest.raises(ResumeError) as caught:
        _run(tmp_path, listed)
    assert "content of data.skip_list: " in str(caught.value) and "training samples: 11 -> 10" in str(caught.value)
    given = words("rooms/depth", tmp_path / "run", data__skip_list=str(listed), train__max_steps="1")
    with pytest.raises(ResumeError, match=r"content of data\.skip_list: "):
        dry_run(parse_arguments(given, TASK), build_task(TASK))
    listed.write_text(before)
    assert _run(tmp_path, listed).step == 1


def test_a_checkpoint_of_an_earlier_version_is_resumed(listed: Path, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "run" / "checkpoints").glob("step_*")
    state = json.loads((folder / "state.json").read_text())
    for name in ("skip_list_digest", "num_samples"):
        del state[name]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "COMPLETE").unlink()
    mark_complete(folder)
    listed.write_text("path,reason,key\n")
    assert _run(tmp_path, listed).step == 1
