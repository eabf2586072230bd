"""The peak of a block is what was allocated in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m33d_hf.experiments.compute import available_cores
from m33d_hf.training.costs import machine
from m33d_hf.training.costs.machine import memory_for_one, resident, usable_cores
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.settling.machine import find_machine

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="resets the kernel's high-water mark")
def test_the_peak_rises_by_what_a_block_holds_and_is_forgotten_afterwards() -> None:
    code = (
        "import torch; from m33d_hf.training.costs.machine import peak_memory, resident\n"
        "before, cpu = resident(), torch.device('cpu')\n"
        "with peak_memory(cpu) as large: torch.ones(100 << 18)\n"  # 100 MiB of float32
        "with peak_memory(cpu) as small: torch.ones(10 << 18)\n"
        "print(large.total - before, large.total - small.total)"
    )
    # In a process of its own: what other tests freed, and the allocator kept, would be taken from instead.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rise, fall = map(int, done.stdout.split())
    assert rise == pytest.approx(100 << 20, rel=0.1)
    assert fall > 50 << 20


def test_a_process_may_have_what_it_has_and_what_is_free() -> None:
    available = memory_for_one(CPU)
    assert available is None or available > resident() > 1 << 20


def test_without_the_modules_of_unix_every_run_script_can_be_imported() -> None:
    """Windows has neither; `None` makes an import fail."""
    code = (
        "import sys, accelerate, psutil, torch, transformers.utils  # which know another system by its name\n"
        "sys.modules |= {'resource': None, 'fcntl': None}\n"
        "from m33d_hf.training.run import loop, dry_run, evaluation_run; from m33d_hf.training.settling import settle\n"
        "from m33d_hf.inference import folder_lock; from m33d_hf.training.processes import guards\n"
        "from m33d_hf.training.costs import machine; from pathlib import Path\n"
        "machine._STATUS = Path('/nowhere/status')\n"
        "print(machine.resident(), machine.resident('VmHWM'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(1 << 24 < int(each) < 1 << 40 for each in done.stdout.split())


def test_both_ways_of_asking_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = resident()
    monkeypatch.setattr(machine, "_STATUS", Path("/nowhere/status"))
    monkeypatch.setattr(machine, "resource", None)
    assert resident() == pytest.approx(stated, rel=0.2)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),  # docker --cpus 2, version 2 of the groups
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "50000 100000"}, 1),  # half a core
        ({"cpu.max": "6400000 50000"}, 64),  # no more than there are
        ({"cpu.cfs_quota_us": "350000\n", "cpu.cfs_period_us": "100000\n"}, 3),  # version 1
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({}, 64),
    ],
)
def test_a_containers_share_of_the_cores_counts(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_QUOTA", str(tmp_path / "cpu.max"))
    monkeypatch.setattr(machine, "_QUOTA_1", str(tmp_path / "cpu.cfs_{}_us"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == cores
    found = find_machine(RunArguments(num_processes=2, cpu=True))  # of several processes none measures
    assert found.cores == 1 << cores.bit_length() - 1
    assert available_cores() == cores
