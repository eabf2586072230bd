"""From a run to the Hub."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.errors import HubError
from m33d_hf.hub.folder import OWN, write_folder
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.source import open_source
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
        keep: folder to leave the published files in; it must not exist. None uses a temporary one.
        dry_run: write the files, send nothing.

    Raises:
        HubError: it cannot be published, or the hub did not take it.
        CheckpointError: no complete model.
    """
    source = open_source(folder, options.evaluations)
    with tempfile.TemporaryDirectory(prefix="m33d-publish-") as temporary:
        place = Path(temporary)
        if keep is not None:
            if keep.exists():
                raise HubError(f"{keep} exists already; pass a new folder with --folder.")
            keep.mkdir(parents=True)
            place = keep
        write_folder(source, options, place)
        files, card = _listed(place), (place / "README.md").read_text(encoding="utf-8")
        sent = None if dry_run else _send(place, options, source.kind.words)
    return Published(files, card, source.notes, sent)


def _listed(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def _send(folder: Path, options: PublishOptions, words: str) -> Sent:
    to = Destination(options.repo, private=options.private, revision=options.revision)
    tag = options.tag or content_tag(folder)
    message = f"Publish a model for {words}"
    return send_folder(folder, to, message, replace=OWN, tag=tag, new_tag=options.tag is not None)


def content_tag(folder: Path) -> str:
    """A tag that the same files always get: the first digits of a digest of all of them."""
    state = hashlib.sha256()
    for name, _ in _listed(folder):
        state.update(f"{name}\n{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return f"m33d-{state.hexdigest()[:12]}"


def best_publisher(options: PublishOptions, say: Callable[[str], None]) -> Callable[[Path], None]:
    """For runs: publishes each best checkpoint; a hub that does not take it is said, and the run goes on.

    Args:
        options: of publishing; the card says that no evaluation apart from the run's own is known.
        say: takes lines for the user.
    """

    def run(folder: Path) -> None:
        try:
            done = publish(folder, options)
        except HubError as error:
            say(f"WARNING: the best checkpoint was not published: {error}")
            return
        if done.sent is not None:
            say(f"published {folder.name} as {done.sent.repo}, tag {done.sent.tag}")

    return run
