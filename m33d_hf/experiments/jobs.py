"""Many small runs with dependencies, in parallel one-thread processes that import torch once.

A job names a function by its dotted path, so that a freshly spawned worker can find it, and JSON parameters.
What the function returns is kept as `<folder>/<id>.json`; a second run finds it there and does not repeat the
work. A failed job is a result too: its error is kept, jobs that need it are blocked, everything else goes on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import ConfigError, CorruptFileError, type_and_text
from m33d_hf.experiments.report.results import DONE

FAILED, BLOCKED = "failed", "blocked"
_NAMED = 6  # rows in one line


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes:
        id: unique, also a file name.
        function: "package.module:name" of a function that takes `parameters` and returns a JSON dict.
        parameters: JSON values; they and `function` decide whether a finished row may be reused.
        needs: ids of jobs that must be done before.
        cost: expected seconds on one core; only the progress line uses it.
        label: what the progress line says; the id where empty.
        known_as: fingerprint of the same job where its folder was begun; empty = there.
    """

    id: str
    function: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    label: str = ""
    known_as: str = ""

    def fingerprint(self) -> str:
        """Digest of what the job does: a row on disk with another one is out of date."""
        if self.known_as:
            return self.known_as
        text = json.dumps([self.function, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


Progress = Callable[[Mapping[str, dict[str, Any]], Sequence[Job]], None]


def check_jobs(jobs: Sequence[Job]) -> None:
    """Refuse duplicate ids, unknown dependencies and circles.

    Raises:
        ConfigError: the jobs cannot be ordered.
    """
    by_id = {job.id: job for job in jobs}
    if len(by_id) != len(jobs):
        doubled = sorted({job.id for job in jobs if sum(other.id == job.id for other in jobs) > 1})
        raise ConfigError(f"two jobs share the id {', '.join(doubled)}, but ids must be unique.")
    for job in jobs:
        for need in job.needs:
            if need not in by_id:
                raise ConfigError(f"job {job.id!r} needs {need!r}, but there is no such job.")
    open_ids = dict(by_id)
    while open_ids:
        ready = [job.id for job in open_ids.values() if not any(need in open_ids for need in job.needs)]
        if not ready:
            raise ConfigError(f"the jobs {', '.join(sorted(open_ids))} wait for each other in a circle.")
        for name in ready:
            del open_ids[name]


def row_path(folder: Path, job_id: str) -> Path:
    """Where the row of a job is kept."""
    return folder / f"{job_id}.json"


def _finished_row(folder: Path, job_id: str) -> dict[str, Any] | None:
    """The row of a job that is done, of whatever settings, or None; failed rows are tried again."""
    path = row_path(folder, job_id)
    if not path.exists():
        return None
    try:
        row = read_sealed_json(path)
    except CorruptFileError as error:
        print(f"{error}; the job is repeated", file=sys.stderr, flush=True)
        return None
    seconds = row.get("wall_seconds")
    whole = isinstance(seconds, int | float) and math.isfinite(seconds)
    return row if row.get("status") == DONE and whole else None


def stored_row(folder: Path, job: Job) -> dict[str, Any] | None:
    """The finished row of the same job, or None."""
    row = _finished_row(folder, job.id)
    return row if row is not None and row.get("fingerprint") == job.fingerprint() else None


def reusable_rows(folder: Path, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """The finished rows of the same jobs, each made from others that are; says which finished ones are not among them.

    Args:
        folder: of the rows.
        jobs: in an order in which needs come first.
    """
    rows: dict[str, dict[str, Any]] = {}
    changed, following = [], []
    for job in jobs:
        row = _finished_row(folder, job.id)
        if row is None:
            continue
        if row.get("fingerprint") != job.fingerprint():
            changed.append(job.id)
        # A row is only as good as what it was made from.
        elif not all(need in rows for need in job.needs):
            following.append(job.id)
        else:
            rows[job.id] = {**row, "reused": True}
    reasons = (("their settings are other ones", changed), ("what they were made from is run again", following))
    for reason, names in reasons:
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            listed = f"{', '.join(names[:_NAMED])}{more}"
            print(f"finished rows that are run again, since {reason}: {len(names)} ({listed})", flush=True)
    return rows


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send stdout and stderr of this process, also of native code, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)


def _run_in_worker(job: Job, log: str) -> dict[str, Any]:
    """Run one job; an exception becomes the row of a failed job, because pickling it could fail as well."""
    started, spent = time.time(), time.process_time()
    with _output_to(Path(log)):
        try:
            module, name = job.function.split(":")
            content = getattr(importlib.import_module(module), name)(**job.parameters)
            json.dumps(content)
            row = {"status": DONE, **content}
        except Exception as error:
            traceback.print_exc()
            message = type_and_text(error)
            row = {"status": FAILED, "error": message, "traceback": traceback.format_exc()}
    row |= {"started": started, "wall_seconds": time.time() - started, "cpu_seconds": time.process_time() - spent}
    return {"id": job.id, "fingerprint": job.fingerprint(), "log": log, **row}


class Runner:
    """Runs jobs as their needs are met and keeps one row per job.

    Args:
        folder: rows are kept here as `<id>.json`, what a job prints as `<id>.log`.
        workers: processes at a time, >= 1.
        progress: called about every `interval` seconds with the rows so far and the running jobs.
        start_worker: called once in every worker process with the number of this one; a function of a module, so that
            it can be pickled.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        progress: Progress | None = None,
        start_worker: Callable[[int], None] | None = None,
        interval: float = 5.0,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, not {workers}.")
        self.folder, self.workers, self.interval = folder, workers, interval
        self.progress = progress or (lambda rows, running: None)
        self.start_worker = start_worker
        self._retried: set[str] = set()

    def run(self, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
        """Run everything that is not finished; return a row per job id, in the order of `jobs`.

        Raises:
            ConfigError: the jobs cannot be ordered.
        """
        check_jobs(jobs)
        rows = reusable_rows(self.folder, jobs)
        for job in jobs:
            if job.id not in rows:
                row_path(self.folder, job.id).unlink(missing_ok=True)
                (self.folder / f"{job.id}.log").unlink(missing_ok=True)
        waiting = [job for job in jobs if job.id not in rows]
        self.progress(rows, [])
        while waiting:  # a second time only after a worker was killed
            waiting = self._run_pool(waiting, rows)
        return {job.id: rows[job.id] for job in jobs}

    def _run_pool(self, waiting: list[Job], rows: dict[str, dict[str, Any]]) -> list[Job]:
        """Work with one pool until all is done or the pool breaks; return what is left."""
        running: dict[Future[dict[str, Any]], Job] = {}
        context = multiprocessing.get_context("spawn")
        start = None if self.start_worker is None else functools.partial(self.start_worker, os.getpid())
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=start)
        try:
            while waiting or running:
                waiting = self._block(waiting, rows)
                for job in [job for job in waiting if all(need in rows for need in job.needs)]:
                    # Only as many as there are workers: a broken pool then loses nothing that still waits.
                    if len(running) < self.workers:
                        log = str(self.folder / f"{job.id}.log")
                        running[pool.submit(_run_in_worker, job, log)] = job
                        waiting.remove(job)
                self.progress(rows, list(running.values()))
                if not running:
                    continue
                finished, _ = wait(running, timeout=self.interval, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._keep(running[future], future.result(), rows)
                    del running[future]
        except BrokenProcessPool:
            return self._after_break(list(running.values()), rows) + waiting
        except BaseException:
            # Interrupted: the training loop in a worker takes SIGTERM as "save and stop".
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        self.progress(rows, [])
        return []

    def _keep(self, job: Job, row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
        write_sealed_json(row_path(self.folder, job.id), row)
        rows[job.id] = row

    def _block(self, waiting: list[Job], rows: dict[str, dict[str, Any]]) -> list[Job]:
        """Give a row to every job whose needs can no longer be met; return the others."""
        left = []
        for job in waiting:
            missing = [need for need in job.needs if need in rows and rows[need]["status"] != DONE]
            if missing:
                error = f"not run because {', '.join(missing)} did not finish"
                row = {"id": job.id, "fingerprint": job.fingerprint(), "status": BLOCKED, "error": error}
                self._keep(job, {**row, "wall_seconds": 0.0}, rows)
            else:
                left.append(job)
        return left

    def _after_break(self, lost: list[Job], rows: dict[str, dict[str, Any]]) -> list[Job]:
        """A worker was killed (out of memory, most likely): try what was running once more, then give up."""
        again = []
        for job in lost:
            if job.id in self._retried:
                error = "its worker process was killed twice, probably because the machine ran out of memory"
                row = {"id": job.id, "fingerprint": job.fingerprint(), "status": FAILED, "error": error}
                self._keep(job, {**row, "wall_seconds": 0.0}, rows)
            else:
                self._retried.add(job.id)
                again.append(job)
        return again
