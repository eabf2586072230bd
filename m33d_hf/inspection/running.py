"""Measures a split in chunks, by several processes; a chunk's result is a file, so that a killed check continues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.loader.workers import start_worker, worker_context
from m33d_hf.data.measuring.samples import measure
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.progress import SECONDS_BETWEEN_LINES, Progress, Say
from m33d_hf.errors import WorkerLostError
from m33d_hf.inspection.splits import Split

PARTIAL = "partial"
_REQUEST = "request.json"


def measure_split(split: Split, output: Path, workers: int, say: Say) -> SplitTally:
    """Measure every sample of a split that is to be looked at.

    Results of an earlier check of the same samples that was interrupted are taken from `output`/partial. They are
    merged in order, so that neither an interruption nor the number of processes changes the outcome.

    Raises:
        WorkerLostError: a worker was killed; what is measured is kept.
    """
    folder = output / PARTIAL / split.name
    _take_over(folder, split.fingerprint())
    pending = [number for number in range(split.num_chunks) if not _file(folder, number).is_file()]
    done = split.num_chunks - len(pending)
    if done and pending:
        say(f"{split.name}: {done} of {split.num_chunks} parts are there from an earlier check; continuing")
    progress = Progress(len(split.rows), SECONDS_BETWEEN_LINES, say, "samples", split.name)
    progress.already(len(split.rows) - sum(len(split.places(number)) for number in pending))
    for number, text in _results(split, pending, workers):
        write_text_atomically(_file(folder, number), text)
        progress.done += len(split.places(number))
        if progress.done < progress.total:
            progress.report()
    tally = SplitTally()
    for number in range(split.num_chunks):
        tally.merge(SplitTally.from_dict(json.loads(_file(folder, number).read_text(encoding="utf-8"))))
    return tally


def forget_partial(output: Path) -> None:
    """Remove the partial results of a finished check: the next one looks at the files anew."""
    shutil.rmtree(output / PARTIAL, ignore_errors=True)


def measure_chunk(split: Split, number: int) -> str:
    """One chunk's tally, as JSON in ASCII: names of files need not be Unicode."""
    tally = SplitTally()
    for row, looks in split.chunk(number):
        measure(split.source, row, looks, tally)
    return json.dumps(tally.to_dict())


def _take_over(folder: Path, fingerprint: str) -> None:
    """Keep partial results of the same request, remove others."""
    request = folder / _REQUEST
    known = json.loads(request.read_text(encoding="utf-8")) if request.is_file() else None
    if known != fingerprint:
        shutil.rmtree(folder, ignore_errors=True)
        write_text_atomically(request, json.dumps(fingerprint))


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _results(split: Split, pending: list[int], workers: int) -> Iterator[tuple[int, str]]:
    if workers < 2 or len(pending) < 2:
        yield from ((number, measure_chunk(split, number)) for number in pending)
        return
    with ExitStack() as stack:
        pool = ProcessPoolExecutor(
            min(workers, len(pending)), mp_context=worker_context(None), initializer=_start, initargs=(split,)
        )
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting = iter(pending)
        running: dict[Future[str], int] = {}
        try:
            # No more than a few at once: what is finished must not wait in memory.
            running.update((pool.submit(_measure, number), number) for number in islice(waiting, 2 * workers))
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
                    running.update((pool.submit(_measure, number), number) for number in islice(waiting, 1))
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "A worker process was killed, most likely because the machine ran out of memory. What it had finished "
                "is kept: run the same command with fewer --workers to continue."
            ) from error


_SPLIT: list[Split] = []  # of a worker process, which measures one


def _start(split: Split) -> None:
    start_worker(0)
    _SPLIT[:] = [split]


def _measure(number: int) -> str:
    return measure_chunk(_SPLIT[0], number)
