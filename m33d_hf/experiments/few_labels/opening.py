"""The data of a command line as its run would open them, without training and without writing anything."""

from __future__ import annotations

from collections.abc import Sequence

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.metric_names import check_metric
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import Task, build_task


def opened(
    name: str, argv: Sequence[str], folder: str
) -> tuple[RunArguments, Task, SampleDataset, SampleDataset | None]:
    """Arguments, task, training and evaluation data.

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
    return args, task, *task.build_datasets(args, model)
