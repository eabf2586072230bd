"""The runs of a study of few labels: pre-trainings, and fine-tunings from each start with each draw of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from m33d_hf.experiments.commands import DRAW, ROWS, RunFolders, training_length
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels.origins import Origins
from m33d_hf.experiments.few_labels.study import CLIPS, PHASES, Amount, Start, Study
from m33d_hf.experiments.jobs import Job


def jobs_of_study(
    study: Study,
    folder: Path,
    compute: Compute,
    origins: Origins | None = None,
    folders: Mapping[str, str] | None = None,
) -> list[Job]:
    """Pre-trainings of a seed, then everything that is measured from it, seed by seed.

    Args:
        study: what is run.
        folder: outputs.
        compute: where.
        origins: what rows are made from besides their commands; None = not known.
        folders: job id -> name of its run folder, where it is known; others are named by their settings.
    """
    jobs: list[Job] = []
    runs = RunFolders(folder, folders or {})
    origins = origins or Origins()
    for place, seed in enumerate(study.seeds):
        for start in study.starts:
            if seed not in study.seeds_of(start):
                continue
            before = _pretraining(study, start, seed, runs, compute, origins) if start.method else None
            jobs += [before] if before else []
            origin = str(before.parameters["output_dir"]) if before else None
            origin = start.checkpoints[place] if start.checkpoints else origin
            weights = ["--init_from", origin] if origin else []
            needs = (before.id,) if before else ()
            beside = origins.beside(origin)
            for amount, draw in product(study.amounts, range(study.draws)):
                row = row_name(start.name, amount, seed, draw)
                drawn = _drawn(amount, seed + DRAW * draw, compute)
                jobs.append(_finetuning(study, row, drawn, weights, runs, needs, beside))
    return jobs


def _pretraining(study: Study, start: Start, seed: int, runs: RunFolders, compute: Compute, origins: Origins) -> Job:
    method = str(start.method)
    argv = [*study.pretraining_words, "--method", method, "--seed", str(seed), *compute.words]
    return _job(f"pretrain-{start.name}-s{seed}", "pretraining", _warmed(argv), runs, (), origins.before(method))


def _drawn(amount: Amount, seed: int, compute: Compute) -> list[str]:
    """One seed changes the weights, the order, and which samples are labelled."""
    return ["--seed", str(seed), *amount.words, "--data.subset_seed", str(seed), *compute.words]


def _finetuning(
    study: Study,
    name: str,
    drawn: Sequence[str],
    start: Sequence[str],
    runs: RunFolders,
    needs: tuple[str, ...],
    beside: tuple[str, ...],
) -> Job:
    """A fine-tuning; of two stages both have the same labelled videos.

    Args:
        study: what is run.
        name: of the row.
        drawn: words of its seed and labels.
        start: words of its starting weights.
        runs: where they go.
        needs: jobs before it.
        beside: see `Origins.beside`.
    """
    judged = ["--evaluation.at_end", "true"]
    if study.task != PHASES:
        return _job(name, study.task, [*_warmed([*study.words, *drawn, *judged]), *start], runs, needs, beside)
    clips = [*_warmed([*study.words, *drawn, "--evaluation.at_end", "false"]), *start]
    videos = _warmed([*study.temporal_words, *drawn, *judged])
    steps = _steps(clips) + _steps(videos)
    place = runs.of(name, (clips, CLIPS), (videos, PHASES), beside=beside)
    parameters = {"clip_argv": clips, "temporal_argv": videos, "steps": steps, "output_dir": place}
    return Job(name, f"{ROWS}:trained_in_stages", parameters, needs, float(steps), name)


def _job(
    name: str, task: str, argv: list[str], runs: RunFolders, needs: tuple[str, ...], beside: tuple[str, ...]
) -> Job:
    parameters = {"task": task, "argv": argv, "steps": _steps(argv),
                  "output_dir": runs.of(name, (argv, task), beside=beside)}  # fmt: skip
    return Job(name, f"{ROWS}:trained", parameters, needs, float(_steps(argv)), name)


def row_name(name: str, amount: Amount, seed: int, draw: int) -> str:
    """Id of a fine-tuning."""
    return f"{amount.id}-{name}-s{seed}" + (f"-f{draw}" if draw else "")


def _steps(argv: Sequence[str]) -> int:
    return int(argv[argv.index("--train.max_steps") + 1])


def _warmed(argv: list[str]) -> list[str]:
    """With a warm-up of 5 % of the steps where none is given: that of a recipe may be longer than so short a run."""
    said = any(word.startswith("--optim.warmup_") for word in argv)
    return argv if said else [*argv, *training_length(_steps(argv))[2:]]
