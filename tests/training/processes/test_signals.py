"""SIGTERM to the script, to torchrun and to accelerate launch, and a killed torchrun: a checkpoint and no orphan."""

import json
import os
import signal

import pytest

from helpers.launching import ACCELERATE, ALONE, TORCHRUN, finish, outcome, start, wait_for
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.processes.guards import StopSignals

MARK = "M33D_TEST_MARK"


def descendants(mark):
    """Living processes that inherited the mark: the launcher, the ranks (in sessions of their own), their workers."""
    alive = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                marked = f"{MARK}={mark}".encode() in file.read().split(b"\0")
        except OSError:
            continue
        if marked:
            alive.append(int(entry))
    return alive


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for orphans")
@pytest.mark.parametrize(
    ("launcher", "number", "codes"),
    [
        (ALONE, signal.SIGTERM, {143}),
        pytest.param(TORCHRUN, signal.SIGTERM, {1, -15, 143}, marks=pytest.mark.slow),
        # It ends at once, as a killed torchrun does.
        pytest.param(ACCELERATE, signal.SIGTERM, {-15}, marks=pytest.mark.slow),
        (TORCHRUN, signal.SIGKILL, {-9}),
    ],
    ids=["script", "torchrun", "accelerate", "torchrun killed"],
)
def test_the_end_of_the_launcher_saves_and_leaves_no_orphan(tmp_path, launcher, number, codes):
    changes = {
        "output_dir": str(tmp_path / "run"),
        "train__max_steps": 100_000,
        "data__options": {"delay": 0.01},
        "data__num_workers": 1,
        "logging__every_steps": 1,
        "train__batch_size": 2,
    }
    mark = str(tmp_path)
    process = start(launcher, [{"name": "job", "changes": changes}], tmp_path, **{MARK: mark})
    metrics = tmp_path / "run" / "metrics.jsonl"
    try:
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3, "the first steps", 90)
        assert len(descendants(mark)) >= 2, "launcher or script, and at least one loader worker"
        os.kill(process.pid, number)  # the launcher alone, as a batch system does
        code, output = finish(process)
        assert code in codes, output
        wait_for(lambda: not descendants(mark), "the processes to end", 60)
    finally:
        for orphan in descendants(mark):
            os.kill(orphan, signal.SIGKILL)
    checkpoint = CheckpointStore(tmp_path / "run").latest()
    assert checkpoint is not None
    last_row = json.loads(metrics.read_text().splitlines()[-1])
    found = outcome(tmp_path, "job")
    assert checkpoint.name == f"step_{found['step']:08d}" and last_row["step"] == found["step"]
    assert found["interrupted_by"] == signal.SIGTERM


def test_a_second_signal_is_not_swallowed(request):
    # A shell starts its background jobs with SIGINT ignored, this test run perhaps among them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
