"""Draws the micro-batches of each optimizer step, and the batches of evaluations; before each of them all ranks agree
whether to continue."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.files.skips import SkipLedger
from m33d_hf.data.files.text_files import say_once
from m33d_hf.data.loader.workers import stop_workers
from m33d_hf.data.progress import SECONDS_BETWEEN_LINES, Progress, Say
from m33d_hf.errors import DataError
from m33d_hf.training.processes.guards import EvaluationStoppedError, StopSignals
from m33d_hf.training.processes.launch import Ranks
from m33d_hf.training.tasks.base import Batch, to_device


class BatchFeed:
    """This rank's micro-batches, on the device, one optimizer step at a time.

    Args:
        loader: yields micro-batches in the order of a StepSampler; never prepared by Accelerate.
        accumulation: micro-batches per optimizer step.
        device: where the tensors go.
        ranks: the processes.
        stop: signals to act on.
        ledger: unusable files and their budget.
        remember: number of steps whose keys are kept for a non-finite capture.

    Attributes:
        holes: frames of clips that this rank read since it started, and those whose depth is missing or damaged.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        accumulation: int,
        device: torch.device,
        ranks: Ranks,
        stop: StopSignals,
        ledger: SkipLedger,
        remember: int,
    ) -> None:
        self._loader = loader
        self._iterator: Iterator[Batch] | None = None
        self._accumulation = accumulation
        self._device = device
        self._ranks = ranks
        self._stop = stop
        self._ledger = ledger
        self.holes = HoleCount()
        self.recent_keys: deque[tuple[int, list[list[str]]]] = deque(maxlen=remember + 1)
        self.wait_seconds = 0.0

    def draw(self, step: int) -> list[Batch] | None:
        """The micro-batches of update `step`, or None when the run must stop; the same answer on every rank.

        Raises:
            DataError: too many unusable files, or data that another rank could not read.
            Exception: whatever this rank's loader raised.
        """
        started = time.perf_counter()
        batches: list[Batch] = []
        failure: Exception | None = None
        try:
            if self._iterator is None:
                self._iterator = iter(self._loader)
            batches = [next(self._iterator) for _ in range(self._accumulation)]
        except Exception as error:  # raised again below, once the other ranks know
            failure = error
        self._note(step, [batch.get("meta", {}) for batch in batches])
        self.wait_seconds += time.perf_counter() - started
        try:
            flags = [float(self._stop.requested() is not None), float(failure is not None)]
            stopping, failing, bad, seen = self._ranks.sums([*flags, self._ledger.bad, self._ledger.seen])
            if stopping:
                self._stop.join()
                return None
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame: a cycle, which would keep the run and its group alive
        if failing:
            raise DataError("Another process of this run could not read its data; its error message names the file.")
        self._ledger.check(int(bad), int(seen))
        return [to_device(batch, self._device) for batch in batches]

    def close(self) -> None:
        """End the loader's workers."""
        stop_workers(self._loader)

    def _note(self, step: int, metas: list[dict[str, Any]]) -> None:
        self.recent_keys.append((step, [list(meta.get("keys", [])) for meta in metas]))
        for meta in metas:
            self._ledger.record(meta)
            self.holes.merge(meta.get("hole_count", HoleCount()))


@dataclass(frozen=True)
class Interruption:
    """Whether an evaluation goes on, which the ranks decide together before every batch.

    Attributes:
        stop: signals to act on.
        ranks: the processes.
        rounds: batches of the rank that has most.
    """

    stop: StopSignals
    ranks: Ranks
    rounds: int

    def ask(self) -> None:
        """Collective.

        Raises:
            EvaluationStoppedError: on every rank, where one has received a signal.
        """
        if self.ranks.sums([float(self.stop.requested() is not None)])[0]:
            self.stop.join()
            raise EvaluationStoppedError


class EvaluationFeed:
    """The evaluation loader; records the unusable files of its batches.

    Args:
        loader: this rank's share of the evaluation data.
        ledger: its unusable files and their budget.
        batches: how many there are.
        say: receives lines of progress; None says nothing.
        interruption: asked before every batch; None asks nothing. Whoever iterates then reads all batches.

    Attributes:
        holes: of the last evaluation, as that of `BatchFeed`.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        ledger: SkipLedger,
        batches: int = 0,
        say: Say | None = None,
        interruption: Interruption | None = None,
    ) -> None:
        self.interruption = interruption
        self.loader = loader
        self.ledger = ledger
        self.holes = HoleCount()
        self.batches = batches
        self.say = say

    def __iter__(self) -> Iterator[Batch]:
        progress = None
        self.holes = HoleCount()
        if self.say is not None:
            progress = Progress(self.batches, SECONDS_BETWEEN_LINES, self.say, "batches", "evaluation")
        asked = 0
        for batch in self.loader:
            if self.interruption is not None:
                self.interruption.ask()
                asked += 1
            meta = batch.get("meta", {})
            self.ledger.record(meta)
            self.holes.merge(meta.get("hole_count", HoleCount()))
            yield batch
            if progress is not None:
                progress.done += 1
                progress.report()
        if self.interruption is not None:
            for _ in range(asked, self.interruption.rounds):  # others have a batch more, and ask before it
                self.interruption.ask()

    def close(self) -> None:
        """End the loader's workers."""
        stop_workers(self.loader)

    def check(self, ranks: Ranks) -> None:
        """Check the budget of unusable files of the evaluation, on all ranks alike, and tell of missing depth.

        Raises:
            DataError: too many of them.
        """
        if words := self.holes.words():
            say_once(f"evaluation: {words}")
        bad, seen = ranks.sums([self.ledger.bad, self.ledger.seen])
        self.ledger.check(int(bad), int(seen))
