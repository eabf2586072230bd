"""What a study of few labels compares: starts, amounts of labels and seeds, and whether they can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m33d_hf.errors import ConfigError
from m33d_hf.weights.files import REPOSITORY

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
        """Of a command line; what a recipe says of the other way to draw labels does not hold."""
        share, number = "null" if self.share is None else f"{self.share:g}", str(self.number or "null")
        return ["--data.label_fraction", share, "--data.max_train_samples", number]


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
        command: as it was typed, for the reports.
    """

    task: str
    words: tuple[str, ...]
    pretraining_words: tuple[str, ...]
    starts: tuple[Start, ...]
    amounts: tuple[Amount, ...]
    seeds: tuple[int, ...]
    draws: int = 1
    temporal_words: tuple[str, ...] = ()
    command: str = "python scripts/few_labels.py"

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
