"""Progress of long work: how much is done, how long it took, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from m33d_hf.data.clock import clock

SECONDS_BETWEEN_LINES = 5.0

Say = Callable[[str], None]


def tell(line: str) -> None:
    """Print a line on stderr, where runs print their progress."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Says every few seconds how far the work is.

    Args:
        total: units of work.
        seconds: between two lines.
        say: receives them.
        unit: what is counted.
        work: begins the line, such as "features"; nothing where it is empty.
    """

    def __init__(self, total: int, seconds: float, say: Say, unit: str = "inputs", work: str = "") -> None:
        self.total, self.seconds, self.say, self.unit, self.work = total, seconds, say, unit, work
        self.done = 0.0  # the part of a running video included
        self.resumed = 0.0  # the part of `done` that earlier runs did
        self.started = self.reported = time.monotonic()

    def already(self, amount: float = 1.0) -> None:
        """What an earlier run did counts as done, and not for the speed."""
        self.done += amount
        self.resumed += amount

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started

    def report(self, more: str = "") -> None:
        """Say a line, unless the last one was a moment ago; `more` ends it."""
        now = time.monotonic()
        if now - self.reported < self.seconds:
            return
        self.reported = now
        elapsed, done = now - self.started, self.done - self.resumed
        left = elapsed * (self.total - self.done) / done if done > 0 else float("nan")
        share = self.done / max(1, self.total)
        work, said = f"{self.work}: " if self.work else "", f", {more}" if more else ""
        self.say(
            f"{work}{round(self.done, 1):.10g} of {self.total} {self.unit} ({share:.0%}), {clock(elapsed)} so far, "
            f"about {clock(left)} left{said}"
        )  # fmt: skip
