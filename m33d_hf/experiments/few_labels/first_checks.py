"""Whether the runs of a study can start: met before the first of them is trained, not after hours of pre-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.experiments.few_labels.opening import opened
from m33d_hf.experiments.few_labels.study import CLIPS
from m33d_hf.experiments.jobs import Job, stored_row
from m33d_hf.experiments.plan import without
from m33d_hf.training.run.loaders import overlap_lines
from m33d_hf.training.tasks.pretraining import PretrainingTask

_INIT = "--init_from"


def check_runs(jobs: Sequence[Job], folder: Path, fresh: bool = False) -> None:
    """Build model and data of every draw of labels once, and of every checkpoint and pre-training once.

    Args:
        jobs: of the study.
        folder: outputs; what is finished there is not looked at again.
        fresh: it is, since it is run again.

    Raises:
        ConfigError: runs that cannot start, each with its reason: data that cannot be read, a draw of labels in which a
            class has no sample, a checkpoint that cannot be read or fine-tuned as asked.
    """
    runs = list(_different([job for job in jobs if fresh or stored_row(folder / "rows", job) is None]))
    if runs:
        print(f"looking at data and models of {plural(len(runs), 'run')} before anything is trained", flush=True)
    reasons: dict[str, list[str]] = {}
    for job, task, argv in runs:
        problem = _problem(task, argv, str(folder / "runs" / job.id))
        if problem is not None:
            reasons.setdefault(problem, []).append(job.id)
    if reasons:
        said = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        raise ConfigError(
            "Nothing was trained, since some rows could not be and would leave their columns without a verdict. Here "
            "draws of labels change with --seeds.\n  " + "\n  ".join(said)
        )


def _different(jobs: Sequence[Job]) -> Iterator[tuple[Job, str, list[str]]]:
    """A job, its task and its words: the first of each pre-training, draw of labels and checkpoint.

    Starts share their draws of labels; weights that are not there yet are left out.
    """
    made = {str(job.parameters["output_dir"]) for job in jobs}
    seen: set[tuple[str, ...]] = set()
    for job in jobs:
        staged = "clip_argv" in job.parameters
        task = CLIPS if staged else str(job.parameters["task"])
        argv = list(job.parameters["clip_argv" if staged else "argv"])
        start = argv[argv.index(_INIT) + 1] if _INIT in argv else None
        if task == PretrainingTask.name:
            keys = [tuple(without(argv, "--seed"))]  # which changes nothing that could fail
        else:
            argv = without(argv, _INIT) if start in made else argv
            keys = [tuple(without(argv, _INIT)), *([(start,)] if start and start not in made else [])]
        if not seen.issuperset(keys):
            seen.update(keys)
            yield job, task, argv


def _problem(task: str, argv: list[str], folder: str) -> str | None:
    """Why a run cannot start; None if it can."""
    try:
        args, _, train_set, eval_set = opened(task, argv, folder)
        overlap_lines(args, train_set, eval_set)
    except M33DError as error:
        return str(error)
    if eval_set is None and task != PretrainingTask.name:
        return "there is no evaluation data to judge by; name some: --data.eval_split or --data.eval_root"
    return None
