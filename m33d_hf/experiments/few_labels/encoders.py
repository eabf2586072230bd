"""The encoders that the fine-tunings of a study will have: known before any of them is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from m33d_hf.experiments.few_labels.opening import Opened
from m33d_hf.experiments.few_labels.study import CLIPS
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.plan import without
from m33d_hf.experiments.rows import encoder_facts
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.pretraining import PretrainingTask

INIT = "--init_from"


def first_stage(job: Job) -> tuple[str, list[str]]:
    """The task and the words of a job, of one with two stages those of the first."""
    staged = "clip_argv" in job.parameters
    return CLIPS if staged else str(job.parameters["task"]), list(job.parameters["clip_argv" if staged else "argv"])


def start_of(argv: Sequence[str]) -> str | None:
    """The weights that the words of a run start from; None from scratch."""
    return argv[argv.index(INIT) + 1] if INIT in argv else None


class Encoders:
    """The sizes of the encoders that fine-tunings will have. They depend on the start and the amount of labels, not on
    the draw, and pre-trainings of one command have the same for every seed.

    Args:
        jobs: of the study.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._made: dict[str, str] = {}
        for job in jobs:
            task, argv = first_stage(job)
            if task == PretrainingTask.name:
                self._made[str(job.parameters["output_dir"])] = " ".join(without(argv, "--seed"))
        self._found: dict[tuple[str, ...], dict[str, Any]] = {}

    def add(self, argv: Sequence[str], found: Opened) -> None:
        """Note that of a fine-tuning that was looked at.

        Args:
            argv: its words, with the start that the encoder is from.
            found: its model.
        """
        facts = encoder_facts(config_of(found.model))
        self._found.setdefault(self._key(argv), facts)
        self._found.setdefault(self._key(argv)[:1], facts)

    @property
    def by_job(self) -> dict[str, dict[str, Any]]:
        """Fine-tuning -> {"encoder": ...}."""
        told: dict[str, dict[str, Any]] = {}
        for job in self._jobs:
            task, argv = first_stage(job)
            key = self._key(argv)
            facts = self._found.get(key, self._found.get(key[:1]))
            if task != PretrainingTask.name and facts is not None:
                told[job.id] = {"encoder": facts}
        return told

    def _key(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Start, then the words without it and without seeds."""
        start = start_of(argv)
        rest = without(without(without(argv, INIT), "--seed"), "--data.subset_seed")
        return (self._made.get(start, start) if start else "", *rest)
