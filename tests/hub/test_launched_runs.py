"""Runs that publish their best checkpoints, started by torchrun in two processes and by accelerate: one sends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

from helpers.hub_server import TOKEN, Hub, client_environment, running
from helpers.launching import ACCELERATE, ROOT, TORCHRUN
from helpers.rooms_runs import words

pytestmark = pytest.mark.extras  # long: launchers, and processes that import transformers
REPO = "org/best"
_MARKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub; whatever was asked of it, it must have known."""
    with running() as hub:
        yield hub
    assert not hub.unknown


def _run(
    hub: Hub, launcher: list[str], output: Path, token: str = TOKEN, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Four steps, each evaluated."""
    settings = {"train__max_steps": "4", "evaluation__every_steps": "1", "checkpoint__save_best": "true"}
    given = words("rooms/depth", output, **settings, **changes)
    kept = client_environment(hub, str(output.parent / "home"), token)
    environment = {name: value for name, value in kept.items() if name not in _MARKS} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, str(ROOT / "scripts" / "run_depth_estimation.py"), *given],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_one_process_publishes_and_the_run_learns_the_same(hub: Hub, launcher: list[str], tmp_path: Path) -> None:
    output = tmp_path / "pushed"
    done = _run(hub, launcher, output, hub__push="true", hub__repo=REPO)
    assert done.returncode == 0, done.stderr[-3000:]
    repo = hub.repos[REPO]
    commits = len(repo.commits) - 1  # without the hub's own first one
    assert 1 <= commits <= 4 and done.stderr.count("published ") == commits == len(repo.tags)
    assert sum(path == "/api/repos/create" for _, path, _ in hub.log) == 1 + commits, "the other process asked, too"
    sent = load(repo.files()["model.safetensors"].content)
    best = load_file(output / "checkpoints" / "best" / "model.safetensors")
    assert sent.keys() == best.keys() and all(torch.equal(sent[name], best[name]) for name in sent)
    if launcher is ACCELERATE:
        return  # seconds more of the same
    plain = _run(hub, launcher, tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr[-3000:]
    here, there = (load_file(folder / "model.safetensors") for folder in (output, tmp_path / "plain"))
    assert all(torch.equal(here[name], there[name]) for name in here), "publishing has changed what was learnt"


def test_a_hub_that_takes_nothing_ends_no_run(hub: Hub, tmp_path: Path) -> None:
    hub.part_size, hub.spoil_parts = 50_000, 10_000
    done = _run(hub, TORCHRUN, tmp_path / "run", hub__push="true", hub__repo=REPO)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "model.safetensors").is_file() and len(hub.repos[REPO].commits) == 1
    assert done.stderr.count("is not on the Hub") == 1 and "scripts/publish.py" in done.stderr
    assert "The run goes on" in done.stderr and "Traceback" not in done.stderr


def test_a_token_that_will_not_do_ends_both_processes_at_once(hub: Hub, tmp_path: Path) -> None:
    done = _run(hub, TORCHRUN, tmp_path / "run", "hf_wrong", hub__push="true", hub__repo=REPO)
    assert done.returncode != 0 and not (tmp_path / "run" / "model.safetensors").exists()
    assert done.stderr.count("does not accept the token") == 1 and "[rank 0] HubError" in done.stderr
