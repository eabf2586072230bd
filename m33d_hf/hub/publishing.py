"""From a run to the Hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from m33d_hf.errors import HubError, M33DError
from m33d_hf.hub.folder import OWN, write_folder
from m33d_hf.hub.lineage import choose_licence, trace
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.source import open_source
from m33d_hf.modeling.hub_upload_m33d import Destination, Sent, prepare_repository, send_folder
from m33d_hf.training.recipe.arguments import RunArguments


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
        keep: folder to leave the published files in; it must not exist. None uses a temporary one.
        dry_run: write the files, send nothing.

    Raises:
        HubError: it cannot be published, or the hub did not take it.
        CheckpointError: no complete model.
    """
    source = open_source(folder, options.evaluations)
    if keep is not None and keep.exists():
        raise HubError(f"{keep} exists already; pass a new folder with --folder.")
    with tempfile.TemporaryDirectory(prefix="m33d-publish-") as temporary:
        place = Path(temporary)
        with _without_bars():
            write_folder(source, options, place)
        files, card = _listed(place), (place / "README.md").read_text(encoding="utf-8")
        if keep is not None:
            shutil.copytree(place, keep)
        sent = None if dry_run else _send(place, options, source.kind.words)
    return Published(files, card, source.notes, sent)


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bars for reading and writing one file."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _listed(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def _send(folder: Path, options: PublishOptions, words: str) -> Sent:
    tag = options.tag or content_tag(folder)
    message = f"Publish a model for {words}"
    to = _destination(options)
    return send_folder(folder, to, message, replace=OWN, tag=tag, new_tag=options.tag is not None)


def _destination(options: PublishOptions) -> Destination:
    return Destination(options.repo, private=options.private, revision=options.revision)


def content_tag(folder: Path) -> str:
    """A tag that the same files always get: the first digits of a digest of all of them."""
    state = hashlib.sha256()
    for name, _ in _listed(folder):
        state.update(f"{name}\n{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return f"m33d-{state.hexdigest()[:12]}"


def publisher_of_run(args: RunArguments) -> Callable[[Path], None]:
    """What `train` calls with each best checkpoint of a run whose `hub.push` is set.

    The licence and the repository are seen to at once, on the main process: a run of days must not find out at its end
    that it may not publish. A hub that later does not take a checkpoint is reported, and the run goes on.

    Raises:
        HubError: the licence has to be stated, or the hub does not let us create the repository or write to it.
        ConfigError: hub.repo is no ORG/NAME.
    """
    options = PublishOptions(
        repo=str(args.hub.repo), allow_unevaluated=True, licence=args.hub.license, private=args.hub.private or None
    )
    if int(os.environ.get("RANK", "0")) == 0:
        choose_licence(trace(args.to_dict()), options.licence)
        prepare_repository(_destination(options))
    return best_publisher(options, lambda line: print(line, file=sys.stderr, flush=True))


def best_publisher(options: PublishOptions, say: Callable[[str], None]) -> Callable[[Path], None]:
    """A function that publishes the checkpoint in a folder; where that fails it says so and the run goes on.

    Args:
        options: of publishing.
        say: takes lines for the user.
    """

    def run(folder: Path) -> None:
        disable_progress_bars()  # of the upload, in the middle of the run's lines
        try:
            done = publish(folder, options)
        except M33DError as error:
            say(f"WARNING: {folder} was not published: {error}")
            return
        finally:
            enable_progress_bars()
        if done.sent is not None:
            say(f"published {folder} as {done.sent.repo}, tag {done.sent.tag}")

    return run
