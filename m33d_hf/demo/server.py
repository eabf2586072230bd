"""The server of the page: on this machine alone unless told otherwise, with bounded uploads that do not stay."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.demo.guarding import STYLE
from m33d_hf.demo.models import Models, find_models
from m33d_hf.demo.page import build_page, need_gradio
from m33d_hf.errors import ConfigError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class PageOptions:
    """How the page is served; the flags of `python -m m33d_hf.demo`.

    Attributes:
        models: folders and Hub ids; empty for what is found below `outputs`.
        outputs: folders that are searched then.
        host: address to listen on; None for this machine alone (on a Space: everywhere).
        port: None for the first free one from 7860.
        max_upload_mb: largest file that is taken.
        keep_seconds: after which uploads and results are deleted.
        device, precision, trust_remote_code: see `PredictionOptions`.
    """

    models: Sequence[str] = ()
    outputs: Sequence[Path] = (Path("outputs"), Path("checkpoints"))
    host: str | None = None
    port: int | None = None
    max_upload_mb: float = 64.0
    keep_seconds: int = 1800
    device: str = "auto"
    precision: str = "no"
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raise a ConfigError for an invalid value."""
        if not 0 < self.max_upload_mb <= 4096:
            raise ConfigError(f"--max_upload_mb {self.max_upload_mb:g} must be above 0 and at most 4096.")
        if self.keep_seconds < 1:
            raise ConfigError(f"--keep_seconds {self.keep_seconds} must be at least 1.")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} must be between 1 and 65535.")


def offered_models(options: PageOptions) -> Models:
    """The models that were named, or else those that are found.

    Raises:
        CheckpointError: a named one cannot be used.
    """
    found = [] if options.models else find_models(options.outputs)
    settings = {name: getattr(options, name) for name in ("device", "precision", "trust_remote_code")}
    return Models.of(options.models, found, **settings)


class Server:
    """A page that is being served; as a context it is shut down at the end, with all files that it held."""

    def __init__(self, options: PageOptions) -> None:
        options.check()
        need_gradio()
        self.models = offered_models(options)
        self.folder = Path(tempfile.mkdtemp(prefix="m33d-page-"))
        self.before = os.environ.get("GRADIO_TEMP_DIR")
        # Uploads and results lie there; gradio reads it when components are made.
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)
        self.page = build_page(self.models, self.folder, options.keep_seconds)
        self.stop = threading.Event()
        on_space = "SPACE_ID" in os.environ
        try:
            _, self.url, _ = self.page.launch(
                server_name=options.host or ("0.0.0.0" if on_space else LOOPBACK),
                server_port=options.port,
                prevent_thread_lock=True,
                share=False,
                show_error=True,
                quiet=True,
                ssr_mode=False,
                max_file_size=int(options.max_upload_mb * 2**20),
                footer_links=[],
                css=STYLE,
            )
        except OSError as error:
            self.close()
            raise ConfigError(f"the page cannot listen there: {error}") from error
        self.keep_seconds = options.keep_seconds
        self.examples = frozenset(self.folder.rglob("*"))  # gradio has copied them there
        threading.Thread(target=self._sweep, daemon=True).start()

    def _sweep(self) -> None:
        """Delete what is old: also uploads that no event has seen, which gradio does not know about."""
        while not self.stop.wait(max(0.5, min(60.0, self.keep_seconds / 2))):
            sweep(self.folder, self.keep_seconds, self.examples)

    def close(self) -> None:
        """Stop serving, and delete every file of visitors."""
        if hasattr(self, "stop"):
            self.stop.set()
        self.page.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.before is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = self.before

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def sweep(folder: Path, keep_seconds: float, spared: Collection[Path] = ()) -> int:
    """Delete files older than that below a folder, and folders that are left empty; returns how many files.

    Args:
        folder: which stays itself.
        keep_seconds: age from which files go.
        spared: files and folders that stay.
    """
    count, now = 0, time.time()
    for path in sorted(set(folder.rglob("*")) - set(spared), reverse=True):
        with suppress(OSError):  # another thread may be faster, a folder in use again
            if path.is_dir():
                path.rmdir()
            elif now - path.stat().st_mtime > keep_seconds:
                path.unlink()
                count += 1
    return count


def serve(options: PageOptions) -> None:
    """Serve until interrupted.

    Raises:
        MissingDependencyError: gradio is not installed. CheckpointError: a named model cannot be used. ConfigError:
        invalid options, or an address that is not free.
    """
    # Whatever ends the page, what visitors dropped goes with it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what shells start in the background
    with Server(options) as server:
        for offer in server.models.offers:
            print(f"  {offer.task:14} {offer.name}")
        if not server.models.offers:
            print("No models were found; the page says how to get some.")
        print(f"The page is at {server.url} (Ctrl+C ends it).", flush=True)
        server.page.block_thread()
