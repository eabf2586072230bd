"""Scripts of benchmarks/ as modules; what they change of the process is undone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


def benchmark_module(name: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """For a fixture: the module, then the search path and the number of threads as they were."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    path, threads = list(sys.path), torch.get_num_threads()
    yield importlib.import_module(name)
    sys.path[:] = path
    torch.set_num_threads(threads)
