"""Clip classification: action recognition, and the first stage of surgical action detection (Tables 1, 2 and 10)."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.loader.collation import ClipClassificationCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.data.sources import source_class
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.data.sources.phases.synchrony import same_moments
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.evaluation.classification_metrics import (
    CONFUSION,
    CONFUSION_FIGURE,
    PREDICTIONS,
    ScoreTable,
    VideoScores,
    write_confusion,
    write_predictions,
)
from m33d_hf.evaluation.clip_floors import FLOOR_METRICS, ClassFloor
from m33d_hf.evaluation.detection_metrics import mean_average_precision
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_dataset, build_eval_dataset, build_run_datasets, names_training_data
from m33d_hf.training.tasks.base import Batch, Collator, SourceTask, to_device
from m33d_hf.training.tasks.building import build_initialised, config_of, save_processor, starting_config
from m33d_hf.training.tasks.class_balance import balanced_draws, describe_balance, is_balanced, weigh_classes
from m33d_hf.training.tasks.class_numbers import class_table_of
from m33d_hf.training.tasks.classes import (
    check_every_class,
    check_same_classes,
    class_facts,
    clip_arguments,
    describe_classes,
    labels_in_use,
    training_classes,
)
from m33d_hf.training.tasks.task_inputs import check_depth_is_there, describe_inputs, source_of
from m33d_hf.visualization.confusion import write_confusion_figure


class VideoClassificationTask(SourceTask):
    """Fine-tunes `M33DForVideoClassification` on clips (or images) with one label each.

    The classes and their names come from the training source; the classifier of a checkpoint is used only if its
    classes are the same. Evaluation averages the softmax over the views of each video, of several cameras of a case
    also over the clips of one moment, and writes, to the output folder, predictions.csv (one line per video),
    confusion.csv and confusion_matrix.png of the last evaluation.
    """

    metric = "top1"
    greater_is_better = True
    balances_classes = True
    takes_inputs = True

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._rows = 0
        self._phases = False
        self._together: dict[int, int] = {}
        self._floor: ClassFloor | None = None
        self._no_floor: str | None = None

    def build_model(self, args: RunArguments) -> nn.Module:
        """The model with the encoder of `init_from`, and its head if it has the same classes.

        Raises:
            ConfigError: a configuration that cannot work, or data without classes.
            DataError: two classes of one name.
            CheckpointError: weights that do not fit.
        """
        self._folder = Path(args.output_dir)
        self._rows = self.evaluation_batch(args)
        config = starting_config(args)
        names = training_classes(args, config)
        labels: dict[str, Any] = {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }
        if config.num_frames > 1 and "temporal_frame_stride" not in args.model:
            labels["temporal_frame_stride"] = args.data.frame_stride  # users of the saved model sample alike
        kept = {key: value for key, value in args.model.items() if key not in ("num_labels", "id2label", "label2id")}
        config = starting_config(dataclasses.replace(args, model=kept), **labels)
        model, self.load_report = build_initialised(args, M33DForVideoClassification, config)
        return model

    def maps(self, config: M33DConfig) -> Collection[str]:
        """The model's inputs."""
        return self.inputs_of(config)

    def _read(self, config: M33DConfig) -> dict[str, Any]:
        return {"maps": self.maps(config), "required": self.required(config)}

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """Views and soft targets."""
        targets = torch.empty(rows, int(config.num_labels or 0), device="meta")
        return {**super().example_batch(config, rows), "labels": targets}

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: training or evaluation data whose classes are not the model's; no depth for a model that sees
                it.
            DataError: a class without a training sample, unless `data.allow_missing_classes`.
        """
        config, names = config_of(model), names_of(model)
        adapted, read = clip_arguments(args, config, names), self._read(config)
        train_set, eval_set = build_run_datasets(adapted, config, labelled=True, multi_view=True, **read)
        inputs = self.inputs_of(config)
        check_depth_is_there(args, inputs, train_set.source, "training")
        check_depth_is_there(args, inputs, source_of(eval_set), "evaluation")
        self._keep_depth_spec(inputs, train_set)
        check_same_classes(names, train_set, "training")
        check_every_class(args, train_set, names)
        if is_balanced(args):
            weigh_classes(args, model, self._labels(args, train_set), names)
        self._check_evaluation(names, eval_set)
        if args.evaluation.floor and eval_set is not None:
            self._take_floor(train_set, names)
        return train_set, eval_set

    def _take_floor(self, train_set: SampleDataset, names: list[str]) -> None:
        labels = labels_in_use(train_set)
        if labels is None:
            self._no_floor = "no trivial floor (evaluation.floor): the source does not know the classes of its clips"
        else:
            self._floor = ClassFloor(labels, names)

    def _labels(self, args: RunArguments, dataset: SampleDataset) -> list[np.ndarray]:
        """Per training clip its class, as an array of one.

        Raises:
            ConfigError: the source knows them only when it reads the clips.
        """
        labels = labels_in_use(dataset)
        if labels is None:
            raise ConfigError(
                "train.class_weights and train.sampling need the classes of all clips before they are read, which the "
                f"source {args.data.source!r} cannot tell; leave both out."
            )
        return [np.array([label]) for label in labels]

    def sample_weights(self, args: RunArguments, dataset: SampleDataset) -> np.ndarray | None:
        """Clips of rare classes more often, with `train.sampling balanced`."""
        return balanced_draws(args, self._labels, dataset)

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data only, or None; the floor is that of the training split of the same data.

        Raises:
            ConfigError: its classes are not the model's; no depth for a model that sees it.
        """
        config, names = config_of(model), names_of(model)
        adapted, read = clip_arguments(args, config, names), self._read(config)
        eval_set = build_eval_dataset(adapted, config, multi_view=True, **read)
        check_depth_is_there(args, self.inputs_of(config), source_of(eval_set), "evaluation")
        self._check_evaluation(names, eval_set)
        if args.evaluation.floor and eval_set is not None and not args.dry_run:
            if names_training_data(args):
                self._take_floor(build_dataset(adapted, config, True, **read), names)
            else:
                self._no_floor = "no trivial floor (evaluation.floor): it needs the training data, --data.root"
        return eval_set

    def _keep_depth_spec(self, inputs: Sequence[str], dataset: SampleDataset) -> None:
        """What the saved processor takes stored depth for, where the model sees any."""
        self.depth_spec = dataset.source.depth_spec if "depth" in inputs else None

    def _check_evaluation(self, names: list[str], dataset: SampleDataset | None) -> None:
        if dataset is not None:
            check_same_classes(names, dataset, "evaluation")
            self._phases = isinstance(dataset.source, PhaseSource)
            if isinstance(dataset.source, PhaseSource):
                self._together = same_moments(dataset.source, dataset.indices)

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Views to pixels and targets; training erases, mixes and smooths."""
        config, inputs = config_of(model), self.inputs_of(config_of(model))
        return ClipClassificationCollator(config, args.mixing, args.transforms, train=train, inputs=inputs)

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """Classes, share of the labels, views and mixing."""
        data, mixing, views = args.data, args.mixing, args.data.num_views
        batch = f"batch: {args.train.batch_size} clips"
        if views > 1:
            batch += f" x {views} views = {args.train.batch_size * views} rows"
        mixed = [f"{name} {value:g}" for name, value in (("mixup", mixing.mixup), ("cutmix", mixing.cutmix)) if value]
        said = f"{' or '.join(mixed)} with probability {mixing.probability:g}" if mixed else "no mixing"
        segments, crops = args.evaluation.num_segments, args.evaluation.num_crops
        return [
            *describe_inputs(model, self.inputs_of(config_of(model))),
            *describe_classes(args, dataset, names_of(model)),
            *(describe_balance(args, self._labels(args, dataset), names_of(model)) if is_balanced(args) else []),
            f"{batch}; {said}; label smoothing {mixing.label_smoothing:g}; random erasing {args.transforms.erasing:g}",
            f"clips: {config_of(model).num_frames} frames, {data.clip_sampling} sampling with stride "
            f"{data.frame_stride}; evaluation of {plural(segments, 'segment')} x {plural(crops, 'crop')} per video",
        ]

    def describe_data(self, dataset: SampleDataset) -> dict[str, Any]:
        """As the base, with the number of clips of each class."""
        return {**super().describe_data(dataset), **class_facts(dataset, dataset.source.action_names or [])}

    def class_table(self, model: nn.Module, dataset: SampleDataset) -> ClassTable | None:
        """The model's classes; for annotated phases, with their numbers."""
        return class_table_of(dataset, names_of(model))

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """What `evaluate` returns; average precisions only for clips of phases."""
        phases = issubclass(source_class(args.data.source), PhaseSource)
        precisions = ["map", *(f"ap/{name}" for name in names_of(model))] if phases else []
        floor = [f"floor/{name}" for name in FLOOR_METRICS] if args.evaluation.floor else []
        return ["top1", "top5", "mean_class_accuracy", "loss", "samples", *precisions, *floor]

    def closing_lines(self, metrics: Mapping[str, float]) -> list[str]:
        """The model beside the trivial floors, where they were judged."""
        if self._floor is None or any(f"floor/{name}" not in metrics for name in FLOOR_METRICS):
            return [] if self._no_floor is None else [self._no_floor]
        return self._floor.lines(metrics)

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Each video counts once, by the mean softmax of its views, for any number of processes.

        Returns:
            See `ScoreTable.metrics`; for clips of phases also "map", the mean over the phases that occur of their
            average precision, and "ap/<phase>" of each; with `evaluation.floor`, `ClassFloor.metrics`.
        """
        names = names_of(model)
        scores = VideoScores(len(names))
        for batch in loader:
            self._add_batch(model, batch, scores, accelerator)
        scores = scores.gather(accelerator)
        table = (scores.joined(self._together) if self._together else scores).table()
        metrics = table.metrics()
        if self._phases:
            metrics |= _average_precisions(table, names)
        if self._floor is not None:
            metrics |= self._floor.metrics(table)
        if self._folder is not None:
            _on_main(accelerator, lambda folder: write_results(table, names, folder), self._folder)
        return metrics

    def without_files(self) -> VideoClassificationTask:
        """A twin without the folder of predictions."""
        twin = copy.copy(self)
        twin._folder = None
        return twin

    def _add_batch(self, model: nn.Module, batch: Batch, scores: VideoScores, accelerator: Accelerator) -> None:
        """Score the views of a batch, as many at once as `evaluation.batch_size` says."""
        if "labels" not in batch:
            return
        labels, meta = batch["labels"], batch["meta"]
        given = {name: value for name, value in batch.items() if name not in ("labels", "meta")}
        rows = meta["views"]
        step = self._rows or len(labels)
        for start in range(0, len(labels), step):
            part = slice(start, start + step)
            parts = {name: value[part] for name, value in given.items()}
            inputs = to_device({**parts, "meta": meta}, accelerator.device)
            with accelerator.autocast():
                logits = model(**inputs).logits
            scores.update(
                [row[0] for row in rows[part]],
                [(row[1], row[2]) for row in rows[part]],
                meta["keys"][part],
                labels[part].numpy(),
                logits.float().cpu().numpy(),
            )

    def save_processor(self, model: nn.Module, args: RunArguments, folder: Path) -> None:
        """Write the preprocessing of this run's evaluation to `folder`."""
        # Several crops always cover the canvas, whatever `transforms.eval_crop` says.
        crops = args.evaluation.num_crops > 1
        save_processor(config_of(model), args, folder, several_crops=crops, depth_spec=self.depth_spec)


