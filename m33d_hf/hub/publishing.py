"""From a run to the Hub."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from m33d_hf.errors import HubError
from m33d_hf.hub.folder import OWN, write_folder
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.source import Source, open_source
from m33d_hf.modeling.hub_upload_m33d import Destination, Sent, send_folder


@dataclass(frozen=True)
class Published:
    """What was published, or would be.

    Attributes:
        files: (name, bytes), sorted.
        card: text of README.md.
        notes: for the user.
        sent: None after a dry run.
    """

    files: list[tuple[str, int]]
    card: str
    notes: list[str]
    sent: Sent | None


def publish(folder: str | Path, options: PublishOptions, keep: Path | None = None, dry_run: bool = False) -> Published:
    """Publish a run in one commit and one tag.

    Args:
        folder: output folder of a run, a checkpoint in one, or a saved model.
        options: of publishing.
        keep: folder to leave the published files in; it must not exist, or hold them already, as a dry run or a call
            that the hub did not answer leaves it. None uses a temporary one.
        dry_run: write the files, send nothing.

    Raises:
        HubError: it cannot be published, or the hub did not take it.
        CheckpointError: no complete model.
    """
    with tempfile.TemporaryDirectory(prefix="m33d-publish-") as temporary:
        place = Path(temporary)
        source = write(folder, options, place)
        files, card = _listed(place), (place / "README.md").read_text(encoding="utf-8")
        if keep is not None and not keep.exists():
            shutil.copytree(place, keep)
        elif keep is not None and content_tag(keep) != content_tag(place):
            raise HubError(f"{keep} exists already, and holds other files; pass a new folder with --folder.")
        sent = None if dry_run else send(place, options, source.kind.words)
    return Published(files, card, source.notes, sent)


def write(folder: str | Path, options: PublishOptions, place: Path) -> Source:
    """Write all that is published of a run into the empty folder `place`; returns what is known of the run.

    Raises:
        HubError, CheckpointError: as `publish`.
    """
    source = open_source(folder, options.evaluations)
    with _without_bars():
        write_folder(source, options, place)
    return source


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bars for reading and writing one file; those of uploads are as before, which transformers switches along."""
    shown, uploads_shown = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
        (enable_progress_bars if uploads_shown else disable_progress_bars)()


def _listed(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def send(folder: Path, options: PublishOptions, words: str, pause: float = 1.0) -> Sent:
    """Send what `write` has written, in one commit and one tag.

    Args:
        folder: everything in it.
        options: of publishing.
        words: what the model is for; see `Kind.words`.
        pause: see `send_folder`.

    Raises:
        HubError: the hub did not take it.
    """
    tag = options.tag or content_tag(folder)
    message = f"Publish a model for {words}"
    to = destination(options)
    return send_folder(folder, to, message, replace=OWN, tag=tag, new_tag=options.tag is not None, pause=pause)


def destination(options: PublishOptions) -> Destination:
    """Where it goes."""
    return Destination(options.repo, private=options.private, revision=options.revision)


def content_tag(folder: Path) -> str:
    """A tag that the same files always get: the first digits of a digest of all of them."""
    state = hashlib.sha256()
    for name, _ in _listed(folder):
        state.update(f"{name}\n{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return f"m33d-{state.hexdigest()[:12]}"
