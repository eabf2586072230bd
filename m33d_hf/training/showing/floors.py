"""What a prediction that looks at no picture reaches on the evaluation data: the bar that a model has to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.showing.samples import spread_rows
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

LEARNED_FROM, JUDGED_ON = 64, 128  # samples at most, spread over the data


@dataclass(frozen=True)
class Floor:
    """A trivial prediction's value.

    Attributes:
        metric: without "eval/".
        value: in [0, 1].
        how: the prediction in words.
        samples: evaluation samples that it was judged on.
    """

    metric: str
    value: float
    how: str
    samples: int


def floor_of(
    task: Task, args: RunArguments, config: M33DConfig, train_set: SampleDataset, eval_set: SampleDataset | None
) -> Floor | None:
    """The mean depth, or the commonest class, of every position; None for other tasks and published protocols.

    Positions are those after the evaluation's transform, in the training data as well.

    Args:
        task: of the run.
        args: of the run.
        config: of its model.
        train_set: from which the prediction is taken.
        eval_set: on which it is judged.

    Raises:
        DataError, OSError: the data cannot be read.
    """
    if eval_set is None or args.evaluation.depth_protocol is not None:
        return None
    placed = train_set.with_transform(eval_set.transform)  # type: ignore[arg-type]
    if isinstance(task, DepthEstimationTask):
        return _depth_floor(placed, eval_set)
    if isinstance(task, SemanticSegmentationTask):
        return _class_floor(placed, eval_set, int(config.num_labels or 0))
    return None


def _depth_floor(train_set: SampleDataset, eval_set: SampleDataset) -> Floor | None:
    total, count, used = torch.zeros(()), torch.zeros(()), 0
    for sample in _samples(train_set, LEARNED_FROM):
        depth = _depth(sample)
        total, count, used = total + depth.nan_to_num(0.0), count + depth.isfinite(), used + 1
    metrics, judged = DepthMetrics(), 0
    if used == 0:
        return None
    # Where no training frame has a value: the mean of all.
    mean = torch.where(count > 0, total / count.clamp_min(1), total.sum() / count.sum().clamp_min(1))
    for sample in _samples(eval_set, JUDGED_ON):
        metrics.update(mean[None], _depth(sample)[None])
        judged += 1
    if judged == 0:
        return None
    how = f"the mean depth per position over {used} training frames"
    return Floor("delta1", float(metrics.compute()["delta1"]), how, judged)


def _class_floor(train_set: SampleDataset, eval_set: SampleDataset, classes: int) -> Floor | None:
    votes, used = torch.zeros(()), 0
    for sample in _samples(train_set, LEARNED_FROM):
        labels = _labels(sample, classes)
        votes = votes + torch.nn.functional.one_hot(labels, classes + 1)[..., :classes]
        used += 1
    confusion, judged = ConfusionMatrix(classes), 0
    if used == 0:
        return None
    commonest = votes.argmax(-1)
    for sample in _samples(eval_set, JUDGED_ON):
        labels = _labels(sample, classes)
        confusion.update(commonest[None], torch.where(labels == classes, IGNORE_INDEX, labels)[None])
        judged += 1
    if judged == 0:
        return None
    how = f"the commonest class per position over {used} training frames"
    return Floor("miou", float(confusion.compute()["mean_iou"]), how, judged)


def _samples(dataset: SampleDataset, count: int) -> Iterator[RGBDSample]:
    """First views of samples spread over a data set; those that cannot be read are left out."""
    for row in spread_rows(dataset, count):
        item = dataset[row]
        sample = item[0] if isinstance(item, list) else item
        if not sample.meta.get("dropped", False):
            yield sample


def _depth(sample: RGBDSample) -> Tensor:
    """(H, W) metres, NaN where invalid."""
    aligned = sample.align().depth
    if aligned is None:
        return torch.full((sample.height, sample.width), torch.nan)
    return aligned[0, 0].float()


def _labels(sample: RGBDSample, classes: int) -> Tensor:
    """(H, W) int64 ids, `classes` where nothing is annotated."""
    if sample.segmentation is None:
        return torch.full((sample.height, sample.width), classes)
    labels = sample.segmentation[0].long()
    return torch.where(labels < classes, labels, classes)
