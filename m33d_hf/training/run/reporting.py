"""What a run reports: metrics.jsonl, trackers, and a progress line with the remaining time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from accelerate import Accelerator

from m33d_hf.data.clock import clock
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.progress import SECONDS_BETWEEN_LINES
from m33d_hf.errors import CheckpointError
from m33d_hf.training.recipe.arguments import STORED, RunArguments
from m33d_hf.training.recipe.differences import flatten
from m33d_hf.training.run.feeding import BatchFeed
from m33d_hf.training.run.metric_names import eval_name

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CONFIG = STORED
PACKAGES = ("m33d-hf", "torch", "torchvision", "transformers", "accelerate", "safetensors", "numpy")

# Between two progress lines; the first, the last and the evaluations are always printed.
# metrics.jsonl has everything; the printed line has what a reader wants to follow.
UNPRINTED = ("kind", "step", "epoch", "seconds", "data_wait")
DETAILS = ("eval/per_image/", "eval/iou/", "eval/ap/", "eval/clipwise/ap/")

Row = dict[str, Any]


class Reporter:
    """Writes the rows of one run; every rank keeps the history, only the main process writes.

    Rows of metrics.jsonl are {"kind": "train", "step", "epoch", "loss", "loss/<term>", "learning_rate", "grad_norm",
    "samples_per_second", "data_wait"} (means since the last row; data_wait is a share of the time, 0 to 1) and
    {"kind": "eval", "step", "epoch", "eval/<metric>", "seconds"}.

    Args:
        args: of the run.
        accelerator: knows the main process and the trackers.
        total_steps: optimizer steps of the run.
        steps_per_epoch: to turn steps into epochs.
        start_step: steps done before; rows beyond it, left by a killed run, are dropped.
        recorded: the value of `record` when the checkpoint was written from which the run resumes; None if unknown.
        headline: the metrics that the line of an evaluation shows; empty: all that are not of single classes.
    """

    def __init__(
        self,
        args: RunArguments,
        accelerator: Accelerator,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int,
        recorded: Mapping[str, Any] | None = None,
        headline: Sequence[str] = (),
    ) -> None:
        self.accelerator = accelerator
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.start_step = start_step
        self.history: list[Row] = []
        self._recorded = recorded
        self._headline = [eval_name(name) for name in headline]
        self._digest = hashlib.blake2b(digest_size=16)
        self._path = Path(args.output_dir) / METRICS
        self._progress = args.logging.progress and accelerator.is_main_process
        self._trackers = bool(args.logging.trackers)
        self._config = args.to_dict()
        self._task = args.task
        self._started = time.perf_counter()
        self._last_line = 0.0
        self._file: TextIO | None = None

    def __enter__(self) -> Reporter:
        if self._recorded is not None and self.accelerator.is_main_process:
            _compare(self._path, self._recorded)
        self.history = [row for row in read_rows(self._path) if 0 < row["step"] <= self.start_step]
        for row in self.history:
            self._digest.update(_line(row))
        if self._trackers:
            purge = {"tensorboard": {"purge_step": self.start_step + 1}} if self.start_step else {}
            self.accelerator.init_trackers(f"m33d-{self._task}", config=flatten(self._config), init_kwargs=purge)
        if self.accelerator.is_main_process:
            # Replaced at once: a kill between truncating and writing would lose the history.
            write_text_atomically(self._path, b"".join(map(_line, self.history)).decode())
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: object, error: object, _traceback: object) -> None:
        try:
            if self._file is not None:
                self._file.close()
            # Not accelerator.end_training(): it would also dissolve the process group, which later runs may need.
            for tracker in self.accelerator.trackers:
                tracker.finish()
        except OSError as failure:
            # What already went wrong, most likely the same full disk, is told by the error under way.
            if error is None:
                raise self._unwritten(failure) from failure

    def record(self) -> dict[str, Any]:
        """Number and digest of the rows so far; stored in checkpoints and compared when a run resumes."""
        return {"rows": len(self.history), "blake2b": self._digest.hexdigest()}

    def say(self, lines: Sequence[str]) -> None:
        """Print lines on the main process; without progress, only warnings."""
        warns = self.accelerator.is_main_process
        shown = [line for line in lines if self._progress or (warns and line.startswith("WARNING"))]
        if shown:
            print("\n".join(shown), file=sys.stderr, flush=True)

    def leave_out(self, seconds: float) -> None:
        """Seconds that happen once (the first pictures) and say nothing about the remaining time."""
        self._started += seconds

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record a row of `kind` "train" or "eval" after `step` completed updates."""
        row: Row = {"kind": kind, "step": step, "epoch": round(step / self.steps_per_epoch, 4), **values}
        self.history.append(row)
        self._digest.update(_line(row))
        self._write(row)
        if self._trackers:
            self.accelerator.log(dict(values), step=step)
        self._progress_line(kind, row)

    def _write(self, row: Row) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_line(row).decode())
            self._file.flush()
            removed = os.fstat(self._file.fileno()).st_nlink == 0
        except OSError as error:
            raise self._unwritten(error) from error
        if removed:  # writing goes on as if nothing had happened, and nobody ever sees it
            raise CheckpointError(
                f"{self._path} was removed while the run was writing it: another program changes the output folder. "
                "Continue the run."
            )

    def _unwritten(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"Could not write {self._path}: {error}. Checkpoints are intact; free some disk space, then "
            "continue the run."
        )

    def _progress_line(self, kind: str, row: Row) -> None:
        now = time.perf_counter()
        step, first = row["step"], not self._last_line
        if not self._progress:
            return
        if kind == "train" and not first and step < self.total_steps and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        shown = {k: v for k, v in row.items() if k not in UNPRINTED and not k.startswith(DETAILS)}
        if kind == "eval" and self._headline:
            shown = {name: row[name] for name in self._headline if name in row}
        values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        waiting = f"  data wait {row['data_wait']:.0%}" if "data_wait" in row else ""
        per_step = (now - self._started) / max(step - self.start_step, 1)
        eta = clock(per_step * (self.total_steps - step))
        print(f"step {step}/{self.total_steps}  {values}{waiting}  ETA {eta}", file=sys.stderr, flush=True)


