"""Whether the runs of a study can start: met before the first of them is trained, not after hours of pre-training."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.source import Source
from m33d_hf.data.sources import source_options
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.experiments.few_labels.encoders import INIT, Encoders, first_stage, start_of
from m33d_hf.experiments.few_labels.opening import Opened, opened
from m33d_hf.experiments.few_labels.stand_ins import stand_in
from m33d_hf.experiments.few_labels.study import PHASES
from m33d_hf.experiments.jobs import Job, stored_row
from m33d_hf.experiments.plan import without
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loaders import overlap_lines
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.pretraining import PretrainingTask

_ALL = "data.options.require_labels"
_MISSING = "--data.allow_missing_classes"


def check_runs(jobs: Sequence[Job], folder: Path, fresh: bool = False) -> dict[str, dict[str, Any]]:
    """Build model and data of every draw of labels once, and of every checkpoint and pre-training once.

    What comes after a run, a second stage or a fine-tuning of a pre-training, is looked at after a model without
    training.

    Args:
        jobs: of the study.
        folder: outputs; what is finished there is not looked at again.
        fresh: it is, since it is run again.

    Returns:
        Fine-tuning -> {"encoder": its sizes}, as its row will tell them.

    Raises:
        ConfigError: runs that cannot start, each with its reason: data that cannot be read, a draw of labels in which a
            class has no sample, a checkpoint that cannot be read or fine-tuned as asked, a second stage that does not
            fit the first, a pre-training that learns from pictures or videos by which its fine-tunings are judged.
    """
    runs = list(_different([job for job in jobs if fresh or stored_row(folder / "rows", job) is None]))
    if runs:
        print(f"looking at data and models of {plural(len(runs), 'run')} before anything is trained", flush=True)
    reasons: dict[str, list[str]] = {}
    judged: set[str] = set()
    word = "picture"
    second, encoders = _SecondStages(folder), Encoders(jobs)
    scratch = any(start_of(argv) is None for task, argv in map(first_stage, jobs) if task != PretrainingTask.name)
    for job, task, argv in sorted(runs, key=lambda run: run[1] == PretrainingTask.name):
        try:
            found = _checked(task, argv, str(folder / "runs" / job.id))
            if task != PretrainingTask.name:
                if not judged:
                    judged = _shown(found.eval_set)
                    word = "picture" if found.eval_set is None or found.eval_set.source.videos is None else "video"
                encoders.add(argv, found)
                if scratch or start_of(argv) is not None:  # else it is a model that no run has
                    second.check(job, found)
                continue
            _refuse_judged(judged, _shown(found.train_set) if judged else set(), word)
            _tell_unlabelled(found.args, found.train_set, argv, str(folder / "runs" / job.id))
            for follower in [each for each in jobs if job.id in each.needs][:1]:
                task, argv = first_stage(follower)
                with stand_in(found, f"the output of {job.id}") as trained:
                    # Classes that a draw lacks were told of the draw.
                    words = [*without(without(argv, INIT), _MISSING), _MISSING, "true", INIT, trained]
                    then = _checked(task, words, str(folder / "runs" / follower.id))
                    encoders.add(argv, then)
                    second.check(follower, then)
        except M33DError as error:
            reasons.setdefault(str(error), []).append(job.id)
    if reasons:
        said = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        raise ConfigError(
            "Nothing was trained, since some rows could not be and would leave their columns without a verdict. Here "
            "draws of labels change with --seeds.\n  " + "\n  ".join(said)
        )
    finished = {} if fresh else {job.id: stored_row(folder / "rows", job) for job in jobs}
    return encoders.by_job | {name: row for name, row in finished.items() if row is not None and "encoder" in row}


def _different(jobs: Sequence[Job]) -> Iterator[tuple[Job, str, list[str]]]:
    """A job, its task and its words: the first of each pre-training, draw of labels and checkpoint.

    Starts share their draws of labels; weights that are not there yet are left out.
    """
    made = {str(job.parameters["output_dir"]) for job in jobs}
    seen: set[tuple[str, ...]] = set()
    for job in jobs:
        task, argv = first_stage(job)
        start = start_of(argv)
        if task == PretrainingTask.name:
            keys = [tuple(without(argv, "--seed"))]  # which changes nothing that could fail
        else:
            argv = without(argv, INIT) if start in made else argv
            keys = [tuple(without(argv, INIT)), *([(start,)] if start and start not in made else [])]
        if not seen.issuperset(keys):
            seen.update(keys)
            yield job, task, argv


def _checked(task: str, argv: list[str], folder: str) -> Opened:
    found = opened(task, argv, folder)
    overlap_lines(found.args, found.train_set, found.eval_set)
    if found.eval_set is None and task != PretrainingTask.name:
        raise ConfigError("there is no evaluation data to judge by; name some: --data.eval_split or --data.eval_root")
    return found


class _SecondStages:
    """Looks at second stages after the first stage that comes before them, which is not trained yet.

    Args:
        folder: outputs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[tuple[str, ...]] = set()

    def check(self, job: Job, first: Opened) -> None:
        """Build model and data of a job's second stage, if it has one; one of the same words and first stage once.

        Raises:
            M33DError: whatever would stop it.
        """
        if "temporal_argv" not in job.parameters:
            return
        argv = list(job.parameters["temporal_argv"])
        same = without(without(argv, "--seed"), "--data.subset_seed")  # classes that a draw lacks, the first stage told
        key = (*same, config_of(first.model).to_json_string())
        if key in self._seen:
            return
        self._seen.add(key)
        place = str(self.folder / "runs" / job.id)
        with stand_in(first, "the output of the first stage") as trained, redirect_stdout(io.StringIO()):
            _checked(PHASES, [*argv, INIT, trained], place)  # stdout is of what was loaded, which is nothing real


