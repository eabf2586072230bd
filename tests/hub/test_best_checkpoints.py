"""Each best checkpoint goes out beside the run: nothing that a hub does, or that goes wrong here, ends the run."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import are_progress_bars_disabled

from helpers.hub_runs import depth_run
from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import file_digest
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import HubError
from m33d_hf.hub import best_checkpoints as module
from m33d_hf.hub import publishing
from m33d_hf.hub.best_checkpoints import BestPublisher
from m33d_hf.hub.options import PublishOptions
from m33d_hf.modeling.hub_upload_m33d import Sent
from m33d_hf.scripts.publish import main as publish_script
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.run.loop import train

REPO = "org/rooms-depth"


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoints/best of a run."""
    run = depth_run(tmp_path_factory.mktemp("run") / "run", checkpoint__save_best="true")
    return run / "checkpoints" / "best"


class Answers:
    """A hub that answers what it is told to: an error is raised, anything else is a commit."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers, self.sent = list(answers), list[set[str]]()
        self.open, self.asked = threading.Event(), threading.Event()
        self.open.set()

    def __call__(self, folder: Path, *_: Any, tag: str, **__: Any) -> Sent:
        self.asked.set()
        assert self.open.wait(20)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.sent.append({path.name for path in folder.iterdir()})
        return Sent(REPO, "0" * 40, "address", tag)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes (publisher, its hub, the lines that it says); no folder of theirs may be left."""
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def make(
        *answers: Exception | None, record: Path | None = None, repo: str = REPO
    ) -> tuple[BestPublisher, Answers, list[str]]:
        hub, lines = Answers(*answers), list[str]()
        monkeypatch.setattr(publishing, "send_folder", hub)
        options = PublishOptions(repo, allow_unevaluated=True, licence="other", private=True)
        return BestPublisher(options, lines.append, record=record), hub, lines

    yield make
    assert not list(tmp_path.glob("m33d-publish-*"))


def test_a_slow_hub_holds_nothing_up_and_gets_the_newest(publisher: Callable[..., Any], best: Path) -> None:
    run, hub, lines = publisher()
    hub.open.clear()
    with run:
        run(best)
        assert hub.asked.wait(20)
        run(best)  # waits ...
        run(best)  # ... and is overtaken
        assert not hub.sent and not lines
        assert are_progress_bars_disabled(), "in the middle of the run's lines"
        threading.Timer(0.1, hub.open.set).start()
    assert not are_progress_bars_disabled()
    assert len(hub.sent) == 2 and {"model.safetensors", "README.md", "tasks_m33d.py"} <= hub.sent[0]
    assert lines[0].startswith("waiting for the upload to org/rooms-depth (Ctrl+C leaves it")
    assert lines[1:] == [f"published {best} (step 2) as {REPO}, tag {_tag(lines)}"] * 2


def _tag(lines: list[str]) -> str:
    return lines[-1].rsplit(" ", 1)[1]


@pytest.mark.parametrize("error", [HubError("the hub is away."), ValueError("Invalid server response")])
def test_a_failed_one_is_said_and_made_up_for_by_the_next(
    error: Exception, publisher: Callable[..., Any], best: Path
) -> None:
    run, hub, lines = publisher(error)
    with run:
        run(best)
        run._wait()
        assert str(error) in lines[0] and "the next best checkpoint is published" in lines[0]
        run(best)
    assert len(hub.sent) == 1 and [line for line in lines[1:] if "waiting" not in line] == [
        f"published {best} (step 2) as {REPO}, tag {_tag(lines)}"
    ]


def test_the_last_one_is_tried_again_at_the_end(publisher: Callable[..., Any], best: Path) -> None:
    run, hub, lines = publisher(HubError("the hub is away."))
    with run:
        run(best)
        run._wait()
    assert len(hub.sent) == 1 and lines[1] == f"publishing {best} (step 2) once more"
    assert lines[2].startswith("published") and len(lines) == 3


