"""Semantic segmentation from RGB: cross-entropy, mean IoU over one confusion matrix (REFERENCE 3.5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, cast

from accelerate import Accelerator
from torch import nn

from m33d_hf.convert.classes import class_names
from m33d_hf.data.collation import SegmentationCollator
from m33d_hf.data.loading import SampleDataset
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.metrics import ConfusionMatrix
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.training.arguments import RunArguments
from m33d_hf.training.initialisation import starting_config
from m33d_hf.training.tasks.base import Batch
from m33d_hf.training.tasks.building import build_run_source
from m33d_hf.training.tasks.dense import DenseTask, MeanLoss


class SemanticSegmentationTask(DenseTask):
    """Fine-tunes `M33DForSemanticSegmentation`; classes and their names come from the source."""

    name = "semantic_segmentation"
    metric = "miou"
    greater_is_better = True
    model_class = M33DForSemanticSegmentation
    collator_class = SegmentationCollator

    def config_overrides(self, args: RunArguments) -> dict[str, Any]:
        """`id2label` and `label2id` from the source, unless the arguments give `num_labels` or `id2label`.

        Raises:
            ConfigError: neither the source nor the arguments know the classes.
        """
        if {"num_labels", "id2label"} & set(args.model):
            return {}
        names = build_run_source(args, starting_config(args), train=True).class_names
        if names is None:
            raise ConfigError(
                f"The source {args.data.source!r} does not know its classes; give --data.options.class_names (a list "
                "or a file) or --model.num_labels."
            )
        return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: data whose classes have other names than the model's, or the same in another order.
        """
        train_set, eval_set = super().build_datasets(args, model)
        self._check_classes(model, train_set, "training")
        self._check_classes(model, eval_set, "evaluation")
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None.

        Raises:
            ConfigError: as `build_datasets`.
        """
        eval_set = super().build_eval_dataset(args, model)
        self._check_classes(model, eval_set, "evaluation")
        return eval_set

    def _check_classes(self, model: nn.Module, dataset: SampleDataset | None, what: str) -> None:
        """Compare names where both sides have some: ids mean what the order of the names says."""
        found = None if dataset is None else dataset.source.class_names
        known = class_names(self.config_of(model).id2label)
        nameless = found is None or all(re.fullmatch(r"class \d+", name) for name in found)
        if known is None or nameless or found is None or found == known:
            return
        if len(found) != len(known):
            raise ConfigError(f"The {what} data have {len(found)} classes, the model {len(known)}.")
        place = next(i for i, (theirs, ours) in enumerate(zip(found, known, strict=True)) if theirs != ours)
        order = "the same classes in another order" if sorted(found) == sorted(known) else "other classes"
        raise ConfigError(
            f"The {what} data have {order} than the model: class {place} is {found[place]!r} there and "
            f"{known[place]!r} here. Give both sides one table (--data.options.class_names), in the model's order."
        )

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """What `evaluate` returns, with the IoU of every class."""
        names = cast("dict[int, str]", self.config_of(model).id2label).values()
        return ["miou", "pixel_accuracy", "mean_accuracy", "loss", *(f"iou/{name}" for name in names)]

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Metrics on the labels as the evaluation transform leaves them, one confusion matrix over the whole set.

        Returns:
            "miou" (mean over classes that occur in labels or predictions), "pixel_accuracy", "mean_accuracy" and
            "iou/<class>" of the classes that occur, all in [0, 1], and "loss".
        """
        config = self.config_of(model)
        matrix = ConfusionMatrix(int(config.num_labels or 0), config.semantic_loss_ignore_index, accelerator.device)
        loss = MeanLoss(accelerator.device)
        for output, labels in self.predictions(model, loader, accelerator):
            matrix.update(output.logits, labels)
            loss.add(output.loss_sums["cross_entropy"], output.loss_counts["cross_entropy"])
        found = matrix.reduce(accelerator).compute()
        metrics = {
            "miou": found["mean_iou"],
            "pixel_accuracy": found["pixel_accuracy"],
            "mean_accuracy": found["mean_accuracy"],
            "loss": loss.compute(accelerator),
        }
        names = cast("dict[int, str]", config.id2label)
        for number, iou in enumerate(found["per_class_iou"]):
            if not math.isnan(iou):
                metrics[f"iou/{names[number]}"] = iou
        return metrics
