"""Progress of long work: how much is done, how long it took, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from m33d_hf.data.clock import clock


class Progress:
    """Says every few seconds how far the work is.

    Args:
        total: units of work.
        seconds: between two lines.
        say: receives them.
        unit: what is counted.
    """

    def __init__(self, total: int, seconds: float, say: Callable[[str], None], unit: str = "inputs") -> None:
        self.total, self.seconds, self.say, self.unit = total, seconds, say, unit
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

    def report(self) -> None:
        """Say a line, unless the last one was a moment ago."""
        now = time.monotonic()
        if now - self.reported < self.seconds:
            return
        self.reported = now
        elapsed, done = now - self.started, self.done - self.resumed
        left = elapsed * (self.total - self.done) / done if done > 0 else float("nan")
        share = self.done / max(1, self.total)
        self.say(
            f"{self.done:.1f} of {self.total} {self.unit} ({share:.0%}), {clock(elapsed)} so far, about "
            f"{clock(left)} left"
        )  # fmt: skip
