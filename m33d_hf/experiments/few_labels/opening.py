"""The data of a command line as its run would open them, without training and without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.metric_names import check_metric
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import Task, build_task


class Opened(NamedTuple):
    """Arguments, task, model before its training, training and evaluation data."""

    args: RunArguments
    task: Task
    model: nn.Module
    train_set: SampleDataset
    eval_set: SampleDataset | None


def opened(name: str, argv: Sequence[str], folder: str) -> Opened:
    """What a run would begin with.

    Args:
        name: of the task.
        argv: command line.
        folder: what would be its output folder.

    Raises:
        M33DError: whatever would stop the run where it builds its model and data.
    """
    args = settle(resolve([*argv, "--output_dir", folder, "--dry_run", "true"], name)).args
    task = build_task(name)
    model = build_model(args, task)
    check_metric(args, task, model)
    return Opened(args, task, model, *task.build_datasets(args, model))
