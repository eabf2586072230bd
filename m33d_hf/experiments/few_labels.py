"""Few labels x starts x seeds on any data that a recipe reads: the axes of Figure 2 and Table 2, with verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError
from m33d_hf.experiments.collected import kept
from m33d_hf.experiments.commands import DRAW, ROWS, run_folder, training_length
from m33d_hf.experiments.compute import Compute, environment
from m33d_hf.experiments.driver import report, run_jobs
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.report.reproduction import FEW_LABELS
from m33d_hf.experiments.report.results import DONE, RESULTS
from m33d_hf.weights.files import REPOSITORY

NOTE = "The same steps for every share of labels; the last step counts, nothing is chosen."
CLIPS, PHASES = "video_classification", "action_detection"
# task -> (metric, what tables call it), of which the first one decides.
METRICS = {
    "semantic_segmentation": (("miou", "mIoU"),),
    "depth_estimation": (("delta1", "δ1"),),
    CLIPS: (("top1", "top-1"),),
    PHASES: (("map", "mAP"), ("video_accuracy", "accuracy per video")),
}


@dataclass(frozen=True)
class Start:
    """Where fine-tunings start: a method that is pre-trained here, checkpoints, or nothing.

    Attributes:
        name: of the row.
        method: pre-trained once per seed; None = `checkpoints`.
        checkpoints: one per seed of pre-training, in the order of the seeds; empty without a method = from scratch.
    """

    name: str
    method: str | None = None
    checkpoints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Amount:
    """How much of the labelled data a column has: a share in (0, 1] of its scenes or videos, or a number of samples."""

    share: float | None = None
    number: int | None = None

    @property
    def id(self) -> str:
        """Of the column."""
        return f"labels-{self.share:g}" if self.number is None else f"labels-{self.number}-samples"

    @property
    def title(self) -> str:
        """After the metric's name."""
        return f"{100 * (self.share or 0):g} % of the labels" if self.number is None else f"{self.number} labels"

    @property
    def words(self) -> list[str]:
        """Of a command line."""
        if self.number is None:
            return ["--data.label_fraction", f"{self.share:g}"]
        return ["--data.max_train_samples", str(self.number)]


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        task: a key of `METRICS`.
        words: command line of a fine-tuning: recipe and data, whatever else, with `--train.max_steps`; of phases that
            of the first stage, on clips.
        temporal_words: of phases the command line of the second stage, the temporal model over the clips of a video,
            likewise; empty for all other tasks.
        pretraining_words: command line of a pre-training, without `--method`; empty where no start needs it.
        starts: rows; all others are compared with the first.
        amounts: of labels, the columns.
        seeds: of pre-training and fine-tuning; the same seed draws the same labels for every start.
        draws: fine-tunings of one encoder, which are averaged.
    """

    task: str
    words: tuple[str, ...]
    pretraining_words: tuple[str, ...]
    starts: tuple[Start, ...]
    amounts: tuple[Amount, ...]
    seeds: tuple[int, ...]
    draws: int = 1
    temporal_words: tuple[str, ...] = ()

    def check(self) -> None:
        """Whether it can be run.

        Raises:
            ConfigError: an unknown task, starting weights for all, no two different starts, shares outside (0, 1],
                seeds, names or checkpoints twice, more checkpoints than seeds, a length that is not given, or phases
                without their second stage or by numbers of samples.
        """
        names = [start.name for start in self.starts]
        if "--init_from" in self.words:
            raise ConfigError(
                "--init_from would be the weights of every start, also of one from scratch; give it as --start "
                "NAME=FOLDER."
            )
        if self.task not in METRICS:
            raise ConfigError(f"the task {self.task!r} has no row here; it must be one of {', '.join(METRICS)}.")
        self._check_stages()
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"the starts are {', '.join(names) or 'none'}; give two or more, each with its own name.")
        shares = [amount.share for amount in self.amounts if amount.share is not None]
        numbers = [amount.number for amount in self.amounts if amount.number is not None]
        if not self.amounts or any(not 0 < share <= 1 for share in shares) or any(number < 1 for number in numbers):
            raise ConfigError(
                f"fractions {shares} must be above 0 and at most 1, labels {numbers} at least 1; give one."
            )
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.amounts)) < len(self.amounts) or self.draws < 1:
            raise ConfigError("seeds and amounts of labels must be given once each, and draws must be at least 1.")
        for start in self.starts:
            if len(start.checkpoints) > len(self.seeds):
                raise ConfigError(f"{start.name} has {len(start.checkpoints)} checkpoints, but seeds are {self.seeds}.")
            if len(set(start.checkpoints)) < len(start.checkpoints):
                raise ConfigError(
                    f"{start.name} has one checkpoint twice, which would count as two seeds of pre-training; give each "
                    "once (--draws N fine-tunes one several times)."
                )
        self._check_lengths()

    def _check_stages(self) -> None:
        if self.task != PHASES:
            if self.temporal_words:
                raise ConfigError(f"--temporal_recipe is the second stage of {PHASES}; {self.task} has one stage.")
            return
        if not self.temporal_words:
            raise ConfigError(
                f"{PHASES} has two stages: give --recipe of the clips (own/phases_clips, orar_finetune) and "
                "--temporal_recipe of the whole videos (own/phases, orar_temporal) with --temporal_steps N. For phases "
                f"of single clips pass --task {CLIPS}."
            )
        if any(amount.number is not None for amount in self.amounts):
            raise ConfigError(
                f"--labels counts samples, which are clips in one stage of {PHASES} and videos in the other; give "
                "shares of the videos or cases: --fractions 0.2 1."
            )

    def check_checkpoints(self) -> None:
        """Whether every start is there: one that is not would be met after hours, and leave no verdict.

        Raises:
            ConfigError: a checkpoint that is no file or folder, nor could be a repository.
        """
        for start in self.starts:
            for place in start.checkpoints:
                if not Path(place).expanduser().exists() and not REPOSITORY.fullmatch(place):
                    raise ConfigError(
                        f"--start {start.name}: {place} is no file, folder or repository (org/name); name the output "
                        "folder of a pre-training for each seed."
                    )

    def _check_lengths(self) -> None:
        lengths = [("a fine-tuning", self.words)]
        if self.temporal_words:
            lengths.append(("the second stage (--temporal_steps)", self.temporal_words))
        if any(start.method for start in self.starts):
            lengths.append(("a pre-training", self.pretraining_words))
        for what, words in lengths:
            if "--train.max_steps" not in words:
                raise ConfigError(
                    f"{what} needs --train.max_steps N: with epochs, fewer labels would mean fewer steps, and the share"
                    " of labels would be compared with the length of the training."
                )

    def seeds_of(self, start: Start) -> tuple[int, ...]:
        """The seeds that a start has: as many as checkpoints, if it has any."""
        return self.seeds[: len(start.checkpoints)] if start.checkpoints else self.seeds


def run_study(study: Study, folder: Path, workers: int | None = None, compute: Compute | None = None) -> int:
    """Run what is not finished yet, write results.json, tables, answers and the page; return the exit code.

    Raises:
        ConfigError: see `Study.check` and `Study.check_checkpoints`.
    """
    study.check()
    study.check_checkpoints()
    folder, compute = folder.absolute(), compute or Compute()
    rows, count = run_jobs(jobs_of_study(study, folder, compute), folder, workers, compute)
    results = {**results_of(study, rows), "workers": count, "environment": environment(compute)}
    write_sealed_json(folder / RESULTS, results)
    for sentence in unlike_words(study, rows):
        print("\n" + sentence.replace("**", ""), flush=True)
    return report(folder)


def jobs_of_study(study: Study, folder: Path, compute: Compute) -> list[Job]:
    """Pre-trainings of a seed, then everything that is measured from it, seed by seed."""
    jobs: list[Job] = []
    for place, seed in enumerate(study.seeds):
        for start in study.starts:
            if seed not in study.seeds_of(start):
                continue
            before = _pretraining(study, start, seed, folder, compute) if start.method else None
            jobs += [before] if before else []
            origin = str(before.parameters["output_dir"]) if before else None
            origin = start.checkpoints[place] if start.checkpoints else origin
            weights = ["--init_from", origin] if origin else []
            needs = (before.id,) if before else ()
            for amount, draw in product(study.amounts, range(study.draws)):
                row = row_name(start.name, amount, seed, draw)
                drawn = _drawn(amount, seed + DRAW * draw, compute)
                jobs.append(_finetuning(study, row, drawn, weights, folder, needs))
    return jobs


def _pretraining(study: Study, start: Start, seed: int, folder: Path, compute: Compute) -> Job:
    argv = [*study.pretraining_words, "--method", str(start.method), "--seed", str(seed), *compute.words]
    return _job(f"pretrain-{start.name}-s{seed}", "pretraining", _warmed(argv), folder, ())


def _drawn(amount: Amount, seed: int, compute: Compute) -> list[str]:
    """One seed changes the weights, the order, and which samples are labelled."""
    return ["--seed", str(seed), *amount.words, "--data.subset_seed", str(seed), *compute.words]


def _finetuning(
    study: Study, name: str, drawn: Sequence[str], start: Sequence[str], folder: Path, needs: tuple[str, ...]
) -> Job:
    """A fine-tuning; of two stages both have the same labelled videos.

    Args:
        study: what is run.
        name: of the row.
        drawn: words of its seed and labels.
        start: words of its starting weights.
        folder: outputs.
        needs: jobs before it.
    """
    judged = ["--evaluation.at_end", "true"]
    if study.task != PHASES:
        return _job(name, study.task, [*_warmed([*study.words, *drawn, *judged]), *start], folder, needs)
    clips = [*_warmed([*study.words, *drawn, "--evaluation.at_end", "false"]), *start]
    videos = _warmed([*study.temporal_words, *drawn, *judged])
    steps = _steps(clips) + _steps(videos)
    place = run_folder(folder, name, (clips, CLIPS), (videos, PHASES))
    parameters = {"clip_argv": clips, "temporal_argv": videos, "steps": steps, "output_dir": place}
    return Job(name, f"{ROWS}:trained_in_stages", parameters, needs, float(steps), name)


def _job(name: str, task: str, argv: list[str], folder: Path, needs: tuple[str, ...]) -> Job:
    parameters = {"task": task, "argv": argv, "steps": _steps(argv),
                  "output_dir": run_folder(folder, name, (argv, task))}  # fmt: skip
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


def results_of(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """results.json, in the tables' form.

    Args:
        rows: of the jobs, by id.
    """
    columns = [{"id": column_id(study, amount, metric), "metric": metric, "title": f"{said} %, {amount.title}",
                "split": "evaluation", "floor": None, "floor_text": ""}
               for metric, said in METRICS[study.task] for amount in study.amounts]  # fmt: skip
    ids = [str(column["id"]) for column in columns]
    unlike = unlike_words(study, rows)
    return {
        "name": FEW_LABELS, "budget": "full", "command": "python scripts/few_labels.py", "seeds": list(study.seeds),
        "settings": {"task": study.task, "words": list(study.words), "pretraining": list(study.pretraining_words),
                     **({"temporal": list(study.temporal_words)} if study.temporal_words else {})},
        "wall_seconds": sum(float(row.get("wall_seconds", 0.0)) for row in rows.values()),
        "cpu_seconds": sum(float(row.get("cpu_seconds", 0.0)) for row in rows.values()),
        "columns": columns, "variants": [{"id": start.name, "label": start.name} for start in study.starts],
        "tables": [{"id": "few_labels", "title": "Few labels", "paper": None, "columns": ids,
                    "note": " ".join([NOTE, *labelled_words(study, rows), *unlike]),
                    "rows": [{"variant": start.name, "label": start.name, "group": ""} for start in study.starts]}],
        "questions": list(_questions(study, unlike)),
        "history": [], "grid": [], "data": [],
        "pretraining": list(_pretrained(study, rows)), "rows": list(_cells(study, rows)),
    }  # fmt: skip


def column_id(study: Study, amount: Amount, metric: str) -> str:
    """Of an amount of labels and a metric; the first metric of a task is not named."""
    return amount.id if metric == METRICS[study.task][0][0] else f"{amount.id}-{metric}"


def _rows_of(study: Study, rows: Mapping[str, Mapping[str, Any]], start: Start, amount: Amount) -> list[Any]:
    """Those that are there of a start and an amount of labels."""
    names = [row_name(start.name, amount, seed, draw)
             for seed, draw in product(study.seeds_of(start), range(study.draws))]  # fmt: skip
    return [rows[name] for name in names if name in rows]


def labelled_words(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How much was labelled, as counted by the runs: scenes and videos are drawn whole, so that a share is rounded.

    Args:
        rows: of the jobs, by id; those of earlier versions counted nothing.
    """
    said = []
    for amount in study.amounts:
        found = [row["data"] for start in study.starts for row in _rows_of(study, rows, start, amount) if "data" in row]
        counts, of = sorted({data["samples"] for data in found}), {data.get("samples_in_source") for data in found}
        if not counts:
            continue
        drawn = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        whole = sorted({drawn_whole for data in found if (drawn_whole := _wholes(data))})
        wholes = f" ({whole[0]})" if len(whole) == 1 else ""
        total = f" of {of.pop()}" if len(of) == 1 and None not in of else ""
        said.append(f"{amount.title}: {drawn}{total} samples{wholes}")
    return [f"Trained on: {'; '.join(said)}."] if said else []


