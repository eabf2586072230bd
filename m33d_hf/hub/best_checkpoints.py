"""Publishing each best checkpoint of a run: beside the run, so that no hub can hold it up or end it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from m33d_hf.data.files.markers import listed_digests
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CorruptFileError, M33DError, type_and_text
from m33d_hf.hub.lineage import choose_licence
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.publishing import destination, send, write
from m33d_hf.modeling.hub_upload_m33d import prepare_repository
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import find_checkpoints
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.settling.lineage import lineage_at_start

RECORD = "published.json"  # in the output folder of a run
_AGAIN = "The run goes on; the next best checkpoint is published, or this one is tried once more at the end."


@dataclass
class _Written:
    """A folder that is ready to be sent.

    Attributes:
        place: temporary; it is removed once it was sent or is of no use any more.
        words: what the model is for.
        name: of the checkpoint, for the user.
        digests: of its weight files, by name.
    """

    place: Path
    words: str
    name: str
    digests: Mapping[str, str]

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.place, ignore_errors=True)


class BestPublisher:
    """What `train` calls with the folder of each new best checkpoint, and with that of a run that goes on.

    The folder is written at once, since the next best checkpoint replaces it; it is sent by a thread. Whatever goes
    wrong is said and never raised. Only the newest folder waits for its turn: an older one has no use any more. As a
    context it waits for the upload at the end, tries a failed one once more, and says how to publish what is missing.

    Args:
        options: of publishing.
        say: takes lines for the user.
        pause: see `send_folder`.
        record: file that keeps which weights were sent last; these are not sent again, and a run that was stopped
            before it sent its best ones makes up for it when it goes on. None keeps nothing.
    """

    def __init__(
        self, options: PublishOptions, say: Callable[[str], None], pause: float = 1.0, record: Path | None = None
    ) -> None:
        self.options, self.say, self.pause, self.record = options, say, pause, record
        self.wait_at_the_end = True
        self._lock = threading.Lock()
        self._waiting: _Written | None = None
        self._sending: _Written | None = None
        self._failed: _Written | None = None
        self._over = False
        self._missing: tuple[str, str] | None = None  # (checkpoint, why) of the newest one that is not on the hub
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None

    def __call__(self, folder: Path) -> None:
        """Publish the checkpoint in `folder`; returns once a copy of it is ready to be sent."""
        if self._is_sent(folder):
            return
        why = self._take(folder)
        if why is not None:
            self.say(f"WARNING: {_name_of(folder)} was not published: {why} {_AGAIN}")

    def __enter__(self) -> BestPublisher:
        disable_progress_bars()  # of uploads, in the middle of the run's lines
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the upload and make up for a failed one, unless the run was stopped or has failed."""
        try:
            if kind is None and self.wait_at_the_end:
                self._finish()
        except KeyboardInterrupt:
            self.say("interrupted; the run itself is complete")
        finally:
            enable_progress_bars()
            self._leave()

    def _take(self, folder: Path) -> str | None:
        """Write what is to be sent, and have it sent; returns why that could not be done."""
        self._folder, name = folder, _name_of(folder)
        place: Path | None = None
        try:
            place = Path(tempfile.mkdtemp(prefix="m33d-publish-"))  # fails, too, where the disk is full
            source = write(folder, self.options, place)
        except Exception as error:  # of whatever kind: a run of days must not end by it
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
            self._missing = (name, _said(error))
            return _said(error)
        with self._lock:
            self._missing = (name, "its upload was not finished")
            self._discard()
            self._waiting = _Written(place, source.kind.words, name, source.digests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="publish", daemon=True)
                self._thread.start()
        return None

    def _send_all(self) -> None:
        """In the thread: send what waits, until nothing does."""
        while True:
            with self._lock:
                self._sending = written = self._waiting
                self._waiting = None
                if written is None:
                    self._thread = None
                    return
            why = self._send(written)
            if why is not None and not self._over:
                self.say(f"WARNING: {written.name} was not published: {why} {_AGAIN}")

    def _send(self, written: _Written) -> str | None:
        """Send one folder; returns why that could not be done."""
        try:
            sent = send(written.place, self.options, written.words, self.pause)
        except Exception as error:  # likewise
            with self._lock:
                newest = self._waiting is None and not self._over
                if newest:
                    self._failed, self._missing = written, (written.name, _said(error))
            if not newest:
                written.remove()
            return _said(error)
        with self._lock:
            if self._waiting is None:
                self._missing = None
        written.remove()
        self.say(f"published {written.name} as {sent.repo}, tag {sent.tag}")
        self._note(written)
        return None

    def _is_sent(self, folder: Path) -> bool:
        """Whether the weights in a folder are those that were sent last, to this repository."""
        if self.record is None or not self.record.is_file():
            return False
        try:
            noted, files = read_sealed_json(self.record), listed_digests(folder)
        except CorruptFileError:
            return False  # sent once more, which changes nothing on the hub
        weights = {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
        return noted == {"repo": self.options.repo, "weights": weights}

    def _note(self, written: _Written) -> None:
        """Remember what was sent."""
        if self.record is None:
            return
        try:
            write_sealed_json(self.record, {"repo": self.options.repo, "weights": dict(written.digests)})
        except OSError as error:
            self.say(f"WARNING: {self.record} cannot be written ({error}): a resumed run sends {written.name} again.")

    def _finish(self) -> None:
        self._wait(f"waiting for the upload to {self.options.repo} (Ctrl+C leaves it; the run is complete)")
        failed, self._failed = self._failed, None
        if failed is not None:
            self.say(f"publishing {failed.name} once more")
            self._send(failed)
        elif self._missing is not None and self._folder is not None:  # it could not even be written
            self.say(f"publishing {self._missing[0]} once more")
            self._take(self._folder)
            self._wait()

    def _wait(self, words: str | None = None) -> None:
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        if words is not None:
            self.say(words)
        while thread.is_alive():
            thread.join(0.2)  # a join without end would not hear of Ctrl+C

    def _discard(self) -> None:
        """Remove folders that are not being sent; with the lock held."""
        for left in (self._waiting, self._failed):
            if left is not None:
                left.remove()
        self._waiting = self._failed = None

    def _leave(self) -> None:
        """Say what is not on the hub, and leave no folders behind."""
        with self._lock:
            self._over = True
            self._discard()
            if self._sending is not None:
                self._sending.remove()
            missing = self._missing
        if missing is not None:
            self.say(
                f"WARNING: {missing[0]}, the best checkpoint of the run, is not on the Hub ({missing[1].rstrip('.')}). "
                f"Publish it later:\n  {self._command()}"
            )

    def _command(self) -> str:
        words = ["python", "scripts/publish.py", str(self._folder), self.options.repo, "--allow_unevaluated"]
        words += ["--license", self.options.licence] if self.options.licence else []
        return shlex.join([*words, *(["--private"] if self.options.private else [])])


def _name_of(folder: Path) -> str:
    """A checkpoint's folder with its step: the folder is always the same one."""
    try:
        return f"{folder} (step {read_state(folder)['step']})"
    except (M33DError, KeyError):
        return str(folder)


def _said(error: Exception) -> str:
    """The message of an error; of those that are not ours also what they are."""
    words = str(error) if isinstance(error, M33DError) else type_and_text(error)
    return words.rstrip(".") + "."


def publisher_of_run(args: RunArguments) -> BestPublisher:
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
        resumed = next(iter(find_checkpoints(args.resume, args.output_dir)), None)
        choose_licence(lineage_at_start(args, resumed), options.licence)
        prepare_repository(destination(options))
    return BestPublisher(
        options, lambda line: print(line, file=sys.stderr, flush=True), record=Path(args.output_dir) / RECORD
    )
