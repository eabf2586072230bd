"""inference/loading.py: what is said where a model of a hub cannot be kept on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.checkpoints import DEPTH
from helpers.hub_server import Blob, Repo, client_environment, running

_CODE = """
from m33d_hf.errors import M33DError
from m33d_hf.inference.loading import task_of_model
try:
    print(task_of_model("org/rooms-depth"))
except M33DError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="takes a file system in which nobody can make folders")
def test_a_cache_that_cannot_be_written_is_named_with_a_way_out(tmp_path: Path) -> None:
    said = {}
    with running() as hub:
        hub.repos["org/rooms-depth"] = Repo()
        files = {"config.json": Blob((DEPTH / "config.json").read_bytes(), False)}
        hub.repos["org/rooms-depth"].commit(files, "model")
        for home in (str(tmp_path / "cache"), "/sys/cache"):
            environment = client_environment(hub, home, token=None)
            done = subprocess.run(
                [sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=False
            )
            said[home] = done.stdout.strip() or done.stderr
    assert said[str(tmp_path / "cache")] == "depth"
    assert "'org/rooms-depth' cannot be fetched: its files cannot be kept here" in said["/sys/cache"]
    assert "Set HF_HOME to a folder" in said["/sys/cache"] and "no readable config.json" not in said["/sys/cache"]