class Clock:
    """Seconds of training and of waiting for data since the last row, without evaluations and checkpoints.

    Args:
        feed: counts its `wait_seconds`.
        effective_batch: samples per step over all ranks.
        step: steps done so far.
    """

    def __init__(self, feed: BatchFeed, effective_batch: int, step: int) -> None:
        self._feed = feed
        self._effective_batch = effective_batch
        self.restart(step)

    def restart(self, step: int) -> None:
        """Start counting anew after `step` steps."""
        self._started, self._step = time.perf_counter(), step
        self._feed.wait_seconds = 0.0

    def speed(self, step: int) -> dict[str, float]:
        """Samples per second over all ranks, and the share of the time spent waiting for data."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        samples = (step - self._step) * self._effective_batch
        return {"samples_per_second": samples / seconds, "data_wait": self._feed.wait_seconds / seconds}


def read_rows(path: Path) -> list[Row]:
    """Rows of a metrics.jsonl; a missing file has none, and unreadable lines are left out.

    The last line may have been cut short by a kill; the checkpoint tells whether the others are unchanged.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("kind"), str):
            rows.append(row)
    return rows


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _compare(path: Path, recorded: Mapping[str, Any]) -> None:
    """Say so where the rows before the checkpoint are not those that were written."""
    count = recorded.get("rows")
    lines = path.read_bytes().split(b"\n")[:count] if path.exists() and isinstance(count, int) else []
    found = hashlib.blake2b(b"".join(line + b"\n" for line in lines), digest_size=16).hexdigest()
    if found != recorded.get("blake2b"):
        logger.warning(
            "%s is damaged or was changed: its rows are not those that the run wrote. The readable rows are kept; "
            "weights and later rows are not affected.", path
        )  # fmt: skip


def provenance() -> dict[str, Any]:
    """Versions of Python and of the packages that affect the numbers, and the commit of this package's checkout, if
    any."""
    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {"versions": versions, "commit": _commit()}


def short_commit(commit: str, digits: int) -> str:
    """The first digits of the commit in `provenance`, with the mark of uncommitted changes."""
    number, dash, dirty = commit.partition("-")
    return number[:digits] + dash + dirty


def _commit() -> str | None:
    """Commit of the checkout that tracks this very file, with "-dirty" where it was changed; None elsewhere."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed package may lie inside somebody else's checkout: only tracked files count.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no") else commit
