"""SIGTERM to the script, to torchrun and to the accelerate launcher: a saved checkpoint and no orphan, each time."""

import json
import os
import signal

import pytest

from helpers.launching import ACCELERATE, ALONE, TORCHRUN, finish, outcome, start, wait_for
from m33d_hf.training.checkpoints import CheckpointStore
from m33d_hf.training.guards import StopSignals


def group_members(group):
    """Living processes of a process group: the launcher, the ranks and their loader workers."""
    alive = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                state, _, process_group = file.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            alive.append(int(entry))
    return alive


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for orphans")
@pytest.mark.parametrize(
    ("launcher", "codes"),
    [(ALONE, {143}), (TORCHRUN, {1, -15, 143}), (ACCELERATE, {-15})],
    ids=["script", "torchrun", "accelerate"],
)
def test_sigterm_saves_and_leaves_no_orphan(tmp_path, launcher, codes):
    changes = {
        "output_dir": str(tmp_path / "run"),
        "train__max_steps": 100_000,
        "data__options": {"delay": 0.01},
        "data__num_workers": 1,
        "logging__every_steps": 1,
        "train__batch_size": 2,
    }
    process = start(launcher, [{"name": "job", "changes": changes}], tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    try:
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3, "the first steps", 90)
        os.kill(process.pid, signal.SIGTERM)  # the launcher alone, as a batch system does
        code, output = finish(process)
        assert code in codes, output
        wait_for(lambda: not group_members(process.pid), "the processes to end", 60)
    finally:
        if group_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    checkpoint = CheckpointStore(tmp_path / "run").latest()
    assert checkpoint is not None
    last_row = json.loads(metrics.read_text().splitlines()[-1])
    found = outcome(tmp_path, "job")
    assert checkpoint.name == f"step_{found['step']:08d}" and last_row["step"] == found["step"]
    assert found["interrupted_by"] == signal.SIGTERM


def test_a_second_signal_is_not_swallowed():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
