"""Starts tests/helpers/run_tiny.py alone, under torchrun or under accelerate launch, and compares runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("run_tiny.py")
ROOT = Path(__file__).resolve().parents[2]
TIMING = ("samples_per_second", "data_wait", "seconds")

ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]


def start(launcher: list[str], jobs: list[dict[str, Any]], folder: Path, **env: str) -> subprocess.Popen[str]:
    """Start the jobs in the background, in a process group of their own; see run_tiny.py."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    paths = os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.Popen(
        [*launcher, str(SCRIPT), str(folder / "jobs.json"), str(folder)],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 300.0) -> tuple[int, str]:
    """Wait; returns exit code and output."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def outcome(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    """What a rank reported for a job."""
    return json.loads((folder / f"{name}.{rank}.json").read_text())


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until `condition` is true; fails with `what` otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def without_timing(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in TIMING} for row in history]


def weights_of(output_dir: str | Path) -> dict[str, torch.Tensor]:
    """Weights of the final model."""
    return load_file(Path(output_dir) / "model.safetensors")


def assert_same_weights(first: str | Path, second: str | Path) -> None:
    """Bit for bit."""
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"weights differ: {different}"
