"""A page that is served for a test, and a browser to open it in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.depth_models import save_ours
from helpers.prediction import save_clips, save_phases, save_pretraining, save_segmentation
from helpers.tiny import CLIP

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def save_all(folder: Path) -> Path:
    """A tiny model of every task below a folder."""
    save_ours(folder / "depth")
    save_segmentation(folder / "semseg")
    save_clips(folder / "actions")
    save_phases(folder / "phases")
    save_pretraining(folder / "pretrain")
    save_pretraining(folder / "pretrain-clips", **CLIP)
    return folder


def served(outputs: Path, **options: Any) -> Any:
    """A `Server` of the models below a folder, on the CPU."""
    from m33d_hf.demo.server import PageOptions, Server

    return Server(PageOptions(outputs=(outputs,), device="cpu", **options))


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; a skip that says how to get one where there is none."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium; on Debian and Ubuntu: sudo apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        # Without a sandbox: root has none. Point clouds need WebGL, in software.
        flags = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader"]
        opened = playwright.chromium.launch(executable_path=found, args=flags)
        try:
            yield opened
        finally:
            opened.close()
