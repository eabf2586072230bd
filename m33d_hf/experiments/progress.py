"""Progress of a long grid of runs: the share done, what is running, and the remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from m33d_hf.experiments.jobs import DONE, Job
from m33d_hf.visualization.document import clock


class ProgressLine:
    """Prints a line per finished job and, in between, a line with the share done and the expected end.

    Args:
        jobs: everything that will run; `cost` weighs them.
        fraction: share (0 to 1) of a running job that is done; None where unknown.
        stream: where to print.
        every: seconds between two lines while nothing finishes.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: int,
        fraction: Callable[[Job], float] | None = None,
        stream: TextIO | None = None,
        every: float = 15.0,
    ) -> None:
        self.jobs, self.workers, self.stream, self.every = list(jobs), workers, stream or sys.stdout, every
        self.fraction = fraction or (lambda job: 0.0)
        self.started = time.monotonic()
        self._told: set[str] = set()
        self._last_line = 0.0

    def __call__(self, rows: Mapping[str, dict[str, Any]], running: Sequence[Job]) -> None:
        """Print what is new; cheap to call often."""
        news = [job for job in self.jobs if job.id in rows and job.id not in self._told]
        for job in news:
            self._told.add(job.id)
            row = rows[job.id]
            if row["status"] == DONE:
                state = "kept" if row.get("reused") else f"done in {clock(row['wall_seconds'])}"
                note = row.get("headline", "")
                self._print(f"  {job.label or job.id}: {state}{'; ' + note if note else ''}")
            else:
                self._print(f"  {job.label or job.id}: {row['status'].upper()}: {row['error']}")
        now = time.monotonic()
        if running and (news or now - self._last_line >= self.every):
            self._last_line = now
            self._print(self.line(rows, running))

    def line(self, rows: Mapping[str, dict[str, Any]], running: Sequence[Job]) -> str:
        """One line: time, share, expected time left, what is running."""
        elapsed = time.monotonic() - self.started
        share, left = self.estimate(rows, running, elapsed)
        names = ", ".join(f"{job.label or job.id} {100 * self.fraction(job):.0f}%" for job in running)
        return f"[{clock(elapsed)}] {100 * share:3.0f}% done, about {clock(left)} left | {names}"

    def estimate(
        self, rows: Mapping[str, dict[str, Any]], running: Sequence[Job], elapsed: float
    ) -> tuple[float, float]:
        """(share done, seconds left). Before anything is measured the costs themselves are believed."""
        fresh = [job for job in self.jobs if not rows.get(job.id, {}).get("reused")]
        total = sum(job.cost for job in fresh) or 1.0
        done = sum(job.cost for job in fresh if job.id in rows)
        done += sum(job.cost * min(1.0, self.fraction(job)) for job in running)
        rate = done / elapsed if elapsed > 0 else 0.0
        # A few seconds of measurement say little: mix with the assumption that costs are seconds on one core.
        trust = min(1.0, done / (0.1 * total))
        rate = trust * rate + (1 - trust) * self.workers
        return done / total, (total - done) / rate

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)