def test_what_is_missing_at_the_end_is_told_with_a_command_that_works(
    publisher: Callable[..., Any], best: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, hub, lines = publisher(HubError("the hub is away."), HubError("the hub is still away."))
    with run:
        run(best)
    assert not hub.sent
    assert f"{best} (step 2), the best checkpoint of the run, is not on the Hub (the hub is still away)." in lines[-1]
    words = shlex.split(lines[-1].splitlines()[-1])
    assert words[:2] == ["python", "scripts/publish.py"] and {"--license", "other", "--private"} <= set(words)
    assert publish_script([*words[2:], "--dry_run"]) == 0 and "model.safetensors" in capsys.readouterr().out


def test_what_cannot_be_written_is_said_too(
    publisher: Callable[..., Any], best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, hub, lines = publisher()
    errors = [OSError("No space left on device"), None]
    write = module.write

    def full(*given: Any) -> Any:
        error = errors.pop(0)
        if error is not None:
            raise error
        return write(*given)

    monkeypatch.setattr(module, "write", full)
    with run:
        run(best)
        assert "OSError: No space left on device" in lines[0] and "The run goes on" in lines[0]
    assert len(hub.sent) == 1 and lines[-1].startswith("published")


def test_a_full_temporary_folder_ends_no_run(
    publisher: Callable[..., Any], best: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, hub, lines = publisher()
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "gone"))
    with run:
        run(best)
        assert "FileNotFoundError" in lines[0] and "The run goes on" in lines[0]
        monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    assert len(hub.sent) == 1 and lines[-1].startswith("published")


def test_a_run_that_is_stopped_waits_for_no_hub(publisher: Callable[..., Any], best: Path) -> None:
    run, hub, lines = publisher()
    hub.open.clear()
    with run:
        run(best)
        assert hub.asked.wait(20)
        run.wait_at_the_end = False
    assert len(lines) == 1 and "its upload was not finished" in lines[0] and not hub.sent
    hub.answers = [HubError("its files are gone")]
    hub.open.set()
    run._wait()
    assert len(lines) == 1, "nothing more is said"


def test_what_a_stopped_run_did_not_send_is_sent_when_it_goes_on_and_once(
    publisher: Callable[..., Any], best: Path, tmp_path: Path
) -> None:
    record = tmp_path / "published.json"

    def sent(*answers: Exception | None, repo: str = REPO, stopped: bool = False) -> int:
        run, hub, _ = publisher(*answers, record=record, repo=repo)
        with run:
            run(best)
            run._wait()
            run.wait_at_the_end = not stopped
        return len(hub.sent)

    assert sent(HubError("the hub is away."), stopped=True) == 0 and not record.exists()
    assert sent() == 1 and read_sealed_json(record)["repo"] == REPO
    assert sent() == 0, "it is on the hub"
    assert sent(repo="org/elsewhere") == 1 and sent(repo="org/elsewhere") == 0
    record.write_text("{}")
    assert sent(repo="org/elsewhere") == 1, "a record that says nothing keeps nothing back"
    weights = {"model.safetensors": file_digest(best / "model.safetensors")}
    assert read_sealed_json(record)["weights"] == weights
    write_sealed_json(record, {"repo": "org/elsewhere", "weights": {"model.safetensors": "of others"}})
    assert sent(repo="org/elsewhere") == 1


def test_a_run_that_goes_on_hands_its_best_checkpoint_to_the_publisher(tmp_path: Path) -> None:
    """Even if it never gets better again, or was at its end."""
    changes = {
        **{"data__eval_split": "val", "evaluation__every_steps": 3, "checkpoint__save_best": True},
        **{"hub__push": True, "hub__repo": REPO, "evaluation__metric": "count", "checkpoint__every_steps": 3},
    }

    def handed(task: TinyTask) -> list[int]:
        found = list[int]()
        train(
            tiny_arguments(tmp_path, **changes), task, publish=lambda folder: found.append(read_state(folder)["step"])
        )
        return found

    assert handed(StoppingTask(5)) == [3], "the first evaluation is the best: all are of as many samples"
    assert handed(TinyTask()) == [3]
    assert handed(TinyTask()) == [3]
    changes["hub__push"] = False
    assert handed(TinyTask()) == []