def _wholes(data: Mapping[str, Any]) -> str:
    """How many of the scenes or videos, which are drawn whole; empty where nobody counted them."""
    if data.get("sequences"):
        drawn, there = data["sequences"]
        return f"{drawn} of {plural(there, 'sequence')}"
    drawn, there = data.get("videos"), data.get("videos_in_source")
    return f"{drawn} of {plural(there, 'video')}" if drawn and there else ""


def unlike_words(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where starts differ in more than their weights; none where all have one encoder.

    Arguments as those of `labelled_words`.
    """
    encoders: dict[str, list[str]] = {}
    known: dict[str, dict[str, Any]] = {}
    for start in study.starts:
        for amount in study.amounts:
            for row in _rows_of(study, rows, start, amount):
                if "encoder" in row:
                    key = json.dumps(row["encoder"], sort_keys=True)
                    known[key] = row["encoder"]
                    encoders.setdefault(key, [])
                    encoders[key] += [] if start.name in encoders[key] else [start.name]
    if len(known) < 2:
        return []
    first = next(iter(known.values()))
    differ = [name for name in first if any(each[name] != first[name] for each in known.values())]
    listed = "; ".join(
        f"{', '.join(encoders[key])}: {', '.join(f'{name} {each[name]}' for name in differ)}"
        for key, each in known.items()
    )
    return [
        f"**The starts differ in more than their weights** ({listed}), so that no difference is due to pre-training "
        "alone. To compare weights, give --model.KEY VALUE for each of these, of the checkpoint."
    ]


def _questions(study: Study, unlike: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One for each metric; the first one decides. `unlike`: see `unlike_words`."""
    first, *others = [start.name for start in study.starts]
    for number, (metric, said) in enumerate(METRICS[study.task]):
        ids = [column_id(study, amount, metric) for amount in study.amounts]
        compare = [{"better": name, "than": first, "columns": ids, "text": f"{name} over {first}"} for name in others]
        text = f"Is it better than {first}, with few labels{'' if number == 0 else f', by {said}'}?"
        because = " ".join(["Declared by the command line, before the run.", *unlike])
        question = {"id": "labels" if number == 0 else metric, "text": text, "because": because, "compare": compare}
        yield question | ({"primary": True} if number == 0 else {})


def _pretrained(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for start in study.starts:
        for seed in study.seeds if start.method else ():
            row = rows[f"pretrain-{start.name}-s{seed}"]
            found = kept(row, "status", "error", "steps", "seconds", "cpu_seconds", "flops", "loss_floors")
            losses = {key: value for key, value in row.get("metrics", {}).items() if key.startswith("loss/")}
            yield {"variant": start.name, "seed": seed, "diagnostics": losses, **found}


def _cells(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for start in study.starts:
        for seed in study.seeds_of(start):
            for amount, draw, (metric, _) in product(study.amounts, range(study.draws), METRICS[study.task]):
                name, column = row_name(start.name, amount, seed, draw), column_id(study, amount, metric)
                row = rows[name]
                value = row["metrics"][metric] if row["status"] == DONE else None
                what = {"id": name, "variant": start.name, "column": column, "seed": seed, "draw": draw}
                yield {**what, "value": value, **kept(row, "status", "error", "steps", "seconds", "cpu_seconds")}
