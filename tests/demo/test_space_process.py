"""A Space as the Hub starts it: its files run as `python app.py` in a process of its own, with a model from a hub."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

from helpers.checkpoints import DEPTH
from helpers.hub_server import Blob, Hub, Repo, client_environment, running
from helpers.pages import browser
from m33d_hf.demo import examples
from m33d_hf.demo.space import write_space

pytestmark = pytest.mark.demo
_MODEL, _SPACE = "org/rooms-depth", "org/rooms-page"
_PATIENCE = 180  # seconds until it answers; it imports torch and fetches the model


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _started(hub: Hub, tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[str]]]:
    """The app in a folder, with the variables that the Hub sets: its address, temporary files and process."""
    app, temporary, port = tmp_path / "app", tmp_path / "tmp", _free_port()
    temporary.mkdir()
    write_space(app, _MODEL)
    environment = client_environment(hub, str(tmp_path / "cache"), token=None)
    environment |= {"SPACE_ID": _SPACE, "SYSTEM": "spaces", "SPACE_HOST": "org-rooms-page.hf.space"}
    environment |= {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary)}
    environment |= {"HOME": str(tmp_path / "nobody"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=app, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait_for(address, process, tmp_path / "log")
            yield address, temporary, process
        finally:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (URLError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"the Space does not answer:\n{log.read_text()}")


def test_a_space_is_used_and_ended(tmp_path: Path) -> None:
    wrong = tmp_path / "notes.png"
    wrong.write_text("not a picture")
    with running() as hub:
        files = {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in DEPTH.iterdir()}
        hub.repos[_MODEL] = Repo()
        hub.repos[_MODEL].commit(files, "model")
        hub.blobs |= {blob.oid: blob.content for blob in files.values() if blob.lfs}
        with _started(hub, tmp_path) as (address, temporary, process), browser() as opened:
            page = opened.new_page()
            page.goto(address)
            upload = page.locator("[role=tabpanel]:visible input[type=file]").first
            upload.set_input_files(str(examples.pictures()[0]))
            page.locator("#depth_picture img").wait_for()
            page.locator("#depth_picture img").click(position={"x": 60, "y": 60})
            page.get_by_text(re.compile(r"\d\.\d\d m from the camera plane")).wait_for()
            page.get_by_role("button", name="Remove Image").first.click()
            upload.set_input_files(str(wrong))
            page.get_by_text("notes.png cannot be used as a picture").first.wait_for()
            page.close()
            assert list(temporary.glob("m33d-page-*"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            assert not list(temporary.glob("m33d-page-*")), os.listdir(temporary)
        assert not hub.unknown
