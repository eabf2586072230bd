"""The plan of a run, before its first step: effective batch, steps, learning rates, cadences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError
from m33d_hf.training.processes.optimization import LearningRate, learning_rate_schedule
from m33d_hf.training.recipe.arguments import RunArguments


@dataclass(frozen=True)
class RunPlan:
    """Length, batch size, learning rate and cadences of a run; equal on every rank.

    Attributes:
        num_samples: training samples of one epoch.
        effective_batch: samples per optimizer step over ranks and micro-batches.
        steps_per_epoch: optimizer steps of one pass over the data, at least 1.
        total_steps: optimizer steps of the run.
        learning_rate: the schedule, after scaling.
        log_every, evaluate_every, save_every: cadences in optimizer steps; None for never (but at the end).
    """

    num_samples: int
    effective_batch: int
    steps_per_epoch: int
    total_steps: int
    learning_rate: LearningRate
    log_every: int
    evaluate_every: int | None
    save_every: int | None
    evaluate_at_end: bool
    save_at_end: bool

    def logs(self, step: int) -> bool:
        """Whether to log after `step` completed updates."""
        return step % self.log_every == 0 or step == self.total_steps

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate after `step` completed updates."""
        if step == self.total_steps:
            return self.evaluate_at_end
        return self.evaluate_every is not None and step > 0 and step % self.evaluate_every == 0

    def saves(self, step: int) -> bool:
        """Whether to save a resumable checkpoint after `step` completed updates."""
        if step == self.total_steps:
            return self.save_at_end
        return self.save_every is not None and step % self.save_every == 0

    def describe(self, args: RunArguments, world_size: int) -> list[str]:
        """The lines printed at the start of a run and by --dry_run."""
        rate = self.learning_rate
        scaling = (
            f"= {args.optim.learning_rate:g} x {self.effective_batch} / 256"
            if args.optim.scale_lr
            else "(not scaled by the batch)"
        )
        epochs = self.total_steps / self.steps_per_epoch
        outlasts = rate.warmup_asked > rate.warmup_steps
        shortened = f" (shortened: the {rate.warmup_asked} requested steps are longer than the run)" if outlasts else ""
        small = self.effective_batch > self.num_samples
        repeats = "; fewer than the effective batch, so a step repeats samples" if small else ""
        return [
            f"effective batch {self.effective_batch} = {args.train.batch_size} per process x "
            f"{plural(world_size, 'process')} x {plural(args.train.accumulation, 'micro-batch')}",
            f"{plural(self.total_steps, 'step')} = {epochs:.4g} epochs of {plural(self.steps_per_epoch, 'step')} "
            f"({plural(self.num_samples, 'sample')}{repeats})",
            f"learning rate {rate.peak:.4g} {scaling}, {rate.schedule}"
            + (f" to {rate.floor:.4g}" if rate.schedule == "cosine" else ""),
            f"warm-up {plural(rate.warmup_steps, 'step')} from {rate.warmup_start:.4g}{shortened}"
            if rate.warmup_steps or outlasts
            else "no warm-up",
        ]

    def to_dict(self) -> dict[str, Any]:
        """For train_config.json."""
        rate = self.learning_rate
        return {
            "num_samples": self.num_samples,
            "effective_batch": self.effective_batch,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            "learning_rate": {
                "peak": rate.peak,
                "warmup_start": rate.warmup_start,
                "floor": rate.floor,
                "warmup_steps": rate.warmup_steps,
                "schedule": rate.schedule,
            },
        }


def check_same_plan(plans: Sequence[RunPlan]) -> RunPlan:
    """The plan that the processes of a run, of which these are the plans in order, have in common.

    Raises:
        ConfigError: they differ. With steps or evaluations of their own, processes wait for each other for ever.
    """
    one = plans[0]
    lines = [
        f"\n  {field.name}: {_shown(one, field.name)} in process 0, {_shown(other, field.name)} in process {rank}"
        for rank, other in enumerate(plans)
        for field in dataclasses.fields(RunPlan)
        if getattr(other, field.name) != getattr(one, field.name)
    ]
    if lines:
        raise ConfigError(
            f"The processes of this run do not plan the same run:{''.join(lines)}\nStart all of them by the same "
            "command on the same data, and state what they decide differently (--train.max_steps, "
            "--evaluation.every_steps and so on) instead of leaving it to auto."
        )
    return one


def _shown(plan: RunPlan, name: str) -> str:
    return f"{plan.to_dict().get(name, getattr(plan, name))}"


def plan_run(args: RunArguments, num_samples: int, world_size: int) -> RunPlan:
    """Compute the plan from the arguments and the size of the training data.

    Raises:
        ConfigError: no length given.
    """
    effective = args.train.batch_size * args.train.accumulation * world_size
    per_epoch = max(num_samples // effective, 1)

    def steps(every_steps: int | None, every_epochs: float | None) -> int | None:
        if every_steps is not None or every_epochs is None:
            return every_steps
        return max(round(every_epochs * per_epoch), 1)

    total = steps(args.train.max_steps, args.train.epochs)
    if total is None:
        raise ConfigError("Neither train.epochs nor train.max_steps is given; set one of them.")
    return RunPlan(
        num_samples=num_samples,
        effective_batch=effective,
        steps_per_epoch=per_epoch,
        total_steps=total,
        learning_rate=learning_rate_schedule(
            args.optim, effective_batch=effective, steps_per_epoch=per_epoch, total_steps=total
        ),
        log_every=args.logging.every_steps,
        evaluate_every=steps(args.evaluation.every_steps, args.evaluation.every_epochs),
        save_every=steps(args.checkpoint.every_steps, args.checkpoint.every_epochs),
        evaluate_at_end=args.evaluation.at_end,
        save_at_end=args.checkpoint.save_final,
    )
