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

import pytest
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


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0, every: float = 0.05) -> Any:
    """Poll `every` so many seconds until `condition` is true; fails with `what` otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
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


def history(folder: Path, name: str, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that a job of `start` came to, without timing."""
    found = outcome(folder, name)
    assert "error" not in found, found
    return [row for row in without_timing(found["history"]) if kind in (None, row["kind"])]


def assert_trained_alike(folder: Path, name: str, reference: str, norm: float = 2e-6) -> None:
    """Four steps and an evaluation of two jobs: only the order of sums differs, parts of the gradient's norm above all.

    `norm` is the relative tolerance of that norm.
    """
    theirs, ours = history(folder, reference), history(folder, name)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 4, 4]
    for a, b in zip(theirs, ours, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if isinstance(a[key], float):
                tolerance = {"rel": norm if key == "grad_norm" else 2e-6, "abs": 1e-7}
                assert b[key] == pytest.approx(a[key], **tolerance), key


def assert_same_checkpoint(first: Path, second: Path) -> None:
    """Weights, averaged weights and the whole state of the optimizer, to the last bit."""
    for name in ("model", "ema"):
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (first, second))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    a, b = (torch.load(folder / "optimizer.pt", weights_only=True)["optimizer"] for folder in (first, second))
    assert a["param_groups"] == b["param_groups"] and a["state"].keys() == b["state"].keys()
    for number, entries in a["state"].items():
        assert all(torch.equal(value, b["state"][number][name]) for name, value in entries.items())
