"""Training from prepared Parquet, shards and a mixture of both, in two processes: stopped inside an epoch and resumed,
to the last bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.launching import TORCHRUN, assert_same_weights, finish, history, outcome, start
from helpers.preparations import prepared
from helpers.range_server import serving_ranges
from helpers.ranks import run_jobs
from helpers.rooms_runs import words
from m33d_hf.data.sources.frames.folder import FolderSource

COUNT, STOP, STEPS = 12, 2, 5  # three steps an epoch
FORMS = ("hub", "shards", "mixture")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    source = FolderSource(write_frames(place / "in", COUNT), depth_unit="mm")
    prepared(source, place / "hub")
    prepared(source, place / "shards", format="shards")
    return place


def run_words(form: str, data: Path, url: str, output: Path) -> list[str]:
    fixed: dict[str, str | None] = {
        "method": "m33d",
        "data__source": "hub",
        "data__root": str(data / "hub"),
        "data__options": "{}",
        "data__train_split": "all",
        "data__eval_split": "null",
        "data__num_workers": "1",
        "train__max_steps": str(STEPS),
        "train__batch_size": "2",
        "logging__every_steps": "1",
        "evaluation__batch_size": None,
    }
    if form == "shards":
        fixed |= {"data__source": "shards", "data__root": str(data / "shards")}
    if form == "streamed":
        fixed |= {"data__root": f"{url}/hub", "data__options": "{streaming: true}"}
    if form == "mixture":
        members = [{"source": "hub", "root": str(data / "hub"), "weight": 2}]
        members += [{"source": "shards", "root": str(data / "shards"), "weight": 1}]
        fixed |= {"data__mixture": json.dumps(members)}
    return words("rooms/pretrain_stage2", output, **fixed)


def jobs_of(form: str, data: Path, url: str, folder: Path) -> list[dict[str, Any]]:
    """One run as it is; one that a signal to the second process stops, and the same command again."""
    parts = {"whole": {}, "stopped": {"signal": [STOP, int(signal.SIGTERM), 1]}, "resumed": {}}
    return [
        {"name": f"{form}-{part}", "task": "pretraining", **extra,
         "argv": run_words(form, data, url, folder / form / ("whole" if part == "whole" else "cut"))}
        for part, extra in parts.items()
    ]  # fmt: skip


def assert_resumed(folder: Path, form: str) -> None:
    stopped = outcome(folder, f"{form}-stopped")
    assert stopped["interrupted_by"] == signal.SIGTERM and stopped["step"] == STOP, stopped
    whole, again = (history(folder, f"{form}-{part}", "train") for part in ("whole", "resumed"))
    assert [row["step"] for row in whole] == list(range(1, STEPS + 1))
    assert again == whole
    assert len({row["loss"] for row in whole}) == STEPS
    assert_same_weights(folder / form / "whole", folder / form / "cut")


@pytest.mark.slow
def test_stopped_inside_an_epoch_and_resumed(data: Path, tmp_path: Path) -> None:
    with serving_ranges(data) as traffic:
        jobs = [job for form in FORMS for job in jobs_of(form, data, traffic.url, tmp_path)]
        jobs += jobs_of("streamed", data, traffic.url, tmp_path)[:1]
        code, output = run_jobs(jobs, tmp_path)
        assert code == 0, output[-3000:]
        for form in FORMS:
            assert_resumed(tmp_path, form)
    alike = [history(tmp_path, f"{form}-whole", "train") for form in ("hub", "shards", "streamed")]
    assert alike[0] == alike[1] == alike[2]  # the same frames in the same order, wherever they lie
    assert any(name.endswith(".parquet") for name, _, _ in traffic.ranges)


@pytest.mark.slow
def test_a_stream_is_stopped_and_resumed(data: Path, tmp_path: Path) -> None:
    with serving_ranges(data) as traffic:
        code, output = run_jobs(jobs_of("streamed", data, traffic.url, tmp_path), tmp_path)
    assert code == 0, output[-3000:]
    assert_resumed(tmp_path, "streamed")


@pytest.mark.slow
def test_under_torchrun(data: Path, tmp_path: Path) -> None:
    jobs = [job for form in FORMS for job in jobs_of(form, data, "", tmp_path)]
    code, output = finish(start(TORCHRUN, jobs, tmp_path))
    assert code == 0, output[-3000:]
    for form in FORMS:
        assert_resumed(tmp_path, form)
