"""The cost of a run, reckoned from measured steps, as one table."""

from __future__ import annotations

from dataclasses import dataclass

MIB, GIB = 1 << 20, 1 << 30
_FLOP_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True)
class Memory:
    """Memory of one process.

    Attributes:
        peak: bytes at the peak of a step.
        kept: of these, weights, gradients, optimizer state and average.
        rows: samples in a micro-batch, at which `peak` was measured or to which it was extended.
        per_row: bytes that one more sample adds, with its views.
        available: bytes that the process could have; None if unknown.
        what: what of the process is counted, for the table.
        samples: bytes of decoded training samples that stay in memory beside the peak, over all processes that read.
    """

    peak: float
    kept: float
    rows: int
    per_row: float
    available: float | None
    what: str = "allocated"
    samples: float = 0.0

    def most_rows(self) -> int | None:
        """The largest micro-batch that fits, by a straight line through two measured ones; None if unknown."""
        if self.available is None or self.per_row <= 0:
            return None
        return max(int(self.rows + (self.available - self.peak) / self.per_row), 0)


@dataclass(frozen=True)
class Cost:
    """What was measured, and what it is multiplied with.

    Attributes:
        step: seconds of computing per optimizer step.
        reading: seconds per optimizer step that one process needs to read and prepare its samples.
        wall: seconds per optimizer step as reading and computing go side by side.
        steps: optimizer steps of the run.
        evaluation: seconds per evaluation; None if there is none, or it was not timed.
        evaluations: number of evaluations.
        step_flops, evaluation_flops: operations per optimizer step and per evaluation, over all processes; None if
            they cannot be counted.
        memory: of one process.
        how: how it was measured.
        warning: what else was going on meanwhile, where that may have changed the times.
        trial_steps: optimizer steps of a trial before the run (`model.depth_prior_weight: auto`).
    """

    step: float
    reading: float
    wall: float
    steps: int
    evaluation: float | None
    evaluations: int
    step_flops: float | None
    evaluation_flops: float | None
    memory: Memory
    how: str
    warning: str | None = None
    trial_steps: int = 0

    @property
    def seconds(self) -> float:
        """Of the whole run, without start and checkpoints."""
        return (self.trial_steps + self.steps) * self.wall + self.evaluations * (self.evaluation or 0.0)

    @property
    def flops(self) -> float | None:
        """Of the whole run; None if they cannot be counted."""
        if self.step_flops is None:
            return None
        return (self.trial_steps + self.steps) * self.step_flops + self.evaluations * (self.evaluation_flops or 0.0)

    def lines(self) -> list[str]:
        """The table, and what its numbers mean."""
        rows = [("", "each", "number", "time", "operations")]
        for name, steps in (("trial steps", self.trial_steps), ("steps", self.steps)):
            if steps or name == "steps":
                flops = None if self.step_flops is None else steps * self.step_flops
                time = duration(steps * self.wall)
                rows.append((name, duration(self.wall), f"{steps:,}", time, operations(flops)))
        if self.evaluations:
            each = "not timed" if self.evaluation is None else duration(self.evaluation)
            total = "not timed" if self.evaluation is None else duration(self.evaluations * self.evaluation)
            flops = None if self.evaluation_flops is None else self.evaluations * self.evaluation_flops
            rows.append(("evaluations", each, f"{self.evaluations:,}", total, operations(flops)))
        rows.append(("run", "", "", duration(self.seconds), operations(self.flops)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [self.how, *([self.warning] if self.warning else []), *table, self._waiting(), *self._memory()]

    def _waiting(self) -> str:
        waiting = self.wall - self.step
        waits = (
            f" Steps wait {duration(waiting)} for it: more --data.num_workers may help."
            if waiting > self.step / 5
            else ""
        )
        return (
            f"a step computes {duration(self.step)}; one process reads its samples in {duration(self.reading)}.{waits} "
            "Starting and checkpoints are not in the table."
        )

    def _memory(self) -> list[str]:
        memory = self.memory
        lines = [
            f"memory: {size(memory.peak)} per process at the peak of a step of {memory.rows} samples ({memory.what}); "
            f"{size(memory.kept)} of it weights, gradients, AdamW and their average if one is kept, and "
            f"{size(memory.per_row)} per sample"
        ]
        if memory.samples:
            held = size(memory.samples)
            lines.append(f"beside it, decoded training samples stay in memory: {held} once all are read")
        most = memory.most_rows()
        if most is not None and memory.available is not None:
            fits = f"about {most:,} samples" if most else "none"
            lines.append(f"largest batch that fits: {fits} per process ({size(memory.available)} for this process)")
            if memory.peak > memory.available:
                lines.append(
                    f"WARNING: this run does not fit; take --train.batch_size {max(most, 1)} or less, with "
                    "--train.accumulation for the same effective batch, or --train.grad_checkpointing true."
                )
        return lines


def duration(seconds: float) -> str:
    """As people say it: 12 ms, 3.4 s, 8.2 min, 31 h."""
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= (unit if unit == 1.0 else 2 * unit):
            return f"{seconds / unit:.3g} {name}" if seconds / unit < 1000 else f"{seconds / unit:,.0f} {name}"
    return f"{seconds * 1000:.3g} ms"


def size(number: float) -> str:
    """Bytes as GiB or MiB."""
    return f"{number / GIB:.3g} GiB" if number >= GIB else f"{number / MIB:.3g} MiB"


def operations(number: float | None) -> str:
    """Operations in floating point, with the unit that suits; "not counted" for None."""
    if number is None:
        return "not counted"
    for unit, name in _FLOP_UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} FLOP"
