"""Files that a run's arguments name are what they were when it is resumed: by name alone they look the same."""

from __future__ import annotations

import json
import re
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
    file = tmp_path / "list.csv"
    _write(file, "train/0/frames/0")
    _run(tmp_path, file)
    return file


def _write(file: Path, *names: str, lie_in: str = "/nowhere") -> None:
    """A list of these rooms; of those of both splits there are twelve and six frames."""
    file.write_text("path,reason,key\n" + "".join(f"{lie_in}/{n}.png,broken,rooms/{n}\n" for n in names))


def _edit(folder: Path, **facts: str | None) -> None:
    """The run's only checkpoint, as another version would have written it; None removes a fact."""
    (checkpoint,) = (folder / "run" / "checkpoints").glob("step_*")
    state = json.loads((checkpoint / "state.json").read_text()) | facts
    (checkpoint / "state.json").write_text(json.dumps({key: fact for key, fact in state.items() if fact is not None}))
    (checkpoint / "COMPLETE").unlink()
    mark_complete(checkpoint)


def test_a_list_that_leaves_other_samples_is_another_recipe(listed: Path, tmp_path: Path) -> None:
    assert _run(tmp_path, listed).step == 1, "the same list"
    _write(listed, "train/0/frames/0", "train/0/frames/1")
    with pytest.raises(ResumeError) as caught:
        _run(tmp_path, listed)
    told = "training samples that data.skip_list leaves: "
    assert told in str(caught.value) and "training samples: 11 -> 10" in str(caught.value)
    given = words("rooms/depth", tmp_path / "run", data__skip_list=str(listed), train__max_steps="1")
    with pytest.raises(ResumeError, match=re.escape(told)):
        dry_run(parse_arguments(given, TASK), build_task(TASK))
    _write(listed, "train/0/frames/1")
    with pytest.raises(ResumeError, match=re.escape(told)) as caught:
        _run(tmp_path, listed)
    assert "training samples: " not in str(caught.value), "as many, but not the same"
    _write(listed, "train/0/frames/0")
    assert _run(tmp_path, listed).step == 1


def test_a_list_may_be_written_again(listed: Path, tmp_path: Path) -> None:
    """The data was moved, and checked again: other paths, another order, entries of samples that are not there."""
    _write(listed, "elsewhere/9", "train/0/frames/0", lie_in="/moved")
    assert _run(tmp_path, listed).step == 1


def test_a_checkpoint_of_an_earlier_version_is_resumed(listed: Path, tmp_path: Path) -> None:
    """Of one that knew nothing of lists, and of one that knew the list by its bytes."""
    _edit(tmp_path, rows_digest=None, skip_list_digest="of other bytes")
    _write(listed, "train/0/frames/0", lie_in="/moved")
    assert _run(tmp_path, listed).step == 1
    _edit(tmp_path, skip_list_digest=None, num_samples=None)
    listed.write_text("path,reason,key\n")
    assert _run(tmp_path, listed).step == 1


def test_evaluations_of_other_samples_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The training samples are the same, so that the run goes on; its best weights were judged on others."""
    file, judged = tmp_path / "list.csv", {"data__eval_options": "{num_frames: 6}", "checkpoint__save_best": "true"}
    _write(file, "validation/0/frames/0")
    _run(tmp_path, file, **judged)
    for names, other in [(("validation/0/frames/0", "elsewhere/9"), False), (("validation/0/frames/1",), True)]:
        _write(file, *names, lie_in="/moved")
        caplog.clear()
        _run(tmp_path, file, **judged)
        assert ("evaluation samples that data.skip_list leaves: " in caplog.text) is other