def _shown(dataset: SampleDataset | None) -> set[str]:
    """Where every picture lies that a data set shows, or every long video that clips are cut from."""
    return set() if dataset is None else set(_places(dataset.source, dataset.indices))


def _places(source: Source, rows: Iterable[int]) -> Iterator[str]:
    """Of whatever source a mixture or several folders have them from; of what lies nowhere, none.

    A picture by folder and key; a long video by its file (of frames the first), whatever the root that it is read from.
    """
    if isinstance(source, MixtureSource):
        items = [source.place(row) for row in rows]
        for number, member in enumerate(source.members.values()):
            yield from _places(member, (item for place, item, _ in items if place == number))
    elif isinstance(source, PhaseSource):
        groups = source.groups()
        used = {groups[row] for row in rows}
        files = (source.files(number) for number, video in enumerate(source.videos) if video.group in used)
        yield from (str(path.resolve()) for each in files for _, path in islice(each, 1))
    elif source.root is not None:
        root = source.root.resolve()
        yield from (str(root / source[row].key) for row in rows)


def _refuse_judged(judged: set[str], learnt: set[str], word: str) -> None:
    again = sorted(judged & learnt)
    if again:
        cure = "--data.options.split_list."
        if word == "picture":
            cure = "--data.options.validation, or --data.options.split_list."
        raise ConfigError(
            f"the pre-training learns from {len(again)} of the {plural(len(judged), word)} by which fine-tunings are "
            f"judged, as {again[0]}: it is split otherwise, or has other data. Say for all which are held out: {cure}"
        )


def _tell_unlabelled(args: RunArguments, train_set: SampleDataset, argv: Sequence[str], folder: str) -> None:
    """Labels are few and frames are many, as a rule; but other frames are split otherwise, so that it is asked for."""
    if "require_labels" not in source_options(args.data.source) or train_set.source.class_names is None:
        return
    if not args.data.options.get("require_labels", True):
        return
    try:
        every = opened(PretrainingTask.name, [*argv, f"--{_ALL}", "false"], folder).train_set
    except M33DError:
        return  # frames that nobody asked for
    more = len(every) - len(train_set)
    if more > 0:
        print(
            f"pre-trainings learn from {plural(len(train_set), 'frame')} with labels; {more} more "
            f"{agree(more, 'has', 'have')} none, and --pretrain {_ALL}=false learns from {agree(more, 'it', 'them')}, "
            "too",
            flush=True,
        )
