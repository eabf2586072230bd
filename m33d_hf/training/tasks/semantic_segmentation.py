"""Semantic segmentation from RGB, depth or both: cross-entropy, mean IoU over one confusion matrix."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.labels.census import LabelCensus, take_census
from m33d_hf.data.loader.collation import SegmentationCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.data.sources import source_options
from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.evaluation.metrics import ConfusionMatrix
from m33d_hf.evaluation.position_floors import PositionMode
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_run_source
from m33d_hf.training.tasks.base import Batch, Collator
from m33d_hf.training.tasks.building import config_of, starting_config
from m33d_hf.training.tasks.dense import DenseTask, MeanLoss
from m33d_hf.training.tasks.task_inputs import check_depth_is_there, describe_inputs, source_of
from m33d_hf.weights.formats.classes import class_names

NO_CLASSES = "does not define its classes"


class SemanticSegmentationTask(DenseTask):
    """Fine-tunes `M33DForSemanticSegmentation`; classes and their names come from the source."""

    metric = "miou"
    greater_is_better = True
    model_class = M33DForSemanticSegmentation
    collator_class = SegmentationCollator
    label_map = "segmentation"
    label_type = torch.int64
    floor_metrics = ("miou", "pixel_accuracy")
    takes_inputs = True

    def new_floor(self, config: M33DConfig) -> PositionMode:
        """The commonest class of every position."""
        return PositionMode(int(config.num_labels or 0))

    def __init__(self) -> None:
        self._census: LabelCensus | None = None

    def config_overrides(self, args: RunArguments) -> dict[str, Any]:
        """`id2label` and `label2id` from the source, unless the arguments give `num_labels` or `id2label`.

        Raises:
            ConfigError: neither the source nor the arguments define the classes.
        """
        if {"num_labels", "id2label"} & set(args.model):
            return {}
        names = build_run_source(args, starting_config(args), train=True).class_names
        if names is None:
            counted = args.data.source is not None and "num_classes" in source_options(args.data.source)
            also = "--data.options.num_classes N (maps of 0 to N - 1)" if counted else "--model.num_labels"
            raise ConfigError(
                f"The source {args.data.source!r} {NO_CLASSES}; give --data.options.class_names (a list "
                f"or a file) or {also}."
            )
        return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: data whose classes have other names than the model's, or the same in another order; no depth
                for a model that sees it.
            LabelError: training or evaluation labels with fewer than two classes, unless `data.allow_missing_classes`.
        """
        train_set, eval_set = super().build_datasets(args, model)
        inputs = self.inputs_of(config_of(model))
        check_depth_is_there(args, inputs, train_set.source, "training")
        check_depth_is_there(args, inputs, source_of(eval_set), "evaluation")
        self._census = self._checked(args, model, train_set, train=True)
        self._checked(args, model, eval_set, train=False)
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None.

        Raises:
            ConfigError, LabelError: see `build_datasets`.
        """
        dataset = super().build_eval_dataset(args, model)
        check_depth_is_there(args, self.inputs_of(config_of(model)), source_of(dataset), "evaluation")
        self._checked(args, model, dataset, train=False)
        return dataset

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to inputs and labels; training hides depth."""
        config = config_of(model)
        return SegmentationCollator(config, inputs=self.inputs_of(config), train=train)

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """Inputs, the share of the data, the classes in the training labels, and warnings about missing ones."""
        share = [*describe_inputs(model, self.inputs_of(config_of(model))), *super().describe(args, model, dataset)]
        if self._census is None:
            return share
        return [*share, self._census.summary(), *(f"WARNING: {warning}" for warning in self._census.warnings())]

    def _checked(
        self, args: RunArguments, model: nn.Module, dataset: SampleDataset | None, train: bool
    ) -> LabelCensus | None:
        """Count the labels of a source that has label maps, and refuse those that hold nothing to tell apart."""
        if dataset is None:
            return None
        source, word = dataset.source, "training" if train else "evaluation"
        self._check_classes(model, source.class_names, word)
        maps = source.label_maps(dataset.indices)
        if maps is None:
            return None
        id2label = cast("dict[int, str]", config_of(model).id2label)
        names = [id2label[number] for number in range(len(id2label))]
        census = take_census(maps, names)
        # Few evaluation images may well hold one class; two values of which one is ignored are wrong anywhere.
        problem = census.swallowed() or (census.single() if train else None)
        if problem is not None and not args.data.allow_missing_classes:
            raise LabelError(
                f"{source.root or source.name} ({word} data): {problem}; pass --data.allow_missing_classes true to use "
                "them anyway."
            )
        return census

    def _check_classes(self, model: nn.Module, found: list[str] | None, what: str) -> None:
        """Compare the data's classes with the model's, by name where both sides have names: an id means what the order
        of the names says."""
        known = class_names(config_of(model).id2label)
        named = known is not None and not all(re.fullmatch(r"class \d+", name) for name in found or [])
        number = len(cast("dict[int, str]", config_of(model).id2label))
        if found is None or found == known:
            return
        if len(found) > number or (named and len(found) != number):
            raise ConfigError(
                f"The {what} data has {plural(len(found), 'class')}, but the model has {number}; leave "
                "--model.num_labels out, "
                "or set num_classes, class_names or label_map (--data.options) to match."
            )
        if known is None or not named:
            return
        place = next(i for i, (theirs, ours) in enumerate(zip(found, known, strict=True)) if theirs != ours)
        same = sorted(found) == sorted(known)
        order = "the same classes as the model, in another order" if same else "other classes than the model"
        raise ConfigError(
            f"The {what} data has {order}: class {place} is {found[place]!r} in the data and {known[place]!r} in the "
            "model. Use the model's class list for both (--data.options.class_names)."
        )

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """What `evaluate` returns, with the IoU of every class."""
        names = cast("dict[int, str]", config_of(model).id2label).values()
        floor = [f"floor/{name}" for name in self.floor_metrics] if args.evaluation.floor else []
        return ["miou", "pixel_accuracy", "mean_accuracy", "loss", *(f"iou/{name}" for name in names), *floor]

    def answers(self, output: Any) -> Tensor:
        """Class ids."""
        return output.logits.argmax(dim=1)

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Metrics on the labels after the evaluation transform, from one confusion matrix over the whole data set.

        Returns:
            "miou" (mean over classes that occur in labels or predictions), "pixel_accuracy", "mean_accuracy" and
            "iou/<class>" of the classes that occur, all in [0, 1], and "loss"; with `evaluation.floor`, the first two
            as "floor/..." for the commonest class of every position.
        """
        config = config_of(model)
        matrix = ConfusionMatrix(int(config.num_labels or 0), config.semantic_loss_ignore_index, accelerator.device)
        blind = ConfusionMatrix(int(config.num_labels or 0), config.semantic_loss_ignore_index, accelerator.device)
        loss = MeanLoss(accelerator.device)
        for output, labels in self.predictions(model, loader, accelerator):
            if self._floor is not None:
                blind.update(self._floor.to(labels.device).expand(len(labels), -1, -1), labels)
            matrix.update(output.logits, labels)
            loss.add(output.loss_sums["cross_entropy"], output.loss_counts["cross_entropy"])
        found = matrix.reduce(accelerator).compute()
        metrics = {
            "miou": found["mean_iou"],
            "pixel_accuracy": found["pixel_accuracy"],
            "mean_accuracy": found["mean_accuracy"],
            "loss": loss.compute(accelerator),
        }
        if self._floor is not None:
            trivial = blind.reduce(accelerator).compute()
            metrics |= {"floor/miou": trivial["mean_iou"], "floor/pixel_accuracy": trivial["pixel_accuracy"]}
        names = cast("dict[int, str]", config.id2label)
        for number, iou in enumerate(found["per_class_iou"]):
            if not math.isnan(iou):
                metrics[f"iou/{names[number]}"] = iou
        return metrics
