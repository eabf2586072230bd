"""Names and directions of the metric that chooses `checkpoints/best`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from torch import nn

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Task


def eval_name(name: str) -> str:
    """A metric's name as logged: with "eval/" before it."""
    return name if name.startswith("eval/") else f"eval/{name}"


def larger_is_better(name: str) -> bool:
    """Direction of a metric other than the task's default: smaller is better for losses and errors (also "ece", that of
    calibration), larger for all others."""
    if re.search(r"(^|/)(ap|iou)/", name):  # the rest is the name of a class
        return True
    return not {"loss", "rmse", "rel", "absent", "ece"} & set(re.split(r"[/_]", name))


def check_metric(args: RunArguments, task: Task, model: nn.Module) -> None:
    """Refuse a metric for `checkpoints/best` that no evaluation of the task reports, before anything is trained.

    Raises:
        ConfigError: with the nearest name and all that there are.
    """
    chosen, known = args.evaluation.metric, task.metric_names(args, model)
    if chosen is None or known is None:
        return
    names = [eval_name(name) for name in known]
    if eval_name(chosen) not in names:
        refuse_metric(chosen, names)


def check_absent(args: RunArguments, task: Task, model: nn.Module, found: Iterable[str]) -> None:
    """Refuse a metric that an evaluation has not reported, unless the task knows it: that of an absent class.

    Raises:
        ConfigError: the task has no such metric.
    """
    chosen = args.evaluation.metric or task.metric or ""
    known = [eval_name(name) for name in task.metric_names(args, model) or []]
    if eval_name(chosen) not in known:
        refuse_metric(chosen, list(found))


def refuse_metric(chosen: str, names: Sequence[str]) -> NoReturn:
    hint = nearest_name_hint(eval_name(chosen), names)
    raise ConfigError(f"evaluation.metric {chosen!r} is not one of {', '.join(names)}.{hint}")