def names_of(model: nn.Module) -> list[str]:
    """The model's classes in id order."""
    labels = cast("dict[int, str]", config_of(model).id2label)
    return [labels[number] for number in range(len(labels))]


def write_results(table: ScoreTable, names: list[str], folder: Path) -> None:
    """Write predictions, confusion counts and their plot to a folder.

    Raises:
        OSError: the folder cannot be written to.
    """
    write_predictions(table, names, folder / PREDICTIONS)
    matrix = table.confusion()
    write_confusion(matrix, names, folder / CONFUSION)
    write_confusion_figure(matrix, names, folder / CONFUSION_FIGURE)


def _average_precisions(table: ScoreTable, names: list[str]) -> dict[str, float]:
    chosen = table.labelled
    if not chosen.any():
        return {"map": math.nan}
    mean, per_class = mean_average_precision(table.probabilities[chosen], table.labels[chosen])
    found = {f"ap/{name}": value for name, value in zip(names, per_class, strict=True) if not math.isnan(value)}
    return {"map": mean, **found}


def _on_main(accelerator: Accelerator, work: Any, folder: Path) -> None:
    """Run `work(folder)` on the main process; where it fails, all of them raise.

    Raises:
        CheckpointError: the files cannot be written.
    """
    failures: list[str] = []
    if accelerator.is_main_process:
        try:
            work(folder)
        except OSError as error:
            failures = [str(error)]
    if accelerator.num_processes > 1:
        failures = gather_object(failures)
    if failures:
        raise CheckpointError(
            f"Could not write the evaluation's files to {folder}: {failures[0]}; free some disk space."
        )
